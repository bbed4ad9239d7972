//! The crate under test.

use std::time::Duration;

use overdrive_ratelimit::clock::CoarseClock;
use overdrive_ratelimit::{
    ConcurrencyLimit, ConfigError, KeyedLimiter, LeasedLimiter, Quota, RateLimiter,
};

use crate::keyed::{CheckKey, PerKey};
use crate::scenarios::{Check, Permits, Rate};
use crate::waiting::Wait;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Check for RateLimiter {
    fn new(rate: Rate) -> Self {
        built(Self::builder().quota(quota(rate)).build())
    }

    #[inline(always)]
    fn check(&self) -> bool {
        Self::check(self).is_ok()
    }
}

impl Permits for ConcurrencyLimit {
    fn new(limit: usize) -> Self {
        built(Self::builder().limit(limit).build())
    }

    #[inline(always)]
    fn acquire_and_release(&self) -> bool {
        self.try_acquire().is_ok()
    }
}

/// On the clock that a thread sets each millisecond.
pub(crate) struct Coarse(RateLimiter<CoarseClock>);

impl Check for Coarse {
    fn new(rate: Rate) -> Self {
        let clock = built(CoarseClock::new(Duration::from_millis(1)));
        Self(built(
            RateLimiter::builder()
                .quota(quota(rate))
                .clock(clock)
                .build(),
        ))
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Batches of 64.
pub(crate) struct Leased(LeasedLimiter);

impl Check for Leased {
    fn new(rate: Rate) -> Self {
        Self(built(
            RateLimiter::builder().quota(quota(rate)).leased(64).build(),
        ))
    }

    #[inline(always)]
    fn check(&self) -> bool {
        self.0.check().is_ok()
    }
}

pub(crate) struct Keyed(KeyedLimiter<u64, foldhash::fast::RandomState>);

impl CheckKey for Keyed {
    fn new(per_key: PerKey, keys: usize) -> Self {
        let quota = Quota::per_second(per_key.per_second.into()).burst(per_key.burst.into());
        let hasher = foldhash::fast::RandomState::default();
        let builder = KeyedLimiter::builder().quota(quota).capacity(keys);
        Self(built(builder.hasher(hasher).build()))
    }

    fn check_key(&self, key: u64) -> bool {
        self.0.check(&key).is_ok()
    }
}

pub(crate) struct Waiting(RateLimiter);

impl Wait for Waiting {
    fn new(per_second: u32, burst: u32) -> Self {
        Self(built(RateLimiter::new(burst.into(), per_second.into())))
    }

    async fn wait(&self) {
        if let Err(error) = self.0.wait().await {
            panic!("nothing is refused here: {error}");
        }
    }
}

pub(crate) fn built<T>(result: Result<T, ConfigError>) -> T {
    match result {
        Ok(built) => built,
        Err(error) => panic!("valid settings were refused: {error}"),
    }
}

fn quota(rate: Rate) -> Quota {
    match rate {
        Rate::Billion => Quota::per_second(1_000_000_000),
        Rate::Exhausted => Quota::per_hour(1),
    }
}
