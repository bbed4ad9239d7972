//! Why something was not allowed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// One token was not to be had.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denied {
    /// When it would be, if nobody else took it: what an HTTP `Retry-After` says.
    pub retry_after: Duration,
    apart: Apart,
}

/// Where a `Result` keeps which of its sides it is: in the largest range of values that cannot be.
/// That would be in the duration, and the division for it would be made just to learn that there
/// is one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Apart {
    Denied = 1,
}

impl Denied {
    #[inline(always)]
    pub(crate) fn after(retry_after: Duration) -> Self {
        Self {
            retry_after,
            apart: Apart::Denied,
        }
    }
}

impl fmt::Debug for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denied")
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over the rate limit, retry after {:?}", self.retry_after)
    }
}

impl Error for Denied {}

/// Several tokens were not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// Not now.
    Denied(Denied),
    /// Not ever: more than the burst.
    ExceedsBurst {
        /// The tokens asked for.
        asked: u64,
        /// The most that can be had at once.
        burst: u64,
    },
}

impl CheckError {
    /// When to retry, `None` if there is no use.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Denied(denied) => Some(denied.retry_after),
            Self::ExceedsBurst { .. } => None,
        }
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::ExceedsBurst { asked, burst } => exceeds(f, *asked, *burst),
        }
    }
}

fn exceeds(f: &mut fmt::Formatter<'_>, asked: u64, burst: u64) -> fmt::Result {
    write!(f, "{asked} tokens at once exceed the burst of {burst}")
}

impl Error for CheckError {}

/// Why a wait for tokens ended without them. None were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The tokens will not be there by the deadline. Known at the start, so nothing was waited
    /// for; unless the quota was changed since, or those in front did not go.
    DeadlineExceeded {
        /// How long the wait would have been, at least.
        needed: Duration,
    },
    /// More than the burst: no wait is long enough.
    ExceedsBurst {
        /// The tokens asked for.
        asked: u64,
        /// The most that can be had at once.
        burst: u64,
    },
    /// As many are waiting as the limiter lets wait.
    QueueFull {
        /// How many that is.
        max_waiters: usize,
    },
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadlineExceeded { needed } => {
                write!(f, "the tokens are {needed:?} away, past the deadline")
            }
            Self::ExceedsBurst { asked, burst } => exceeds(f, *asked, *burst),
            Self::QueueFull { max_waiters } => {
                write!(f, "{max_waiters} are waiting already, as many as may")
            }
        }
    }
}

impl Error for WaitError {}

/// Why a permit was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The limit was closed.
    Closed,
    /// As many are waiting as the limit lets wait.
    QueueFull {
        /// How many that is.
        max_waiters: usize,
    },
    /// None became free in time.
    TimedOut,
    /// It was turned away after it had waited too long: see [`Shedding`](crate::Shedding).
    Shed,
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the concurrency limit is closed"),
            Self::QueueFull { max_waiters } => {
                write!(f, "{max_waiters} are waiting already, as many as may")
            }
            Self::TimedOut => f.write_str("no permit became free in time"),
            Self::Shed => f.write_str("too long in the queue to be of use"),
        }
    }
}

impl Error for AcquireError {}

/// Why a permit is not to be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// The limit was closed.
    Closed,
    /// All permits are out, or others wait for them.
    Full,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the concurrency limit is closed",
            Self::Full => "all permits are taken",
        })
    }
}

impl Error for TryAcquireError {}
