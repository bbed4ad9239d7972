//! What a check over Redis is answered.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use overdrive_remote::RemoteError;

use crate::error::{CheckError, Denied};
use crate::limiter::Snapshot;

/// The tokens were granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// The tokens that are left, as far as the one who decided knows.
    pub remaining: u64,
    /// How long until all are there, if nobody takes any; zero if it is not known.
    pub reset_after: Duration,
    /// Who decided.
    pub by: DecidedBy,
}

/// Who decided on a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecidedBy {
    /// The server.
    Server,
    /// This process, from tokens that the server had leased to it.
    Lease,
    /// The [`OnFailure`](crate::redis::OnFailure) policy: the server gave no decision.
    Policy,
}

impl Granted {
    pub(crate) fn by(by: DecidedBy, snapshot: Snapshot) -> Self {
        Self {
            remaining: snapshot.remaining,
            reset_after: snapshot.reset_after,
            by,
        }
    }

    pub(crate) fn with(by: DecidedBy, remaining: u64) -> Self {
        Self {
            remaining,
            reset_after: Duration::ZERO,
            by,
        }
    }
}

/// Why a check over Redis got no tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RemoteCheckError {
    /// Not now.
    Denied(Denied),
    /// Not ever: more than the burst.
    ExceedsBurst {
        /// The tokens asked for.
        asked: u64,
        /// The most that can be had at once.
        burst: u64,
    },
    /// The server gave no decision, and the policy is
    /// [`OnFailure::Closed`](crate::redis::OnFailure::Closed), or more was asked for than the burst of
    /// the share of [`OnFailure::LocalShare`](crate::redis::OnFailure::LocalShare).
    Unavailable(RemoteError),
    /// The limiter was closed.
    Closed,
}

impl RemoteCheckError {
    /// When to retry, `None` if that is not known or of no use.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Denied(denied) => Some(denied.retry_after),
            Self::Unavailable(RemoteError::Open(open)) => Some(open.retry_after),
            _ => None,
        }
    }
}

impl fmt::Display for RemoteCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::ExceedsBurst { asked, burst } => {
                write!(f, "{asked} tokens at once exceed the burst of {burst}")
            }
            Self::Unavailable(_) => f.write_str("redis gave no decision"),
            Self::Closed => f.write_str("the rate limiter is closed"),
        }
    }
}

impl Error for RemoteCheckError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable(source) => Some(source),
            _ => None,
        }
    }
}

impl From<CheckError> for RemoteCheckError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Denied(denied) => Self::Denied(denied),
            CheckError::ExceedsBurst { asked, burst } => Self::ExceedsBurst { asked, burst },
        }
    }
}
