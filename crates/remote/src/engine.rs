//! Attempts, retries, the breaker, and the upkeep of the pool.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::breaker::{Admission, BreakerOpen, BreakerState};
use overdrive_core::{Backoff, CircuitBreaker, ConfigError, Deadline, Timestamp};
use redis::{FromRedisValue, Value};
use tokio::sync::SemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::connection::{Connection, unreachable_at};
use crate::error::{is_loss, is_not_serving, mistyped};
use crate::pool::Pool;
use crate::settings::Target;
use crate::stats::Counts;
use crate::{RedisSettings, RemoteError, Request};

/// Of the jittered waits between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(8);
const MAX_WAIT: Duration = Duration::from_millis(512);
/// How often idle connections are looked at, at the least.
const MAX_UPKEEP: Duration = Duration::from_secs(30);

/// What the handles share.
pub(crate) struct Inner {
    pub(crate) settings: RedisSettings,
    pub(crate) target: Target,
    backoff: Backoff,
    breaker: Mutex<CircuitBreaker>,
    pub(crate) pool: Pool,
    pub(crate) counts: Counts,
    upkeep: Mutex<Option<AbortHandle>>,
    upkept: Arc<AtomicBool>,
}

impl Inner {
    pub(crate) fn new(settings: RedisSettings) -> Result<Self, ConfigError> {
        let target = settings.check()?;
        let breaker = CircuitBreaker::new(settings.breaker_failures, settings.breaker_open_for)?;
        Ok(Self {
            target,
            backoff: Backoff::new(FIRST_WAIT, MAX_WAIT, settings.retries)?,
            breaker: Mutex::new(breaker),
            pool: Pool::new(settings.pool_size),
            counts: Counts::default(),
            upkeep: Mutex::default(),
            upkept: Arc::default(),
            settings,
        })
    }

    pub(crate) async fn call<T: FromRedisValue>(
        self: &Arc<Self>,
        request: &impl Request,
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<T, RemoteError> {
        self.counts.calls.up();
        let mut waits = None;
        let value = loop {
            let error = match self.attempt(request, deadline).await {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            if !idempotent || !may_pass(&error) {
                break Err(error);
            }
            let seed = || RandomState::new().build_hasher().finish();
            let waits = waits.get_or_insert_with(|| self.backoff.waits(seed()));
            match waits.next().filter(|&wait| wait < deadline.remaining()) {
                None => break Err(error),
                Some(wait) => sleep(wait).await,
            }
            self.counts.retries.up();
        };
        let value = value.and_then(|value| redis::from_redis_value(value).map_err(mistyped));
        if value.is_err() {
            self.counts.failures.up();
        }
        value
    }

    async fn attempt(
        self: &Arc<Self>,
        request: &impl Request,
        deadline: Deadline,
    ) -> Result<Value, RemoteError> {
        // Released last: the connection is back by then.
        let _turn = match self.pool.try_turn() {
            Some(turn) => turn,
            None => self.turn(deadline).await?,
        };
        let left = deadline.remaining();
        if left.is_zero() {
            // Says nothing about the server.
            return Err(RemoteError::TimedOut { after: left });
        }
        let call = self.admit()?;
        let outcome = self.exchange(request, deadline, left).await;
        self.report(call, &outcome);
        outcome
    }

    async fn turn(&self, deadline: Deadline) -> Result<SemaphorePermit<'_>, RemoteError> {
        // Before the wait, which may be in vain.
        self.reject_if_open()?;
        let limit = self.settings.pool_wait.min(deadline.remaining());
        self.pool.turn(limit).await.inspect_err(|error| {
            if let RemoteError::PoolTimedOut { .. } = error {
                self.counts.pool_timeouts.up();
            }
        })
    }

    /// With a turn, and so much time left.
    async fn exchange(
        self: &Arc<Self>,
        request: &impl Request,
        deadline: Deadline,
        mut left: Duration,
    ) -> Result<Value, RemoteError> {
        let connection = match self.pool.take() {
            Some(connection) => connection,
            None => {
                let connection = self.dial(deadline).await?;
                left = deadline.remaining();
                connection
            }
        };
        let mut lease = Lease {
            inner: self,
            connection: Some(connection),
        };
        let Some(connection) = &mut lease.connection else {
            return Err(RemoteError::Closed);
        };
        let limit = self.settings.read_timeout.min(left);
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
    pub(crate) async fn dial(
        self: &Arc<Self>,
        deadline: Deadline,
    ) -> Result<Connection, RemoteError> {
        let connection = self.dial_alone(deadline).await?;
        self.start_upkeep();
        Ok(connection)
    }

    pub(crate) async fn dial_alone(&self, deadline: Deadline) -> Result<Connection, RemoteError> {
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

    pub(crate) fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
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

    pub(crate) fn admit(&self) -> Result<Admission, RemoteError> {
        let admitted = self.breaker().admit(Timestamp::now());
        admitted.map_err(|open| self.rejected(open))
    }

    fn rejected(&self, open: BreakerOpen) -> RemoteError {
        self.counts.rejected_by_breaker.up();
        RemoteError::Open(open)
    }

    pub(crate) fn report<T>(&self, call: Admission, outcome: &Result<T, RemoteError>) {
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

    pub(crate) fn end_upkeep(&self) {
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

/// Whether another attempt may go better. An open breaker answers for longer than that.
fn may_pass(error: &RemoteError) -> bool {
    match error {
        RemoteError::Server(error) => is_not_serving(error),
        RemoteError::Open(_) => false,
        error => error.is_unavailable(),
    }
}
