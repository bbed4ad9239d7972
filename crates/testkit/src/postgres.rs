//! A real PostgreSQL.

mod template;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::server::{Process, Programs, ServerError, TempDir, candidate_port};

/// A PostgreSQL of one's own, on a free port of 127.0.0.1, in a temporary directory.
///
/// Superuser and database are `postgres`, without a password. Commits survive
/// [`kill`](Self::kill): they are written to the operating system before they are acknowledged
/// (`synchronous_commit` is on), though not forced to the disk (`fsync` is off), which only a
/// crash of the machine would tell apart.
///
/// Its data directory is a copy of one made once per build directory, since `initdb` takes a
/// second or two. As root, which PostgreSQL refuses to run under, it runs as `postgres` or
/// `nobody`. The processes end with the value, also in a panic, and with the test process, however
/// that ends: a small watcher shell holds a pipe to it.
///
/// ```
/// use overdrive_testkit::PostgresServer;
///
/// let server = PostgresServer::start()?;
/// assert_eq!(server.sql("SELECT 6 * 7")?, "42");
/// # Ok::<(), overdrive_testkit::ServerError>(())
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    // Before the directory: fields drop in this order.
    process: Option<Process>,
    dir: TempDir,
    bin: PathBuf,
    settings: Vec<String>,
    port: u16,
}

impl PostgresServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&[])
    }

    /// Starts a server with further settings, such as `["max_connections=5"]`.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start_with(settings: &[&str]) -> Result<Self, ServerError> {
        Self::start_using(&Programs::default(), settings)
    }

    /// Starts the newest PostgreSQL found by `programs`.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start_using(programs: &Programs, settings: &[&str]) -> Result<Self, ServerError> {
        let initdb = programs.find("initdb", "postgresql")?;
        // A link leads to the folder with the other programs.
        let initdb = fs::canonicalize(initdb).map_err(ServerError::io("find initdb"))?;
        let bin = initdb.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let dir = TempDir::new().map_err(ServerError::io("make a temporary directory"))?;
        let user = unprivileged()?;
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid))
                .map_err(ServerError::io("give the directory away"))?;
        }
        template::copy_to(&bin, &dir, user)?;
        let mut server = Self {
            process: None,
            dir,
            bin,
            settings: settings.iter().map(|&s| s.to_owned()).collect(),
            port: 0,
        };
        // Somebody else may take the port between the choice and the start.
        for _ in 0..4 {
            server.port = candidate_port();
            match server.launch() {
                Err(ServerError::Ended { log, .. }) if log.contains("Address already in use") => {}
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

    /// `postgres://postgres@127.0.0.1:PORT/postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Runs statements through `psql`, and gives the rows as lines with columns parted by `|`.
    ///
    /// # Errors
    /// A statement failed, or the server is down.
    pub fn sql(&self, statements: &str) -> Result<String, ServerError> {
        let program = self.bin.join("psql");
        let output = Command::new(&program)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-d", &self.url(), "-c", statements])
            .env("PGCONNECT_TIMEOUT", "10")
            .output()
            .map_err(ServerError::io("run psql"))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServerError::Failed { program, output });
        }
        let rows = String::from_utf8_lossy(&output.stdout);
        Ok(rows.trim_end().to_owned())
    }

    /// SIGKILL to the server and its backends. They are gone when this returns. Does nothing to a
    /// server that is down.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP to the server and its backends: connections stay open, nothing answers.
    ///
    /// # Errors
    /// The server is down.
    pub fn pause(&self) -> Result<(), ServerError> {
        let process = self.process.as_ref().ok_or(ServerError::Down)?;
        process.pause().map_err(ServerError::io("stop the server"))
    }

    /// SIGCONT to the server and its backends.
    ///
    /// # Errors
    /// The server is down.
    pub fn resume(&self) -> Result<(), ServerError> {
        let process = self.process.as_ref().ok_or(ServerError::Down)?;
        process
            .resume()
            .map_err(ServerError::io("continue the server"))
    }

    /// Kills the server if it runs, starts it again on the same port and data, and waits until it
    /// has recovered and answers.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        self.launch()
    }

    fn launch(&mut self) -> Result<(), ServerError> {
        let log = self.dir.path().join("log");
        let program = self.bin.join("postgres");
        let mut command = Command::new(&program);
        command.arg("-D").arg(self.data());
        let sockets = format!("unix_socket_directories={}", self.dir.path().display());
        let own = [
            "listen_addresses=127.0.0.1",
            &format!("port={}", self.port),
            &sockets,
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=16MB",
            // Files of the data directory: a kill leaves nothing behind in /dev/shm.
            "dynamic_shared_memory_type=mmap",
        ];
        for setting in own.into_iter().chain(self.settings.iter().map(|s| &**s)) {
            command.args(["-c", setting]);
        }
        if let Some((uid, gid)) = unprivileged()? {
            command.uid(uid).gid(gid);
        }
        let process = Process::spawn(&mut command, self.dir.path(), &log)
            .map_err(ServerError::io("start postgres"))?;
        let id = process.id();
        let answers = || self.says_ready(id) && greet(self.addr()).is_ok();
        self.process = Some(process.once_ready(answers, &program, &log)?);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `postmaster.pid`: the process on line 1, the state on line 8, written once it listens.
    fn says_ready(&self, id: u32) -> bool {
        let lines = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = lines.lines().map(str::trim);
        lines.next() == Some(&id.to_string()) && lines.nth(6) == Some("ready")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let left = self.data().join("postmaster.pid");
        match self.process.take() {
            // It removes its shared memory itself.
            Some(process) => process.quit(),
            None => remove_shared_memory(&left),
        }
    }
}

/// A killed server leaves a small System V segment, named on line 7 of its `postmaster.pid`: the
/// key and the id.
fn remove_shared_memory(postmaster: &Path) {
    let text = fs::read_to_string(postmaster).unwrap_or_default();
    let line = text.lines().nth(6).unwrap_or_default();
    if let Some(id) = line.split_whitespace().nth(1) {
        let _may_be_missing = Command::new("ipcrm").args(["-m", id]).output();
    }
}

/// Goes through the start of a connection, as far as "ready for query".
fn greet(addr: SocketAddr) -> io::Result<()> {
    const START: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&addr, limit)?;
    stream.set_read_timeout(Some(limit))?;
    debug_assert_eq!(START.len(), 0x29);
    stream.write_all(START)?;
    loop {
        // A message is its kind, its length without the kind, and its body.
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        match kind {
            b'Z' => return stream.write_all(b"X\0\0\0\x04"),
            b'E' => return Err(io::ErrorKind::NotConnected.into()),
            _ => {}
        }
        let body = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
        io::copy(&mut (&mut stream).take(body), &mut io::sink())?;
    }
}

/// The user and group to run as instead of root.
fn unprivileged() -> Result<Option<(u32, u32)>, ServerError> {
    if !crate::server::is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(ServerError::io("read the users"))?;
    let find = |wanted: &str| {
        let line = users
            .lines()
            .find(|l| l.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.map(Some).ok_or_else(|| ServerError::Failed {
        program: "/etc/passwd".into(),
        output: "neither postgres nor nobody is a user".to_owned(),
    })
}
