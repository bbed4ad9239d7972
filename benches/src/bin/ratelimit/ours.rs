//! The crate under test.

use overdrive_ratelimit::{ConcurrencyLimit, Quota, RateLimiter};

use crate::scenarios::{Check, Permits, Rate};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Check for RateLimiter {
    fn new(rate: Rate) -> Self {
        let quota = match rate {
            Rate::Billion => Quota::per_second(1_000_000_000),
            Rate::Exhausted => Quota::per_hour(1),
        };
        match Self::builder().quota(quota).build() {
            Ok(limiter) => limiter,
            Err(error) => panic!("a valid quota was refused: {error}"),
        }
    }

    fn check(&self) -> bool {
        Self::check(self).is_ok()
    }
}

impl Permits for ConcurrencyLimit {
    fn new(limit: usize) -> Self {
        match Self::builder().limit(limit).build() {
            Ok(limit) => limit,
            Err(error) => panic!("a valid limit was refused: {error}"),
        }
    }

    fn acquire_and_release(&self) -> bool {
        self.try_acquire().is_ok()
    }
}
