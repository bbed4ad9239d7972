//! A limit at the server, of which this process takes leases.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_core::{ConfigError, Deadline, DrainReport};
use overdrive_remote::RemoteError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::Denied;
use crate::redis::answer::{DecidedBy, Granted, RemoteCheckError};
use crate::redis::builder::validate_wait;
use crate::redis::lease::{End, Keeper, KeyAtServer, Refused, Store, Waiter};
use crate::redis::limiter::RemoteLimiter;

/// The most tokens of a lease.
pub const MAX_LEASE: u64 = 1 << 32;

/// How leases are taken, for [`RemoteLimiter::leased`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseSettings {
    /// The tokens of a lease, at most the burst.
    pub size: u64,
    /// After so long without a new lease, what is left goes back to the server. A denial of the
    /// server is believed for so long at most.
    pub idle: Duration,
}

impl LeaseSettings {
    /// Leases of that many tokens, given back after a second without need.
    #[must_use]
    pub const fn of(size: u64) -> Self {
        Self {
            size,
            idle: Duration::from_secs(1),
        }
    }
}

/// One key of a [`RemoteLimiter`], of which this process takes tokens in advance: one round trip
/// for many checks. From [`RemoteLimiter::leased`]; clones are handles to the same.
///
/// A check spends what is held, by one atomic operation. When half a lease is left, a task of the
/// runtime fetches the next one, one at a time; it starts with the first check that needs it and
/// ends with [`drain`](Self::drain) or the last handle. Those who find nothing wait for its answer
/// in order; if the server has less than a lease, those whom it suffices get it. What more than a
/// lease asks for is asked of the server directly. If the task goes with its runtime, the next
/// check starts another one.
///
/// # How far off
/// Tokens are charged at the server before they are spent here, and none is spent twice. So in all
/// time no more than the quota is spent, but those held at the beginning of a window of time come
/// to it from before: at most [`held_bound`](Self::held_bound) in each instance, and what was handed
/// to checks that are not polled. As many are lost to
/// the others, until the rate has earned them anew, if a process is killed or an answer is lost. What
/// a process does not need goes back after [`idle`](LeaseSettings::idle), and at its orderly end.
///
/// ```
/// # let server = overdrive_testkit::RedisServer::start().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use overdrive_ratelimit::Quota;
/// use overdrive_ratelimit::redis::{LeaseSettings, RedisSettings, RemoteLimiter, Remote};
///
/// let mut settings = RedisSettings::web();
/// # settings.url = server.url();
/// let quota = Quota::per_second(50_000);
/// let limiter = RemoteLimiter::builder(Remote::lazy(settings)?).quota(quota).build()?;
/// let ingest = limiter.leased("ingest", LeaseSettings::of(1_000))?;
/// for _ in 0..500 {
///     ingest.check().await?;
/// }
/// assert!(ingest.drain(Duration::from_secs(5)).await.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct LeasedRemoteLimiter {
    handle: Arc<Handle>,
}

struct Handle {
    limiter: RemoteLimiter,
    store: Arc<Store>,
    key: Vec<u8>,
    settings: LeaseSettings,
    allowed: AtomicU64,
    denied: AtomicU64,
}

/// The figures of a [`LeasedRemoteLimiter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeasedRemoteStats {
    /// Checks that were allowed from leases.
    pub allowed: u64,
    /// Checks that were denied.
    pub denied: u64,
    /// Round trips for leases.
    pub trips: u64,
    /// The tokens that they brought.
    pub leased: u64,
    /// Tokens given back to the server.
    pub returned: u64,
    /// Tokens that could not be given back.
    pub lost: u64,
    /// Tokens held now.
    pub held: u64,
    /// Tokens handed to checks that have not been polled since.
    pub handed: u64,
}

impl RemoteLimiter {
    /// That key, with leases.
    ///
    /// # Errors
    /// A lease of nothing, of more than the burst or [`MAX_LEASE`]; an idle time under a
    /// millisecond or above a day.
    pub fn leased<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        settings: LeaseSettings,
    ) -> Result<LeasedRemoteLimiter, ConfigError> {
        let (field, value) = ("size", settings.size);
        let max = self.inner.units.burst.min(MAX_LEASE);
        if value == 0 {
            return Err(ConfigError::Zero { field });
        }
        if value > max {
            return Err(ConfigError::TooLarge { field, value, max });
        }
        validate_wait("idle", settings.idle)?;
        let handle = Handle {
            limiter: self.clone(),
            store: Arc::new(Store::new(bound(value), settings.idle)),
            key: key.as_ref().to_vec(),
            settings,
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        };
        Ok(LeasedRemoteLimiter {
            handle: Arc::new(handle),
        })
    }
}

/// A lease, fetched when half of one is left.
fn bound(size: u64) -> u64 {
    size + size / 2
}

