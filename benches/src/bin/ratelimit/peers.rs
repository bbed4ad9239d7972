//! The peers, each as its documentation shows.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use governor::clock::{DefaultClock, QuantaUpkeepClock};
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;
use tower_limit::Service;
use tower_limit::limit::ConcurrencyLimit;

use crate::keyed::{CheckKey, PerKey};
use crate::scenarios::{Check, Permits, Rate};
use crate::waiting::Wait;

/// On its default clock, which reads the processor's counter.
pub(crate) struct Governor(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl Check for Governor {
    fn new(rate: Rate) -> Self {
        Self(RateLimiter::direct(quota(rate)))
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.check().is_ok()
    }
}

pub(crate) struct Ratelimit(ratelimit::Ratelimiter);

impl Check for Ratelimit {
    fn new(rate: Rate) -> Self {
        let builder = match rate {
            Rate::Billion => ratelimit::Ratelimiter::builder(1_000_000_000)
                .max_tokens(1_000_000_000)
                .initial_available(1_000_000_000),
            Rate::Exhausted => ratelimit::Ratelimiter::builder(1)
                .period(Duration::from_secs(3600))
                .max_tokens(1)
                .initial_available(1),
        };
        match builder.build() {
            Ok(limiter) => Self(limiter),
            Err(error) => panic!("ratelimit refused its settings: {error}"),
        }
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.try_wait().is_ok()
    }
}

/// Fair, which is its default.
pub(crate) struct LeakyBucket(leaky_bucket::RateLimiter);

impl Check for LeakyBucket {
    fn new(rate: Rate) -> Self {
        let mut builder = leaky_bucket::RateLimiter::builder();
        let builder = match rate {
            // Its shortest interval is a millisecond.
            Rate::Billion => builder
                .max(1_000_000_000)
                .initial(1_000_000_000)
                .refill(1_000_000)
                .interval(Duration::from_millis(1)),
            Rate::Exhausted => builder
                .max(1)
                .initial(1)
                .refill(1)
                .interval(Duration::from_secs(3600)),
        };
        Self(builder.build())
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.try_acquire(1)
    }
}

impl Permits for Semaphore {
    fn new(limit: usize) -> Self {
        Self::new(limit)
    }

    #[inline(always)]
    fn acquire_and_release(&self) -> bool {
        self.try_acquire().is_ok()
    }
}

fn quota(rate: Rate) -> Quota {
    match rate {
        Rate::Billion => Quota::per_second(number(1_000_000_000)),
        Rate::Exhausted => Quota::per_hour(number(1)),
    }
}

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(n - 1)
}

/// On its clock that a thread sets each millisecond.
pub(crate) struct GovernorCoarse(RateLimiter<NotKeyed, InMemoryState, QuantaUpkeepClock>);

impl Check for GovernorCoarse {
    fn new(rate: Rate) -> Self {
        use std::sync::OnceLock;
        // One such thread a process is all that quanta lets start.
        static CLOCK: OnceLock<QuantaUpkeepClock> = OnceLock::new();
        let start = || match QuantaUpkeepClock::from_interval(Duration::from_millis(1)) {
            Ok(clock) => clock,
            Err(error) => panic!("the clock did not start: {error}"),
        };
        let clock = CLOCK.get_or_init(start).clone();
        Self(RateLimiter::direct_with_clock(quota(rate), clock))
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.check().is_ok()
    }
}

type Keyed<S> = RateLimiter<u64, DashMapStateStore<u64, S>, DefaultClock>;

fn per_key(quota: PerKey) -> Quota {
    Quota::per_second(number(quota.per_second)).allow_burst(number(quota.burst))
}

/// With the hash function that all have.
pub(crate) struct GovernorKeyed(Keyed<foldhash::fast::RandomState>);

impl CheckKey for GovernorKeyed {
    fn new(quota: PerKey, _: usize) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self(RateLimiter::dashmap_with_hasher(per_key(quota), hasher))
    }

    fn check_key(&self, key: u64) -> bool {
        self.0.check_key(&key).is_ok()
    }
}

/// The same, cleaned as its documentation says.
pub(crate) struct GovernorCleaned(GovernorKeyed);

impl CheckKey for GovernorCleaned {
    fn new(quota: PerKey, keys: usize) -> Self {
        Self(GovernorKeyed::new(quota, keys))
    }

    fn check_key(&self, key: u64) -> bool {
        self.0.check_key(key)
    }

    fn clean(&self) {
        self.0.0.retain_recent();
    }
}

/// As it comes.
pub(crate) struct GovernorKeyedDefault(Keyed<std::hash::RandomState>);

impl CheckKey for GovernorKeyedDefault {
    fn new(quota: PerKey, _: usize) -> Self {
        Self(RateLimiter::dashmap_with_hasher(
            per_key(quota),
            std::hash::RandomState::new(),
        ))
    }

    fn check_key(&self, key: u64) -> bool {
        self.0.check_key(&key).is_ok()
    }
}

/// A cache with a limiter for each key, of as many as there may be: what is written where memory is
/// to be bounded.
pub(crate) struct MokaKeyed {
    limiters: moka::sync::Cache<u64, Arc<Governor>, foldhash::fast::RandomState>,
    quota: Quota,
}

impl CheckKey for MokaKeyed {
    fn new(quota: PerKey, keys: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(keys as u64);
        Self {
            limiters: builder.build_with_hasher(foldhash::fast::RandomState::default()),
            quota: per_key(quota),
        }
    }

    fn check_key(&self, key: u64) -> bool {
        let new = || Arc::new(Governor(RateLimiter::direct(self.quota)));
        self.limiters.get_with(key, new).0.check().is_ok()
    }
}

/// A service that has nothing to do.
#[derive(Clone)]
pub(crate) struct Nothing;

impl Service<()> for Nothing {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

/// Cloned for each request, as routers do.
pub(crate) struct TowerLimit(ConcurrencyLimit<Nothing>);

impl Permits for TowerLimit {
    fn new(limit: usize) -> Self {
        Self(ConcurrencyLimit::new(Nothing, limit))
    }

    #[inline(always)]
    fn acquire_and_release(&self) -> bool {
        let mut service = self.0.clone();
        let mut context = Context::from_waker(Waker::noop());
        if service.poll_ready(&mut context).is_pending() {
            return false;
        }
        pin!(service.call(())).poll(&mut context).is_ready()
    }
}

pub(crate) struct GovernorWaiting(Governor);

impl Wait for GovernorWaiting {
    fn new(per_second: u32, burst: u32) -> Self {
        let quota = Quota::per_second(number(per_second)).allow_burst(number(burst));
        Self(Governor(RateLimiter::direct(quota)))
    }

    async fn wait(&self) {
        self.0.0.until_ready().await;
    }
}

impl Wait for leaky_bucket::RateLimiter {
    fn new(per_second: u32, burst: u32) -> Self {
        // Its shortest interval is a millisecond.
        Self::builder()
            .max(burst as usize)
            .initial(burst as usize)
            .refill(per_second as usize / 1000)
            .interval(Duration::from_millis(1))
            .build()
    }

    async fn wait(&self) {
        self.acquire_one().await;
    }
}
