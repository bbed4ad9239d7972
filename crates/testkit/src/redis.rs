//! A real Redis.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::resp::{Reply, RespClient};
use crate::server::{Process, Programs, ServerError, TempDir, candidate_port};

/// A `redis-server` of one's own, on a free port of 127.0.0.1, in a temporary directory.
///
/// It keeps nothing on disk unless started with [`PERSISTENT`](Self::PERSISTENT). The process ends
/// with the value, also in a panic, and with the test process, however that ends: a small watcher
/// shell holds a pipe to it.
///
/// ```
/// use overdrive_testkit::{RedisServer, Reply};
///
/// let server = RedisServer::start()?;
/// server.command(&["SET", "k", "v"])?;
/// assert_eq!(server.command(&["GET", "k"])?, Reply::Bytes(b"v".to_vec()));
/// # Ok::<(), overdrive_testkit::ServerError>(())
/// ```
#[derive(Debug)]
pub struct RedisServer {
    // Before the directory: fields drop in this order.
    process: Option<Process>,
    dir: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
}

impl RedisServer {
    /// Arguments with which every acknowledged write survives [`kill`](Self::kill) and
    /// [`restart`](Self::restart).
    pub const PERSISTENT: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments, such as `["--maxmemory", "1mb"]`. A password given
    /// by `--requirepass` is used by [`command`](Self::command); [`url`](Self::url) is without.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start_with(arguments: &[&str]) -> Result<Self, ServerError> {
        Self::start_using(&Programs::default(), arguments)
    }

    /// Starts the `redis-server` found by `programs`.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start_using(programs: &Programs, arguments: &[&str]) -> Result<Self, ServerError> {
        let program = programs.find("redis-server", "redis-server")?;
        let dir = TempDir::new().map_err(ServerError::io("make a temporary directory"))?;
        let mut server = Self {
            process: None,
            dir,
            program,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            port: 0,
        };
        // Somebody else may take the port between the choice and the start.
        for _ in 0..4 {
            server.port = candidate_port();
            match server.launch() {
                Err(ServerError::Ended { log, .. }) if port_taken(&log) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
        server.port = candidate_port();
        server.launch().map(|()| server)
    }

    /// The server's port on 127.0.0.1. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Errors
    /// The server is down, or has not answered within five seconds. An error that the server
    /// replies with is a [`Reply::Error`].
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Result<Reply, ServerError> {
        self.client(Duration::from_secs(5))
            .and_then(|mut client| client.command(arguments))
            .map_err(ServerError::io("ask the Redis server"))
    }

    /// SIGKILL. The process is gone when this returns. Does nothing to a server that is down.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: connections stay open, new ones are accepted by the system, nothing answers.
    ///
    /// # Errors
    /// The server is down.
    pub fn pause(&self) -> Result<(), ServerError> {
        let process = self.process.as_ref().ok_or(ServerError::Down)?;
        process.pause().map_err(ServerError::io("stop the server"))
    }

    /// SIGCONT: what has piled up is answered.
    ///
    /// # Errors
    /// The server is down.
    pub fn resume(&self) -> Result<(), ServerError> {
        let process = self.process.as_ref().ok_or(ServerError::Down)?;
        process
            .resume()
            .map_err(ServerError::io("continue the server"))
    }

    /// Kills the server if it runs, starts it again on the same port and directory, and waits
    /// until it answers.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        self.launch()
    }

    fn launch(&mut self) -> Result<(), ServerError> {
        let log = self.dir.path().join("log");
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.dir.path())
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments);
        let process = Process::spawn(&mut command, self.dir.path(), &log)
            .map_err(ServerError::io("start redis-server"))?;
        // Only an answer of this very process counts: another may have had the port first.
        let mine = format!("process_id:{}\r", process.id());
        let answers = || self.describe().is_ok_and(|text| text.contains(&mine));
        self.process = Some(process.once_ready(answers, &self.program, &log)?);
        Ok(())
    }

    fn client(&self, limit: Duration) -> io::Result<RespClient> {
        let mut client = RespClient::connect(self.addr(), limit)?;
        let mut options = self.arguments.windows(2);
        if let Some(pair) = options.find(|pair| pair[0] == "--requirepass") {
            client.command(&["AUTH", &pair[1]])?;
        }
        Ok(client)
    }

    /// What it says of itself once it serves.
    fn describe(&self) -> io::Result<String> {
        let mut client = self.client(Duration::from_secs(1))?;
        // While it loads its data the server answers with an error.
        if client.command(&["PING"])? != Reply::Status("PONG".to_owned()) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let reply = client.command(&["INFO", "server"])?;
        Ok(reply.text().unwrap_or_default())
    }
}

fn port_taken(log: &str) -> bool {
    log.contains("Address already in use")
}
