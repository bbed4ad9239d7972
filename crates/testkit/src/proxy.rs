//! A TCP proxy that can be cut, stalled and healed.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_linger;

use crate::server::candidate_port;

/// What a direction holds at most.
const BUFFER: usize = 64 * 1024;

/// A proxy on a port of 127.0.0.1 in front of one server.
///
/// It starts flowing. A command has taken effect when its call returns. One thread,
/// `overdrive-testkit-proxy`, serves all connections; it ends with the value, and what is open
/// then is reset.
///
/// ```
/// use overdrive_testkit::{Proxy, RedisServer};
///
/// let server = RedisServer::start()?;
/// let proxy = Proxy::start(server.addr()).expect("a port");
/// let url = format!("redis://{}", proxy.addr());
/// proxy.cut();  // connections through it are reset, new ones refused
/// proxy.heal();
/// # assert!(url.starts_with("redis://127.0.0.1:"));
/// # Ok::<(), overdrive_testkit::ServerError>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    commands: Sender<(Command, Sender<()>)>,
    wake: UnixStream,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    accepted: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Cut,
    CutAfter(usize),
    Flow,
    Stall,
    Stop,
}

impl Proxy {
    /// Starts a proxy to `upstream`, which is dialled anew for each connection.
    ///
    /// # Errors
    /// No port, no thread.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = listen()?;
        let addr = listener.local_addr()?;
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let (commands, received) = channel();
        let counts = Arc::new(Counts::default());
        let mut state = Loop {
            listener,
            upstream,
            woken,
            received,
            counts: counts.clone(),
            mode: Mode::Flow,
            cut_after: None,
            connections: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("overdrive-testkit-proxy".into())
            .spawn(move || state.run())?;
        Ok(Self {
            addr,
            commands,
            wake,
            counts,
            thread: Some(thread),
        })
    }

    /// Where to connect to. It stays the same over cuts.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all connections, and refuses new ones until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.command(Command::Cut);
    }

    /// Lets so many more bytes through towards the clients, all connections counted together, and
    /// then cuts.
    pub fn cut_after(&self, bytes: usize) {
        self.command(Command::CutAfter(bytes));
    }

    /// Accepts and forwards again after a cut or a stall.
    pub fn heal(&self) {
        self.command(Command::Flow);
    }

    /// Keeps connections open and accepts new ones, but forwards nothing until
    /// [`flow`](Self::flow). What was received before stays, and comes then.
    pub fn stall(&self) {
        self.command(Command::Stall);
    }

    /// The end of a stall; the same as [`heal`](Self::heal).
    pub fn flow(&self) {
        self.heal();
    }

    /// Open connections now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.open.load(Ordering::Acquire)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Acquire)
    }

    fn command(&self, command: Command) {
        let (done, wait) = channel();
        let sent = self.commands.send((command, done)).is_ok() && (&self.wake).write(&[0]).is_ok();
        assert!(sent && wait.recv().is_ok(), "the proxy's thread has ended");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let (done, _) = channel();
        let _ended = self.commands.send((Command::Stop, done));
        let _ended = (&self.wake).write(&[0]);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let mut last = None;
    for _ in 0..8 {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, candidate_port())) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cut,
    Flow,
    Stall,
}

struct Loop {
    listener: TcpListener,
    upstream: SocketAddr,
    woken: UnixStream,
    received: Receiver<(Command, Sender<()>)>,
    counts: Arc<Counts>,
    mode: Mode,
    /// Bytes until the cut.
    cut_after: Option<usize>,
    connections: Vec<Connection>,
}

impl Loop {
    fn run(&mut self) {
        while self.obey() {
            self.wait();
            self.accept();
            if self.mode == Mode::Flow {
                self.forward();
            }
            let open = self.connections.len();
            self.counts.open.store(open, Ordering::Release);
        }
        self.reset_all();
    }

    /// Whether to go on.
    fn obey(&mut self) -> bool {
        while self.woken.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        while let Ok((command, done)) = self.received.try_recv() {
            match command {
                Command::Cut => self.cut(),
                Command::CutAfter(0) => self.cut(),
                Command::CutAfter(bytes) => self.cut_after = Some(bytes),
                Command::Flow => self.flow(),
                Command::Stall => {
                    self.flow();
                    self.mode = Mode::Stall;
                }
                Command::Stop => return false,
            }
            let _caller_gone = done.send(());
        }
        true
    }

