//! What decides on requests.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::time::Duration;

use overdrive_core::Clock;

use crate::exact::ExactKeyedLimiter;
use crate::keyed::KeyedLimiter;
use crate::leased::LeasedLimiter;
use crate::limiter::{RateLimiter, Snapshot};
use crate::quota::Quota;

/// What becomes of a request, and the figures for its header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it may go on.
    pub answer: Answer,
    /// What it counted for.
    pub quota: Quota,
    /// The tokens that are left, if that is known.
    pub remaining: Option<u64>,
    /// How long until all are there.
    pub reset_after: Duration,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It may.
    Allowed,
    /// Not before so long: 429.
    Denied(Duration),
    /// Nobody can say: 503.
    Unavailable(Option<Duration>),
}

impl Outcome {
    /// Allowed, or denied for so long: then nothing is left, whatever the snapshot says.
    #[must_use]
    pub fn of(quota: Quota, denied: Option<Duration>, snapshot: Snapshot) -> Self {
        Self {
            answer: denied.map_or(Answer::Allowed, Answer::Denied),
            quota,
            remaining: Some(denied.map_or(snapshot.remaining, |_| 0)),
            reset_after: snapshot.reset_after,
        }
    }
}

/// An [`Outcome`], now or later.
pub enum Decision {
    /// Now.
    Now(Outcome),
    /// Later.
    Later(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(outcome) => f.debug_tuple("Now").field(outcome).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// What takes one token for a request with that key.
pub trait RequestLimit<K>: Clone + Send + Sync + 'static {
    /// Its name, for the header fields.
    fn name(&self) -> &str;

    /// Takes the token, or not.
    fn decide(&self, key: K) -> Decision;
}

impl<C: Clock> RequestLimit<()> for RateLimiter<C> {
    fn name(&self) -> &str {
        self.name()
    }

    fn decide(&self, (): ()) -> Decision {
        let denied = self.check().err().map(|denied| denied.retry_after);
        Decision::Now(Outcome::of(self.quota(), denied, self.snapshot()))
    }
}

impl<C: Clock> RequestLimit<()> for LeasedLimiter<C> {
    fn name(&self) -> &str {
        self.name()
    }

    fn decide(&self, (): ()) -> Decision {
        let denied = self.check().err().map(|denied| denied.retry_after);
        Decision::Now(Outcome::of(self.quota(), denied, self.snapshot()))
    }
}

impl<K, S, C> RequestLimit<K> for KeyedLimiter<K, S, C>
where
    K: Hash + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    C: Clock,
{
    fn name(&self) -> &str {
        self.name()
    }

    fn decide(&self, key: K) -> Decision {
        let denied = self.check(&key).err().map(|denied| denied.retry_after);
        Decision::Now(Outcome::of(self.quota(), denied, self.snapshot(&key)))
    }
}

impl<K, S, C> RequestLimit<K> for ExactKeyedLimiter<K, S, C>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    C: Clock,
{
    fn name(&self) -> &str {
        self.name()
    }

    fn decide(&self, key: K) -> Decision {
        let denied = self.check(&key).err().map(|denied| denied.retry_after);
        let snapshot = self.snapshot(&key);
        Decision::Now(Outcome::of(self.quota_of(&key), denied, snapshot))
    }
}

/// A [`RateLimiter`] for which requests wait in order, for so long at most.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Waiting<C: Clock = crate::TscClock> {
    limiter: RateLimiter<C>,
    max_wait: Duration,
}

#[cfg(feature = "tokio")]
impl<C: Clock> Waiting<C> {
    /// Those that would have to wait longer are turned away at once.
    #[must_use]
    pub fn new(limiter: RateLimiter<C>, max_wait: Duration) -> Self {
        Self { limiter, max_wait }
    }
}

#[cfg(feature = "tokio")]
impl<C: Clock> Clone for Waiting<C> {
    fn clone(&self) -> Self {
        Self::new(self.limiter.clone(), self.max_wait)
    }
}

#[cfg(feature = "tokio")]
impl<C: Clock> RequestLimit<()> for Waiting<C> {
    fn name(&self) -> &str {
        self.limiter.name()
    }

    fn decide(&self, (): ()) -> Decision {
        use crate::error::WaitError;
        let Self { limiter, max_wait } = self.clone();
        Decision::Later(Box::pin(async move {
            let answer = match limiter.wait_timeout(max_wait).await {
                Ok(()) => Answer::Allowed,
                Err(WaitError::DeadlineExceeded { needed }) => Answer::Denied(needed),
                Err(_) => Answer::Denied(limiter.snapshot().retry_after),
            };
            let mut outcome = Outcome::of(limiter.quota(), None, limiter.snapshot());
            outcome.answer = answer;
            outcome
        }))
    }
}

#[cfg(feature = "redis")]
mod remote {
    use std::net::IpAddr;

    use super::{Answer, Decision, Duration, Outcome, RequestLimit};
    use crate::quota::Quota;
    use crate::redis::{DecidedBy, Granted, LeasedRemoteLimiter, RemoteCheckError, RemoteLimiter};

    fn outcome(quota: Quota, checked: Result<Granted, RemoteCheckError>) -> Outcome {
        let mut outcome = Outcome {
            answer: Answer::Allowed,
            quota,
            remaining: None,
            reset_after: Duration::ZERO,
        };
        match checked {
            Ok(granted) if granted.by == DecidedBy::Server => {
                outcome.remaining = Some(granted.remaining);
                outcome.reset_after = granted.reset_after;
            }
            Ok(_) => {}
            Err(RemoteCheckError::Denied(denied)) => {
                outcome.answer = Answer::Denied(denied.retry_after);
                outcome.remaining = Some(0);
            }
            Err(error) => outcome.answer = Answer::Unavailable(error.retry_after()),
        }
        outcome
    }

    macro_rules! keys {
        ($($key:ty, $bytes:expr;)*) => {$(
            impl RequestLimit<$key> for RemoteLimiter {
                fn name(&self) -> &str {
                    self.name()
                }

                fn decide(&self, key: $key) -> Decision {
                    let limiter = self.clone();
                    let bytes = $bytes(key);
                    Decision::Later(Box::pin(async move {
                        outcome(limiter.quota(), limiter.check(&bytes).await)
                    }))
                }
            }
        )*};
    }

    keys! {
        (), |()| Vec::new();
        IpAddr, |ip: IpAddr| ip.to_string();
        String, |key: String| key;
        Vec<u8>, |key: Vec<u8>| key;
    }

    impl RequestLimit<()> for LeasedRemoteLimiter {
        fn name(&self) -> &str {
            self.limiter().name()
        }

        fn decide(&self, (): ()) -> Decision {
            let limiter = self.clone();
            Decision::Later(Box::pin(async move {
                outcome(limiter.limiter().quota(), limiter.check().await)
            }))
        }
    }
}
