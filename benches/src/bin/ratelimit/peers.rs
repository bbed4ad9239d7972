//! The peers, each as its documentation shows.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;

use crate::scenarios::{Check, Permits, Rate};

/// On its default clock, which reads the processor's counter.
pub(crate) struct Governor(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl Check for Governor {
    fn new(rate: Rate) -> Self {
        let quota = match rate {
            Rate::Billion => Quota::per_second(NonZeroU32::MIN.saturating_add(999_999_999)),
            Rate::Exhausted => Quota::per_hour(NonZeroU32::MIN),
        };
        Self(RateLimiter::direct(quota))
    }

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

    fn check(&self) -> bool {
        self.0.try_acquire(1)
    }
}

impl Permits for Semaphore {
    fn new(limit: usize) -> Self {
        Self::new(limit)
    }

    fn acquire_and_release(&self) -> bool {
        self.try_acquire().is_ok()
    }
}
