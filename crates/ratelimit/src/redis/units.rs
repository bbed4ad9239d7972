//! A quota in the arithmetic of the script.
//!
//! Lua has doubles, in which whole numbers up to 2^53 are exact. A rate is `p` tokens in `q`
//! microseconds in lowest terms, and a point in time two whole numbers: microseconds, and a fraction
//! with the denominator `p`. Then a token costs `q / p` without a remainder, and the script adds and
//! compares, and never multiplies or divides.
//!
//! - `p` is at most 2^40 tokens times 1000 (periods are in nanoseconds), so that two fractions
//!   together stay below 2^51.
//! - Microseconds since 1970 reach 2^53 in the year 2255. A full burst is to be earned within
//!   [`MAX_EARNING`], so that nothing that is kept gets there before the year 2155. A sum that is
//!   refused may: it is beyond the limit however it is rounded.

use std::time::Duration;

use overdrive_core::ConfigError;

use crate::limiter::Snapshot;
use crate::quota::Quota;

/// The longest time in which a full burst may be earned: a hundred years.
pub(crate) const MAX_EARNING: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// A point in time or a span: whole microseconds, and a fraction of one in units of `1 / p`.
pub(crate) type Point = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    /// Tokens in `q` microseconds.
    pub(crate) p: u64,
    q: u128,
    pub(crate) burst: u64,
}

impl Units {
    /// For a quota that was validated.
    pub(crate) fn new(quota: Quota) -> Result<Self, ConfigError> {
        let (p, q) = (u128::from(quota.tokens) * 1_000, quota.period.as_nanos());
        let common = common(p, q);
        let units = Self {
            // At most 2^40 * 1000.
            p: small(p / common),
            q: q / common,
            burst: quota.burst,
        };
        if units.span_of(quota.burst) > (small(MAX_EARNING.as_micros()), 0) {
            return Err(ConfigError::Invalid {
                field: "burst",
                reason: "takes more than a hundred years to earn",
            });
        }
        Ok(units)
    }

    /// What `n` tokens cost, `burst` at most.
    pub(crate) fn span_of(&self, n: u64) -> Point {
        let (cost, p) = (u128::from(n) * self.q, u128::from(self.p));
        (small(cost / p), small(cost % p))
    }

    /// What an answer of the script says: the arrival time, and the server's time.
    pub(crate) fn snapshot(&self, arrival: Point, now: u64) -> Snapshot {
        let p = u128::from(self.p);
        let now = u128::from(now) * p;
        let owed = (u128::from(arrival.0) * p + u128::from(arrival.1)).saturating_sub(now);
        // In units of `1 / p` microseconds a token costs `q`.
        let tolerance = u128::from(self.burst) * self.q;
        let there = tolerance.saturating_sub(owed);
        Snapshot {
            limit: self.burst,
            remaining: small(there / self.q),
            retry_after: self.duration(self.q.saturating_sub(there)),
            reset_after: self.duration(owed),
        }
    }

    /// How long until `n` tokens are there.
    pub(crate) fn delay(&self, arrival: Point, now: u64, n: u64) -> Duration {
        let p = u128::from(self.p);
        let due = u128::from(arrival.0) * p + u128::from(arrival.1) + u128::from(n) * self.q;
        let limit = u128::from(now) * p + u128::from(self.burst) * self.q;
        self.duration(due.saturating_sub(limit))
    }

    fn duration(&self, units: u128) -> Duration {
        Duration::from_micros(small(units.div_ceil(u128::from(self.p))))
    }
}

fn small(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn common(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{MAX_PERIOD, MAX_TOKENS};

    /// What the script can count to.
    const EXACT: u64 = 1 << 53;

    #[test]
    fn every_number_of_a_valid_quota_is_exact_in_a_double() {
        let year_2100 = 4_102_444_800_000_000_u64;
        for quota in [
            Quota::per(1, MAX_PERIOD).burst(99),
            Quota::per(MAX_TOKENS, MAX_PERIOD),
            Quota::per(MAX_TOKENS - 1, Duration::from_nanos(999_999_999_999)),
            Quota::per_second(3),
            Quota::per(7, Duration::from_nanos(1)),
        ] {
            let units = Units::new(quota).unwrap();
            let (whole, part) = units.span_of(quota.burst);
            assert!(units.p < EXACT / 2 && part < units.p);
            assert!(year_2100 + whole + 1 < EXACT, "{quota:?}");
        }
    }

    #[test]
    fn a_burst_of_more_than_a_century_is_refused() {
        let quota = Quota::per(1, MAX_PERIOD).burst(101);
        assert_eq!(Units::new(quota).unwrap_err().field(), "burst");
    }

    #[test]
    fn a_rate_that_no_microsecond_divides_is_exact() {
        let units = Units::new(Quota::per_second(3).burst(3)).unwrap();
        assert_eq!(units.span_of(1), (333_333, 1));
        assert_eq!(units.span_of(3), (1_000_000, 0));
        let snapshot = units.snapshot((1_000_000, 0), 333_333);
        assert_eq!(snapshot.remaining, 0);
        assert_eq!(snapshot.retry_after, Duration::from_micros(1));
        assert_eq!(snapshot.reset_after, Duration::from_micros(666_667));
        assert_eq!(units.snapshot((1_000_000, 0), 333_334).remaining, 1);
        let delay = units.delay((1_000_000, 0), 333_333, 2);
        assert_eq!(delay, Duration::from_micros(333_334));
    }
}