    fn cut(&mut self) {
        self.cut_after = None;
        self.reset_all();
        if self.mode == Mode::Cut {
            return;
        }
        // Linux: it no longer listens, yet keeps its port.
        let stopped = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Read);
        stopped.expect("a listener stops");
        self.mode = Mode::Cut;
    }

    fn flow(&mut self) {
        if self.mode == Mode::Cut {
            rustix::net::listen(&self.listener, 128).expect("the port is still ours");
        }
        self.cut_after = None;
        self.mode = Mode::Flow;
    }

    fn reset_all(&mut self) {
        // Before a client can notice.
        self.counts.open.store(0, Ordering::Release);
        self.connections.drain(..).for_each(Connection::reset);
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        if self.mode != Mode::Cut {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        if self.mode == Mode::Flow {
            fds.extend(self.connections.iter().flat_map(Connection::interests));
        }
        let _interrupted = poll(&mut fds, None);
    }

    fn accept(&mut self) {
        while self.mode != Mode::Cut {
            let Ok((client, _)) = self.listener.accept() else {
                return;
            };
            self.counts.accepted.fetch_add(1, Ordering::AcqRel);
            match Connection::open(client, self.upstream) {
                Ok(connection) => self.connections.push(connection),
                Err(client) => reset(&client),
            }
        }
    }

    fn forward(&mut self) {
        let mut allowance = self.cut_after.unwrap_or(usize::MAX);
        self.connections
            .retain_mut(|connection| match connection.forward(&mut allowance) {
                Ok(open) => open,
                Err(_) => {
                    reset(&connection.client);
                    reset(&connection.server);
                    false
                }
            });
        if self.cut_after.is_some() {
            self.cut_after = Some(allowance);
            if allowance == 0 {
                self.cut();
            }
        }
    }
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    up: Direction,
    down: Direction,
}

impl Connection {
    fn open(client: TcpStream, upstream: SocketAddr) -> Result<Self, TcpStream> {
        let dial = || {
            let server = TcpStream::connect_timeout(&upstream, Duration::from_secs(1))?;
            for stream in [&client, &server] {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
            }
            Ok::<_, io::Error>(server)
        };
        match dial() {
            Err(_) => Err(client),
            Ok(server) => Ok(Self {
                client,
                server,
                up: Direction::default(),
                down: Direction::default(),
            }),
        }
    }

    /// A descriptor without a wish is left out: it would report its hang-up for ever.
    fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let client = self.up.to_read() | self.down.to_write();
        let server = self.down.to_read() | self.up.to_write();
        let both = [(&self.client, client), (&self.server, server)];
        both.into_iter()
            .filter(|(_, flags)| !flags.is_empty())
            .map(|(stream, flags)| PollFd::new(stream, flags))
    }

    /// Whether it is still open.
    fn forward(&mut self, allowance: &mut usize) -> io::Result<bool> {
        let mut unlimited = usize::MAX;
        self.up
            .forward(&self.client, &self.server, &mut unlimited)?;
        self.down.forward(&self.server, &self.client, allowance)?;
        Ok(!(self.up.ended && self.down.ended))
    }

    fn reset(self) {
        reset(&self.client);
        reset(&self.server);
    }
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    let _closed_already = set_socket_linger(stream, Some(Duration::ZERO));
}

#[derive(Default)]
struct Direction {
    held: Vec<u8>,
    /// The source has closed its side.
    closing: bool,
    /// So has the target been told.
    ended: bool,
}

impl Direction {
    fn to_read(&self) -> PollFlags {
        let wanted = !self.closing && self.held.len() < BUFFER;
        if wanted {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    fn to_write(&self) -> PollFlags {
        if self.held.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        }
    }

    fn forward(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        allowance: &mut usize,
    ) -> io::Result<()> {
        if !self.closing && self.held.len() < BUFFER {
            let mut chunk = [0; 16 * 1024];
            match from.read(&mut chunk) {
                Ok(0) => self.closing = true,
                Ok(n) => self.held.extend_from_slice(&chunk[..n]),
                Err(error) => not_now(error)?,
            }
        }
        let part = self.held.len().min(*allowance);
        if part > 0 {
            match to.write(&self.held[..part]) {
                Ok(n) => {
                    self.held.drain(..n);
                    *allowance -= n;
                }
                Err(error) => not_now(error)?,
            }
        }
        if self.closing && self.held.is_empty() && !self.ended {
            self.ended = true;
            to.shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    }
}

fn not_now(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
