//! The handle.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::breaker::{Admission, BreakerState};
use overdrive_core::{Backoff, CircuitBreaker, ConfigError, Deadline, Health, Timestamp};
use redis::{ErrorKind, FromRedisValue, RedisError, RetryMethod, Value};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::connection::{Connection, unreachable_at};
use crate::dedicated::Dedicated;
use crate::error::is_not_serving;
use crate::pool::Pool;
use crate::settings::Target;
use crate::stats::Counts;
use crate::{RedisSettings, RemoteError, RemoteStats, Request, key};

/// Of the jittered waits between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(8);
const MAX_WAIT: Duration = Duration::from_millis(512);
/// How often idle connections are looked at, at the least.
const MAX_UPKEEP: Duration = Duration::from_secs(30);

/// A Redis server, through a pool of connections, with a limit on every wait and a circuit
/// breaker. Clones are handles of the same.
///
/// Each call takes a deadline, to be passed down from the caller's own; the settings limit its
/// steps. Calls are neither queued nor sent while the breaker is open: they fail at once.
///
/// A task of the runtime keeps [`min_idle`](RedisSettings::min_idle) connections and closes the
/// surplus; it starts with the first connection, and ends with [`close`](Self::close) or the last
/// handle.
///
/// ```
/// # let server = overdrive_testkit::RedisServer::start().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use overdrive_remote::{RedisSettings, Remote, redis};
///
/// let mut settings = RedisSettings::web();
/// # settings.url = server.url();
/// settings.prefix = "shop:".to_owned();
/// let remote = Remote::lazy(settings)?;
///
/// let limit = Duration::from_millis(500);
/// let key = remote.key(&["visits", "17"]);
/// let visits: i64 = remote.query(redis::cmd("INCR").arg(&key), limit).await?;
/// let seen: i64 = remote.query_idempotent(redis::cmd("GET").arg(&key), limit).await?;
/// assert_eq!((visits, seen), (1, 1));
/// # Ok::<(), overdrive_remote::RemoteError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    settings: RedisSettings,
    target: Target,
    backoff: Backoff,
    breaker: Mutex<CircuitBreaker>,
    pool: Pool,
    counts: Counts,
    upkeep: Mutex<Option<AbortHandle>>,
    upkept: Arc<AtomicBool>,
}

impl Remote {
    /// Connects: opens [`min_idle`](RedisSettings::min_idle) connections, at least one.
    ///
    /// # Errors
    /// A bad setting; a server that cannot be reached, named, within
    /// [`dial_timeout`](RedisSettings::dial_timeout); a server that refuses the credentials.
    ///
    /// # Cancel safety
    /// Nothing is left open.
    pub async fn connect(settings: RedisSettings) -> Result<Self, RemoteError> {
        let remote = Self::lazy(settings)?;
        let inner = &remote.inner;
        let deadline = Deadline::after(inner.settings.dial_timeout);
        for _ in 0..inner.settings.min_idle.max(1) {
            let connection = inner.dial(deadline).await?;
            inner.pool.put(connection);
        }
        Ok(remote)
    }