impl LeasedRemoteLimiter {
    /// Takes a token, if there is one now.
    ///
    /// # Errors
    /// See [`RemoteCheckError`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time, if it needs a lease.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn check(&self) -> Result<Granted, RemoteCheckError> {
        self.check_n(1, Deadline::NEVER).await
    }

    /// Takes `n` tokens, if all of them are there now, and decides by `deadline` at the latest, or
    /// by the time-out of the limiter. None is always allowed.
    ///
    /// # Errors
    /// See [`RemoteCheckError`].
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// As [`check`](Self::check), unless it is for more than a lease: see
    /// [`RemoteLimiter::check`].
    pub async fn check_n(
        &self,
        n: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<Granted, RemoteCheckError> {
        let Handle {
            limiter,
            store,
            key,
            settings,
            ..
        } = &*self.handle;
        if store.ending.load(Ordering::Acquire) {
            return Err(RemoteCheckError::Closed);
        }
        limiter.inner.refuse(n)?;
        if let Some(left) = store.spend(n) {
            if left <= settings.size / 2 && store.denied_for().is_none() {
                self.want();
            }
            self.handle.allowed.fetch_add(1, Ordering::Relaxed);
            return Ok(Granted::with(DecidedBy::Lease, left));
        }
        if n > settings.size {
            return limiter.check_n(key, n, deadline).await;
        }
        if store.denied_for().is_some() {
            return self.denied(store.delay(&limiter.inner.units, n));
        }
        self.wait(n, limiter.inner.by(deadline.into())).await
    }

    /// For the keeper's answer.
    async fn wait(&self, n: u64, deadline: Deadline) -> Result<Granted, RemoteCheckError> {
        let Handle {
            limiter,
            store,
            key,
            ..
        } = &*self.handle;
        loop {
            let (answer, answered) = oneshot::channel();
            store.queue().push_back(Waiter { n, answer });
            self.handle.start();
            store.work.notify_one();
            match timeout(deadline.remaining(), answered).await {
                Ok(Ok(Ok(handed))) => {
                    if handed.take() {
                        self.handle.allowed.fetch_add(1, Ordering::Relaxed);
                        return Ok(Granted::with(DecidedBy::Lease, store.held()));
                    }
                }
                Ok(Ok(Err(Refused::Denied(after)))) => return self.denied(after),
                Ok(Ok(Err(Refused::Failed(error)))) => return limiter.inner.without(key, n, error),
                Ok(Ok(Err(Refused::Closed))) => return Err(RemoteCheckError::Closed),
                Ok(Ok(Err(Refused::Orphaned)) | Err(_)) => {}
                Err(_) => return self.timed_out(n),
            }
            if store.ending.load(Ordering::Acquire) {
                return Err(RemoteCheckError::Closed);
            }
            if deadline.remaining().is_zero() {
                return self.timed_out(n);
            }
            // The keeper went with another runtime, or what it handed over lay for too long.
        }
    }

    fn timed_out(&self, n: u64) -> Result<Granted, RemoteCheckError> {
        let inner = &self.handle.limiter.inner;
        let after = inner.timeout;
        inner.without(&self.handle.key, n, RemoteError::TimedOut { after })
    }

    fn denied(&self, after: Duration) -> Result<Granted, RemoteCheckError> {
        self.handle.denied.fetch_add(1, Ordering::Relaxed);
        Err(RemoteCheckError::Denied(Denied::after(after)))
    }

    fn want(&self) {
        if !self.handle.store.wanted.swap(true, Ordering::AcqRel) {
            self.handle.start();
            self.handle.store.work.notify_one();
        }
    }

    /// The most tokens that lie here at any time for whoever asks: one lease and a half.
    ///
    /// What has been handed to checks that wait comes on top until they are polled: to each the
    /// tokens that it asked for. It can be spent for [`idle`](LeaseSettings::idle), or a tenth of a second
    /// if that is longer; a check that is polled later gives it back to the server, and asks again.
    #[must_use]
    pub fn held_bound(&self) -> u64 {
        bound(self.handle.settings.size)
    }

    /// Refuses checks from now on, those that wait included; what is held goes back to the server.
    /// Idempotent.
    ///
    /// The task that gives it back is started if it has gone with its runtime. Outside a runtime
    /// there is none to start it on, and the tokens stay until [`drain`](Self::drain).
    pub fn close(&self) {
        self.handle.end();
    }

    /// [`close`](Self::close), and waits until what is held has gone back, until the deadline at
    /// most. `finished` counts the tokens given back in all, `abandoned` those lost, still held, on
    /// their way, or handed to checks that have not been polled since.
    ///
    /// # Cancel safety
    /// It is closed, and the tokens go back.
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let (deadline, store) = (deadline.into(), &self.handle.store);
        self.close();
        let ended = async {
            loop {
                let ended = store.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if !store.running.load(Ordering::Acquire) {
                    return;
                }
                ended.await;
            }
        };
        let _in_time = timeout(deadline.remaining(), ended).await;
        let left = store.left();
        let stats = self.stats();
        DrainReport::new(stats.returned, stats.lost + left)
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> LeasedRemoteStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let store = &self.handle.store;
        LeasedRemoteStats {
            allowed: get(&self.handle.allowed),
            denied: get(&self.handle.denied),
            trips: get(&store.trips),
            leased: get(&store.leased),
            returned: get(&store.returned),
            lost: get(&store.lost),
            held: store.held(),
            handed: store.handed(),
        }
    }

    #[cfg(all(test, overdrive_loom))]
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.handle.store)
    }

    /// The limiter beneath.
    #[must_use]
    pub fn limiter(&self) -> &RemoteLimiter {
        &self.handle.limiter
    }
}

impl Handle {
    /// Starts the keeper unless it runs.
    fn start(&self) {
        let store = &self.store;
        if store.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let keeper = Keeper {
            store: Arc::clone(store),
            source: KeyAtServer {
                inner: Arc::clone(&self.limiter.inner),
                key: self.key.clone(),
            },
            size: self.settings.size,
            idle: self.settings.idle,
            end: End(Arc::clone(store)),
        };
        drop(tokio::spawn(keeper.run()));
    }

    /// The keeper gives back what is left, without anybody waiting for it.
    fn end(&self) {
        self.store.ending.store(true, Ordering::Release);
        if self.store.left() > 0 && tokio::runtime::Handle::try_current().is_ok() {
            self.start();
        }
        self.store.work.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for LeasedRemoteLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedRemoteLimiter")
            .field("limiter", self.limiter())
            .field("settings", &self.handle.settings)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
