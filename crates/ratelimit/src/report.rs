//! Figures for the crate `metrics`.
//!
//! Nothing is counted twice and nothing is added to a check: the figures that are kept anyway are
//! handed over when somebody asks for that, such as a task each ten seconds or before a scrape.

use std::hash::{BuildHasher, Hash};

use metrics::{counter, gauge};
use overdrive_core::Clock;

use crate::adaptive::AdaptiveLimit;
use crate::concurrency::ConcurrencyLimit;
use crate::exact::ExactKeyedLimiter;
use crate::keyed::KeyedLimiter;
use crate::leased::LeasedLimiter;
use crate::limiter::RateLimiter;
use crate::stats::{ConcurrencyStats, KeyedStats, LimiterStats};

macro_rules! publish {
    ($name:expr; $($kind:ident $metric:literal = $value:expr),* $(,)?) => {{
        let name = $name.to_owned();
        $(publish!(@$kind $metric, name.clone(), $value);)*
    }};
    (@counter $metric:literal, $name:expr, $value:expr) => {
        counter!(concat!("overdrive_ratelimit_", $metric), "limiter" => $name).absolute($value)
    };
    (@gauge $metric:literal, $name:expr, $value:expr) => {
        gauge!(concat!("overdrive_ratelimit_", $metric), "limiter" => $name).set($value as f64)
    };
}

fn limiter(name: &str, stats: &LimiterStats, remaining: u64) {
    publish!(name;
        counter "allowed_total" = stats.allowed,
        counter "denied_total" = stats.denied,
        counter "tokens_total" = stats.tokens,
        counter "refunded_total" = stats.refunded,
        counter "waited_total" = stats.waited,
        counter "refused_waits_total" = stats.refused_waits,
        counter "abandoned_waits_total" = stats.abandoned_waits,
        gauge "waiting" = stats.waiting,
        gauge "remaining" = remaining,
    );
}

fn keyed(name: &str, stats: &KeyedStats) {
    publish!(name;
        counter "allowed_total" = stats.allowed,
        counter "denied_total" = stats.denied,
        counter "reclaimed_total" = stats.reclaimed,
        counter "overflowed_total" = stats.overflowed,
        counter "evicted_total" = stats.evicted,
        gauge "keys" = stats.keys,
    );
}

fn concurrency(name: &str, stats: &ConcurrencyStats, limit: usize) {
    publish!(name;
        counter "acquired_total" = stats.acquired,
        counter "waited_total" = stats.waited,
        counter "refused_total" = stats.refused,
        counter "shed_total" = stats.shed,
        counter "abandoned_waits_total" = stats.abandoned_waits,
        gauge "in_flight" = stats.in_flight,
        gauge "waiting" = stats.waiting,
        gauge "limit" = limit,
    );
}

impl<C: Clock> RateLimiter<C> {
    /// Hands the figures to the recorder of the crate `metrics`, under the label `limiter` with
    /// [`name`](Self::name) and the prefix `overdrive_ratelimit_`: the counters `allowed_total`,
    /// `denied_total`, `tokens_total`, `refunded_total`, `waited_total`, `refused_waits_total` and
    /// `abandoned_waits_total`, and the gauges `waiting` and `remaining`.
    ///
    /// To be called from time to time. It counts as of now: limiters that report need names of their
    /// own.
    pub fn report_metrics(&self) {
        limiter(self.name(), &self.stats(), self.snapshot().remaining);
    }
}

impl<C: Clock> LeasedLimiter<C> {
    /// As [`RateLimiter::report_metrics`], of all threads together.
    pub fn report_metrics(&self) {
        limiter(self.name(), &self.stats(), self.snapshot().remaining);
    }
}

impl<K: ?Sized, S: BuildHasher, C: Clock> KeyedLimiter<K, S, C> {
    /// As [`RateLimiter::report_metrics`]: the counters `allowed_total`, `denied_total`,
    /// `reclaimed_total`, `overflowed_total` and `evicted_total`, and the gauge `keys`. Looks at the
    /// whole table, as [`stats`](Self::stats) does.
    pub fn report_metrics(&self) {
        keyed(self.name(), &self.stats());
    }
}

impl<K: Hash + Eq, S: BuildHasher, C: Clock> ExactKeyedLimiter<K, S, C> {
    /// As [`KeyedLimiter::report_metrics`].
    pub fn report_metrics(&self) {
        keyed(self.name(), &self.stats());
    }
}

impl ConcurrencyLimit {
    /// As [`RateLimiter::report_metrics`]: the counters `acquired_total`, `waited_total`,
    /// `refused_total`, `shed_total` and `abandoned_waits_total`, and the gauges `in_flight`, `waiting`
    /// and `limit`.
    pub fn report_metrics(&self) {
        concurrency(self.name(), &self.stats(), self.limit());
    }
}

impl<C: Clock> AdaptiveLimit<C> {
    /// As [`ConcurrencyLimit::report_metrics`].
    pub fn report_metrics(&self) {
        self.concurrency().report_metrics();
    }
}