    /// A handle that connects at its first use, so that a service can start without its Redis.
    ///
    /// # Errors
    /// A bad setting.
    pub fn lazy(settings: RedisSettings) -> Result<Self, ConfigError> {
        let target = settings.check()?;
        let breaker = CircuitBreaker::new(settings.breaker_failures, settings.breaker_open_for)?;
        let inner = Inner {
            target,
            backoff: Backoff::new(FIRST_WAIT, MAX_WAIT, settings.retries)?,
            breaker: Mutex::new(breaker),
            pool: Pool::new(settings.pool_size),
            counts: Counts::default(),
            upkeep: Mutex::default(),
            upkept: Arc::default(),
            settings,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Sends a request once.
    ///
    /// It ends by `deadline` at the latest: waiting for a turn takes
    /// [`pool_wait`](RedisSettings::pool_wait) at most, opening a connection
    /// [`dial_timeout`](RedisSettings::dial_timeout), the reply
    /// [`read_timeout`](RedisSettings::read_timeout). Costs one round trip; while the breaker is
    /// open, two uncontended locks.
    ///
    /// # Errors
    /// See [`RemoteError`].
    ///
    /// # Cancel safety
    /// The request may have been carried out, or not. A connection with a reply outstanding is
    /// closed, so no later call can get that reply.
    pub async fn query<T: FromRedisValue>(
        &self,
        request: &impl Request,
        deadline: impl Into<Deadline>,
    ) -> Result<T, RemoteError> {
        self.call(request, deadline.into(), false).await
    }

    /// Sends a request that may be carried out several times without harm, and tries it up to
    /// [`retries`](RedisSettings::retries) times more while the server
    /// [is away](RemoteError::is_unavailable), with growing, jittered waits. Otherwise as
    /// [`query`](Self::query).
    ///
    /// # Errors
    /// That of the last attempt; see [`RemoteError`].
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn query_idempotent<T: FromRedisValue>(
        &self,
        request: &impl Request,
        deadline: impl Into<Deadline>,
    ) -> Result<T, RemoteError> {
        self.call(request, deadline.into(), true).await
    }

    /// The value at `key`, which [`key`](Self::key) makes. Idempotent.
    ///
    /// # Errors
    /// See [`RemoteError`]; a missing value is none.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn get(
        &self,
        key: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        self.query_idempotent(redis::cmd("GET").arg(key), deadline)
            .await
    }

    /// Puts a value at `key` that lives for [`ttl`](RedisSettings::ttl). Idempotent.
    ///
    /// # Errors
    /// See [`RemoteError`].
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), RemoteError> {
        let ttl = u64::try_from(self.inner.settings.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(ttl);
        self.query_idempotent(&set, deadline).await
    }

    /// A connection of one's own, outside of the pool and its limits, for commands that wait at
    /// the server, such as `XREAD BLOCK`. The breaker has its say.
    ///
    /// # Errors
    /// See [`RemoteError`].
    ///
    /// # Cancel safety
    /// Nothing is left open.
    pub async fn dedicated(&self, deadline: impl Into<Deadline>) -> Result<Dedicated, RemoteError> {
        let inner = &self.inner;
        if inner.pool.is_closed() {
            return Err(RemoteError::Closed);
        }
        let call = inner.admit()?;
        let dialled = inner.dial_alone(deadline.into()).await;
        inner.report(call, &dialled);
        dialled.map(|connection| Dedicated::new(connection, inner.target.clone()))
    }

    /// The key of these parts: [`prefix`](RedisSettings::prefix), then the parts with `:` between
    /// them. What would be mistaken for a separator is escaped (`:` as `%3A`, `%` as `%25`, an
    /// empty part as `%0`), so different parts give different keys.
    ///
    /// ```
    /// # use overdrive_remote::{RedisSettings, Remote};
    /// let remote = Remote::lazy(RedisSettings::default())?;
    /// assert_eq!(remote.key(&["user", "17"]), b"nextevent:v2:user:17");
    /// assert_ne!(remote.key(&["a", "b:c"]), remote.key(&["a:b", "c"]));
    /// # Ok::<(), overdrive_remote::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key<P: AsRef<[u8]>>(&self, parts: &[P]) -> Vec<u8> {
        key::join(&self.inner.settings.prefix, parts)
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &RedisSettings {
        &self.inner.settings
    }

    /// Healthy while the breaker is closed, degraded while it probes, unhealthy while it is open
    /// and once the remote is closed. Asks nobody.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.inner.pool.is_closed() {
            return Health::Unhealthy;
        }
        match self.inner.breaker().state(Timestamp::now()) {
            BreakerState::Closed => Health::Healthy,
            BreakerState::HalfOpen => Health::Degraded,
            BreakerState::Open => Health::Unhealthy,
        }
    }

    /// What it has done, and its connections now.
    #[must_use]
    pub fn stats(&self) -> RemoteStats {
        let Inner { counts, pool, .. } = &*self.inner;
        RemoteStats {
            calls: counts.calls.get(),
            failures: counts.failures.get(),
            retries: counts.retries.get(),
            timeouts: counts.timeouts.get(),
            rejected_by_breaker: counts.rejected_by_breaker.get(),
            pool_timeouts: counts.pool_timeouts.get(),
            dials: counts.dials.get(),
            failed_dials: counts.failed_dials.get(),
            lost: counts.lost.get(),
            open: pool.open(),
            idle: pool.idle(),
        }
    }

    /// Refuses calls from now on, those that wait for a turn included, and closes the idle
    /// connections. Calls under way end as they would have, and their connections close then.
    /// Idempotent.
    pub fn close(&self) {
        self.inner.pool.close();
        self.inner.end_upkeep();
    }

    async fn call<T: FromRedisValue>(
        &self,
        request: &impl Request,
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<T, RemoteError> {
        let inner = &self.inner;
        inner.counts.calls.up();
        let mut waits = inner
            .backoff
            .waits(RandomState::new().build_hasher().finish());
        let value = loop {
            let error = match inner.attempt(request, deadline).await {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            let wait = waits.next().filter(|_| idempotent && may_pass(&error));
            match wait.filter(|&wait| wait < deadline.remaining()) {
                None => break Err(error),
                Some(wait) => sleep(wait).await,
            }
            inner.counts.retries.up();
        };
        let value = value.and_then(|value| {
            redis::from_redis_value(value).map_err(|error| RemoteError::Server(error.into()))
        });
        if value.is_err() {
            inner.counts.failures.up();
        }
        value
    }
}

impl Inner {
    async fn attempt(
        self: &Arc<Self>,
        request: &impl Request,
        deadline: Deadline,
    ) -> Result<Value, RemoteError> {
        // Before the wait for a turn, which others may hold in vain.
        self.reject_if_open()?;
        let limit = self.settings.pool_wait.min(deadline.remaining());
        // Released last: the connection is back by then.
        let _turn = self.pool.turn(limit).await.inspect_err(|error| {
            if let RemoteError::PoolTimedOut { .. } = error {
                self.counts.pool_timeouts.up();
            }
        })?;
        if deadline.has_passed() {
            // Says nothing about the server.
            let after = Duration::ZERO;
            return Err(RemoteError::TimedOut { after });
        }
        let call = self.admit()?;
        let outcome = self.exchange(request, deadline).await;
        self.report(call, &outcome);
        outcome
    }

    /// With a turn.
    async fn exchange(
        self: &Arc<Self>,
        request: &impl Request,
        deadline: Deadline,
    ) -> Result<Value, RemoteError> {
        let connection = match self.pool.take() {
            Some(connection) => connection,
            None => self.dial(deadline).await?,
        };
        let mut lease = Lease {
            inner: self,
            connection: Some(connection),
        };
        let Some(connection) = &mut lease.connection else {
            return Err(RemoteError::Closed);
        };
        let limit = self.settings.read_timeout.min(deadline.remaining());
        match timeout(limit, request.send(&mut connection.redis)).await {
            Err(_) => {
                self.counts.timeouts.up();
                Err(RemoteError::TimedOut { after: limit })
            }
            Ok(Err(error)) if error.is_timeout() => {
                self.counts.timeouts.up();
                let after = self.settings.write_timeout;
                Err(RemoteError::TimedOut { after })
            }
            Ok(Err(error)) if is_loss(&error) => Err(unreachable_at(&self.target, error)),
            Ok(answer) => {
                lease.give_back();
                answer.map_err(RemoteError::Server)
            }
        }
    }

    /// A connection for the pool.
    async fn dial(self: &Arc<Self>, deadline: Deadline) -> Result<Connection, RemoteError> {
        let connection = self.dial_alone(deadline).await?;
        self.start_upkeep();
        Ok(connection)
    }

    async fn dial_alone(&self, deadline: Deadline) -> Result<Connection, RemoteError> {
        let settings = &self.settings;
        let limit = settings.dial_timeout.min(deadline.remaining());
        let open = self.pool.open_count();
        let dialled = Connection::dial(&self.target, limit, settings.write_timeout, open).await;
        match &dialled {
            Ok(_) => self.counts.dials.up(),
            Err(_) => self.counts.failed_dials.up(),
        }
        dialled
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject_if_open(&self) -> Result<(), RemoteError> {
        let now = Timestamp::now();
        let mut breaker = self.breaker();
        if breaker.state(now) != BreakerState::Open {
            return Ok(());
        }
        let refused = breaker.admit(now);
        drop(breaker);
        refused.map(|_| ()).map_err(|open| self.rejected(open))
    }

    fn admit(&self) -> Result<Admission, RemoteError> {
        let admitted = self.breaker().admit(Timestamp::now());
        admitted.map_err(|open| self.rejected(open))
    }

    fn rejected(&self, open: overdrive_core::breaker::BreakerOpen) -> RemoteError {
        self.counts.rejected_by_breaker.up();
        RemoteError::Open(open)
    }

    fn report<T>(&self, call: Admission, outcome: &Result<T, RemoteError>) {
        let away = outcome.as_ref().is_err_and(RemoteError::is_unavailable);
        let mut breaker = self.breaker();
        if away {
            breaker.failed(call, Timestamp::now());
        } else {
            breaker.succeeded(call);
        }
    }

    fn start_upkeep(self: &Arc<Self>) {
        if self.upkept.swap(true, Ordering::AcqRel) {
            return;
        }
        // Also when the runtime ends: then the next one takes over.
        let end = ClearOnDrop(self.upkept.clone());
        let weak = Arc::downgrade(self);
        let every = (self.settings.idle_timeout / 2).clamp(Duration::from_millis(1), MAX_UPKEEP);
        let task = tokio::spawn(async move {
            let _cleared = end;
            loop {
                sleep(every).await;
                let Some(inner) = weak.upgrade() else { return };
                if inner.pool.is_closed() {
                    return;
                }
                inner.keep_up().await;
            }
        });
        let old = self.upkeep_handle().replace(task.abort_handle());
        drop(old);
        if self.pool.is_closed() {
            self.end_upkeep();
        }
    }

    /// Closes the surplus, and opens what is missing unless the server is away or the pool busy.
    async fn keep_up(&self) {
        let settings = &self.settings;
        self.pool.trim(settings.idle_timeout, settings.min_idle);
        while self.pool.open() < settings.min_idle {
            let closed = self.breaker().state(Timestamp::now()) == BreakerState::Closed;
            let Some(_turn) = self.pool.try_turn().filter(|_| closed) else {
                return;
            };
            match self.dial_alone(Deadline::NEVER).await {
                Ok(connection) => self.pool.put(connection),
                Err(_) => return,
            }
        }
    }

    fn end_upkeep(&self) {
        if let Some(task) = self.upkeep_handle().take() {
            task.abort();
        }
    }

    fn upkeep_handle(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_upkeep();
    }
}

struct ClearOnDrop(Arc<AtomicBool>);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A connection in use. Unless it is given back it is closed: after a loss, after a limit, and
/// when the call is dropped with a reply outstanding.
struct Lease<'a> {
    inner: &'a Inner,
    connection: Option<Connection>,
}

impl Lease<'_> {
    fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.inner.pool.put(connection);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.inner.counts.lost.up();
        }
    }
}

/// Whether the connection cannot be used any more.
pub(crate) fn is_loss(error: &RedisError) -> bool {
    let fatal = [ErrorKind::Io, ErrorKind::Parse].contains(&error.kind());
    fatal || matches!(error.retry_method(), RetryMethod::Reconnect)
}

/// Whether another attempt may go better. An open breaker answers for longer than that.
fn may_pass(error: &RemoteError) -> bool {
    match error {
        RemoteError::Server(error) => is_not_serving(error),
        RemoteError::Open(_) => false,
        error => error.is_unavailable(),
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("addr", &self.inner.target.addr())
            .field("health", &self.health())
            .field("open", &self.inner.pool.open())
            .finish_non_exhaustive()
    }
}
