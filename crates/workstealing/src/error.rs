//! Why work was refused, and why it has no result.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

/// Why a task was not accepted. The closure is in it.
///
/// ```
/// use overdrive_workstealing::{SpawnError, ThreadPool};
///
/// let pool = ThreadPool::builder().workers(1).build()?;
/// pool.close();
/// let refused = pool.submit(|| 6 * 7).unwrap_err();
/// assert!(matches!(refused, SpawnError::Closed(_)));
/// let f = refused.into_inner();
/// assert_eq!(f(), 42);
/// # Ok::<(), overdrive_workstealing::ConfigError>(())
/// ```
#[non_exhaustive]
pub enum SpawnError<F> {
    /// The queue is full, and [`Overload`](crate::Overload) or the `try_` form say not to wait.
    Full(F),
    /// The pool is closed.
    Closed(F),
}

impl<F> SpawnError<F> {
    /// The closure that was not accepted.
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(f) | Self::Closed(f) => f,
        }
    }

    /// The same refusal of something else.
    pub(crate) fn map<G>(self, to: impl FnOnce(F) -> G) -> SpawnError<G> {
        match self {
            Self::Full(f) => SpawnError::Full(to(f)),
            Self::Closed(f) => SpawnError::Closed(to(f)),
        }
    }

    /// Whether it may be accepted later.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue of the thread pool is full",
            Self::Closed(_) => "the thread pool is closed",
        })
    }
}

impl<F> Error for SpawnError<F> {}

/// Why a task has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// It panicked, with that payload.
    Panicked(PanicPayload),
    /// It was cancelled before it started, and did not run.
    Cancelled,
    /// Its deadline passed before it started, and it did not run.
    DeadlineExceeded,
    /// It was still queued when the time of [`shutdown`](crate::ThreadPool::shutdown) was up, and
    /// did not run.
    Abandoned,
}

impl TaskError {
    /// What it panicked with.
    ///
    /// # Errors
    /// The error itself, if it did not panic.
    pub fn into_panic(self) -> Result<PanicPayload, Self> {
        match self {
            Self::Panicked(payload) => Ok(payload),
            other => Err(other),
        }
    }

    /// Goes on with the panic of the task on this thread; if there was none, the error itself.
    ///
    /// ```should_panic
    /// use overdrive_workstealing::ThreadPool;
    ///
    /// let pool = ThreadPool::builder().workers(1).build().unwrap();
    /// let task = pool.submit(|| -> u32 { panic!("passed on") }).unwrap();
    /// let _ = task.join().map_err(|error| error.or_resume());
    /// ```
    ///
    /// # Panics
    /// If the task did.
    #[must_use = "the task may have been cancelled, or run out of time"]
    pub fn or_resume(self) -> Self {
        match self {
            Self::Panicked(payload) => payload.resume(),
            other => other,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => match payload.message() {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::DeadlineExceeded => f.write_str("the deadline passed before the task started"),
            Self::Abandoned => f.write_str("the thread pool was shut down before the task started"),
        }
    }
}

impl Error for TaskError {}

/// What a task panicked with.
pub struct PanicPayload {
    /// A payload is `Send` and not `Sync`; the mutex makes an error of it that can be shared.
    payload: Mutex<Box<dyn Any + Send>>,
    message: Option<Box<str>>,
}

impl PanicPayload {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast_ref::<&'static str>() {
            Some(text) => Some(Box::from(*text)),
            None => payload.downcast_ref::<String>().map(|s| s.as_str().into()),
        };
        Self {
            payload: Mutex::new(payload),
            message,
        }
    }

    /// The message, if the panic was raised with one, as by `panic!`.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The payload as [`std::panic::catch_unwind`] gives it.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Any + Send> {
        self.payload
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the panic on this thread, without calling the panic hook again.
    ///
    /// # Panics
    /// Always.
    pub fn resume(self) -> ! {
        resume_unwind(self.into_inner())
    }
}

impl fmt::Debug for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PanicPayload")
            .field(&self.message().unwrap_or(".."))
            .finish()
    }
}
