//! What the servers have in common: finding, starting, signalling and stopping a process.

mod install;
mod port;
mod process;
mod temp;

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::install::Programs;
pub(crate) use self::install::is_root;
pub(crate) use self::port::candidate_port;
pub(crate) use self::process::Process;
pub(crate) use self::temp::TempDir;

/// How long a server may take until it answers.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);

/// Why a server could not be started, signalled or asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The program is not installed, and was not or could not be installed from here.
    Missing {
        /// The program that was looked for.
        program: String,
        /// The command that installs it.
        command: String,
    },
    /// The server ended before it answered.
    Ended {
        /// What was started.
        program: PathBuf,
        /// The last lines it wrote.
        log: String,
    },
    /// The server did not answer in time.
    TimedOut {
        /// What was started.
        program: PathBuf,
        /// The last lines it wrote.
        log: String,
    },
    /// The server is not running: it was killed and not restarted.
    Down,
    /// A program that prepares a server failed.
    Failed {
        /// What was run.
        program: PathBuf,
        /// What it wrote.
        output: String,
    },
    /// The operating system refused something.
    Io {
        /// What was attempted.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl ServerError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program, command } => {
                write!(f, "`{program}` is not installed; run `{command}`")
            }
            Self::Ended { program, log } => {
                write!(f, "{} ended before it answered:\n{log}", program.display())
            }
            Self::TimedOut { program, log } => {
                write!(f, "{} did not answer in time:\n{log}", program.display())
            }
            Self::Down => f.write_str("the server is not running"),
            Self::Failed { program, output } => {
                write!(f, "{} failed:\n{output}", program.display())
            }
            Self::Io { what, source } => write!(f, "could not {what}: {source}"),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Asks `ready` again and again until it answers or the time is up.
pub(crate) fn poll_until<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        rest(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits without touching the thread's park token, which the caller's executor may use.
fn rest(pause: Duration) {
    let nobody = Mutex::new(());
    let guard = nobody.lock().unwrap_or_else(PoisonError::into_inner);
    let _timed_out = Condvar::new().wait_timeout(guard, pause);
}
