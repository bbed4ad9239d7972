//! A limit at the server, asked for each decision.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use overdrive_core::{Deadline, Health};
use overdrive_remote::{Remote, RemoteError};

use crate::error::Denied;
use crate::limiter::Snapshot;
use crate::quota::Quota;
use crate::redis::answer::{DecidedBy, Granted, RemoteCheckError};
use crate::redis::key::Keys;
use crate::redis::script::{Answer, Scripts};
use crate::redis::share::Fallback;
use crate::redis::units::Units;

/// A rate limiter that several processes share: a [`Quota`] for each key, kept at a Redis or Valkey
/// server and counted by its clock. For one limit for everybody use one key.
///
/// A check is one call of a Lua script, one round trip. A key is a string of some 30 bytes at the
/// server that vanishes once it owes nothing. [`leased`](Self::leased) asks once for many checks of
/// one key. Clones are handles to the same limiter.
///
/// In no window of length `t` of the server's clock do all instances together get more than
/// `burst + rate * t` tokens of a key. A server's clock that jumps ahead earns what it skips; one that goes back
/// delays by a full burst at most. A server that loses its data begins with a full burst. A check
/// whose answer is lost may have taken its tokens; it is never sent twice.
///
/// When the server gives no decision, an [`OnFailure`](crate::redis::OnFailure) policy does. What it
/// grants is never charged at the server, so it comes on top of that bound: with `LocalShare` a burst
/// of the share and its rate for as long as the server is away, with `Open` without bound.
/// Whether to ask at all is decided by the [`Remote`]'s circuit breaker. No lock is held over a
/// round trip.
///
/// ```
/// # let server = overdrive_testkit::RedisServer::start().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use overdrive_ratelimit::Quota;
/// use overdrive_ratelimit::redis::{OnFailure, RedisSettings, RemoteLimiter, Remote};
///
/// let mut settings = RedisSettings::web();
/// # settings.url = server.url();
/// let customers = RemoteLimiter::builder(Remote::lazy(settings)?)
///     .name("customers")
///     .quota(Quota::per_minute(100))
///     .on_failure(OnFailure::LocalShare { instances: 4 })
///     .build()?;
/// let granted = customers.check("customer 17").await?;
/// assert_eq!(granted.remaining, 99);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct RemoteLimiter {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) remote: Remote,
    pub(crate) name: Cow<'static, str>,
    pub(crate) keys: Keys,
    pub(crate) quota: Quota,
    pub(crate) units: Units,
    pub(crate) timeout: Duration,
    pub(crate) fallback: Fallback,
    pub(crate) scripts: Scripts,
    pub(crate) counts: Counts,
    pub(crate) closed: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    failures: AtomicU64,
    policy_allowed: AtomicU64,
    policy_denied: AtomicU64,
}

fn up(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The figures of a [`RemoteLimiter`]. The first, second, fourth and fifth together are the checks
/// that were decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteLimiterStats {
    /// Checks that the server allowed.
    pub allowed: u64,
    /// Checks that the server denied, and those of more than the burst.
    pub denied: u64,
    /// Round trips that brought no decision, those that the breaker spared included.
    pub failures: u64,
    /// Checks that the policy allowed.
    pub policy_allowed: u64,
    /// Checks that the policy denied.
    pub policy_denied: u64,
}

