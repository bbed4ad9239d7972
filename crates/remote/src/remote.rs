//! The handle.

use std::fmt;
use std::sync::Arc;

use overdrive_core::breaker::BreakerState;
use overdrive_core::{ConfigError, Deadline, Health, Timestamp};
use redis::FromRedisValue;

use crate::dedicated::Dedicated;
use crate::engine::Inner;
use crate::{RedisSettings, RemoteError, RemoteStats, Request, key};

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
        let inner = Arc::new(Inner::new(settings)?);
        Ok(Self { inner })
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
        self.inner.call(request, deadline.into(), false).await
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
        self.inner.call(request, deadline.into(), true).await
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
        counts.stats(pool.open(), pool.idle())
    }

    /// Refuses calls from now on, those that wait for a turn included, and closes the idle
    /// connections. Calls under way end as they would have, and their connections close then.
    /// Idempotent.
    pub fn close(&self) {
        self.inner.pool.close();
        self.inner.end_upkeep();
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