impl RemoteLimiter {
    /// Takes one of the key's tokens, if it is there now.
    ///
    /// # Errors
    /// See [`RemoteCheckError`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    ///
    /// # Cancel safety
    /// The token may have been taken, or not.
    pub async fn check<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
    ) -> Result<Granted, RemoteCheckError> {
        self.check_n(key, 1, Deadline::NEVER).await
    }

    /// Takes `n` of the key's tokens, if all of them are there now, and decides by `deadline` at the
    /// latest, or by the time-out of the set-up. None is always allowed.
    ///
    /// # Errors
    /// See [`RemoteCheckError`]. Nothing was taken, but for a lost answer.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// As [`check`](Self::check).
    pub async fn check_n<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        n: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<Granted, RemoteCheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        inner.refuse(n)?;
        if n == 0 {
            return Ok(Granted::with(DecidedBy::Server, 0));
        }
        let deadline = inner.by(deadline.into());
        match inner.take(key, n, false, deadline).await {
            Ok(answer) => inner.judge(key, n, answer),
            Err(error) => inner.without(key, n, error),
        }
    }

    /// What a check of that key would find now, without taking anything.
    ///
    /// # Errors
    /// The server gave no answer; see [`RemoteError`].
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn snapshot<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
    ) -> Result<Snapshot, RemoteError> {
        let inner = &*self.inner;
        let deadline = inner.by(Deadline::NEVER);
        let answer = inner.take(key.as_ref(), 0, false, deadline).await?;
        Ok(inner.units.snapshot(answer.arrival, answer.now))
    }

    /// Gives `n` tokens back, a full burst at most. Sent once: whether it was lost is not always
    /// known.
    ///
    /// # Errors
    /// See [`RemoteError`].
    ///
    /// # Cancel safety
    /// They may have been given back, or not.
    pub async fn refund<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        n: u64,
    ) -> Result<(), RemoteError> {
        let deadline = self.inner.by(Deadline::NEVER);
        self.inner.refund(key.as_ref(), n, deadline).await
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> RemoteLimiterStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.inner.counts;
        RemoteLimiterStats {
            allowed: get(&counts.allowed),
            denied: get(&counts.denied),
            failures: get(&counts.failures),
            policy_allowed: get(&counts.policy_allowed),
            policy_denied: get(&counts.policy_denied),
        }
    }

    /// That of the [`Remote`]; unhealthy once closed.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.inner.is_closed() {
            return Health::Unhealthy;
        }
        self.inner.remote.health()
    }

    /// Refuses checks from now on. Those under way end as they would have. Idempotent. The
    /// [`Remote`] stays open.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The quota of each key.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.inner.quota
    }

    /// The connection that it uses.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.inner.remote
    }
}

impl Inner {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn by(&self, deadline: Deadline) -> Deadline {
        deadline.min(Deadline::after(self.timeout))
    }

    /// What needs no server.
    pub(crate) fn refuse(&self, n: u64) -> Result<(), RemoteCheckError> {
        if self.is_closed() {
            return Err(RemoteCheckError::Closed);
        }
        let burst = self.units.burst;
        if n > burst {
            up(&self.counts.denied);
            return Err(RemoteCheckError::ExceedsBurst { asked: n, burst });
        }
        Ok(())
    }

    pub(crate) async fn take(
        &self,
        key: &[u8],
        n: u64,
        parts: bool,
        deadline: Deadline,
    ) -> Result<Answer, RemoteError> {
        let key = self.keys.of(key);
        let taken = self
            .scripts
            .take(&self.remote, &self.units, &key, n, parts, deadline)
            .await;
        taken.inspect_err(|_| up(&self.counts.failures))
    }

    pub(crate) async fn refund(
        &self,
        key: &[u8],
        n: u64,
        deadline: Deadline,
    ) -> Result<(), RemoteError> {
        let key = self.keys.of(key);
        // More than a burst is forgotten anyway.
        let n = n.min(self.units.burst);
        let given = self
            .scripts
            .refund(&self.remote, &self.units, &key, n, deadline)
            .await;
        given.map(drop).inspect_err(|_| up(&self.counts.failures))
    }

    fn judge(&self, key: &[u8], n: u64, answer: Answer) -> Result<Granted, RemoteCheckError> {
        if answer.got == n {
            up(&self.counts.allowed);
            self.fallback.charge(key, n);
            let snapshot = self.units.snapshot(answer.arrival, answer.now);
            return Ok(Granted::by(DecidedBy::Server, snapshot));
        }
        up(&self.counts.denied);
        let delay = self.units.delay(answer.arrival, answer.now, n);
        Err(RemoteCheckError::Denied(Denied::after(delay)))
    }

    /// The policy decides.
    pub(crate) fn without(
        &self,
        key: &[u8],
        n: u64,
        error: RemoteError,
    ) -> Result<Granted, RemoteCheckError> {
        let decided = match &self.fallback {
            Fallback::Open => Ok(Granted::with(DecidedBy::Policy, 0)),
            Fallback::Closed => Err(RemoteCheckError::Unavailable(error)),
            Fallback::Share(share) => {
                let burst = share.quota().burst;
                match share.check_n(key, n) {
                    Ok(()) => Ok(Granted::by(DecidedBy::Policy, share.snapshot(key))),
                    // Of the share, not of the quota.
                    Err(_) if n > burst => Err(RemoteCheckError::Unavailable(error)),
                    Err(refused) => Err(refused.into()),
                }
            }
        };
        up(match decided {
            Ok(_) => &self.counts.policy_allowed,
            Err(_) => &self.counts.policy_denied,
        });
        decided
    }
}

impl fmt::Debug for RemoteLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteLimiter")
            .field("name", &self.name())
            .field("quota", &self.quota())
            .field("remote", &self.inner.remote)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
