//! The generic cell rate algorithm in 64 bits.
//!
//! GCRA (ITU-T I.371, 1996, as a "virtual scheduling algorithm"; also a leaky bucket as a meter)
//! keeps one number: the *theoretical arrival time*, at which the tokens given out so far would
//! have been earned at the quota's rate. A request is allowed if its tokens would be earned no
//! later than a full burst from now.
//!
//! # Units
//! A token is worth a whole number of units, its `cost`, so that no sum of tokens is ever rounded.
//! The clock is converted into units by one multiplication with the units of a nanosecond, its
//! `speed`. With a rate of `p / q` tokens per nanosecond in lowest terms:
//!
//! - `p` up to 16: a token is `q` units and a nanosecond `p`. Nothing is rounded anywhere.
//! - otherwise a unit is a nanosecond or just above (at rates beyond one a nanosecond: a token).
//!   The speed is rounded down in the 59th binary place, which loses a nanosecond in nine years.
//! - where a full burst takes more than nine years to earn, a unit is so much longer that it fits.
//!
//! # Which way it is rounded
//! The time now is rounded down to whole units where it allows and, in a cell that owes nothing, up
//! where it is charged. So in no window `t` are more than `burst + rate * t` tokens given out, and a
//! token comes at most two units late: 4 ns, or 2^-17 of a token.

use std::time::Duration;

use overdrive_core::Timestamp;

use crate::quota::Quota;

/// Binary places of a speed. With it, speeds reach 32 units a nanosecond.
const SHIFT: u32 = 59;

/// The longest burst in units.
const MAX_TOLERANCE: u128 = 1 << 58;

/// The largest numerator of a rate that needs no rounding.
const MAX_EXACT: u128 = 16;

/// The state of one limited thing: its theoretical arrival time in units. What lies in the past
/// means the same as a fresh cell: nothing is owed.
pub(crate) type Arrival = u64;

/// Where the units end: far enough from the end of the word for a burst.
const END: u64 = 1 << 63;

/// The last arrival time there is. One below the end, which a cell uses as a mark.
const LAST: Arrival = u64::MAX - 1;

/// A quota in the units of its own arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra {
    /// Units per nanosecond, in `2^-SHIFT`.
    pub(crate) speed: u64,
    /// Units per token.
    pub(crate) cost: u64,
    /// Units of a full burst.
    pub(crate) tolerance: u64,
    pub(crate) burst: u64,
    /// What a time rounded down may have lost: one unit, or nothing.
    pub(crate) lost: u64,
    /// The moment at which the units stood at `base`, in nanoseconds.
    pub(crate) origin: u64,
    pub(crate) base: u64,
    /// The nanoseconds after `origin` at which the units come to their end and stay: 292 years, or
    /// 18 at the highest rates.
    pub(crate) end: u64,
}

impl Gcra {
    /// For a quota that was validated.
    pub(crate) fn new(quota: Quota) -> Self {
        let (p, q) = lowest_terms(u128::from(quota.tokens), quota.period.as_nanos());
        let burst = u128::from(quota.burst);
        let longest = MAX_TOLERANCE / burst;
        let (cost, speed, lost) = if p <= MAX_EXACT && q <= longest {
            (q, p << SHIFT, 0)
        } else {
            let cost = (q / p).clamp(1, longest);
            (cost, ((cost * p) << SHIFT) / q, 1)
        };
        let small = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            speed: small(speed),
            cost: small(cost),
            tolerance: small(cost * burst),
            burst: quota.burst,
            lost,
            origin: 0,
            base: 0,
            end: 0,
        }
        .starting(Timestamp::ZERO, 0)
    }

    /// The same rate with a smaller burst.
    pub(crate) fn less(self, tokens: u64) -> Self {
        let burst = self.burst - tokens;
        Self {
            burst,
            tolerance: burst * self.cost,
            ..self
        }
    }

    /// The same with the units at `base` at `origin`.
    pub(crate) fn starting(self, origin: Timestamp, base: u64) -> Self {
        let units = u128::from(END.saturating_sub(base));
        let end = (units << SHIFT) / u128::from(self.speed.max(1));
        Self {
            origin: origin.as_nanos(),
            base,
            end: u64::try_from(end).unwrap_or(u64::MAX),
            ..self
        }
    }

    #[inline(always)]
    pub(crate) fn units(&self, now: Timestamp) -> u64 {
        let nanos = now.as_nanos().saturating_sub(self.origin).min(self.end);
        // `END` at most together, so no part of it is cut off.
        let units = (u128::from(nanos) * u128::from(self.speed)) >> SHIFT;
        self.base.wrapping_add(units as u64)
    }

    /// The arrival time once tokens worth `cost` are taken at `units`, if they are there.
    #[inline(always)]
    pub(crate) fn admit(&self, arrival: Arrival, units: u64, cost: u64) -> Option<Arrival> {
        if arrival.saturating_sub(units) > self.tolerance.wrapping_sub(cost) {
            return None;
        }
        // Within a burst of the end, so it fits.
        Some(arrival.max(units + self.lost).wrapping_add(cost))
    }

    fn charged(&self, arrival: Arrival, units: u64, cost: u64) -> Arrival {
        let from = arrival.max(units + self.lost);
        from.saturating_add(cost).min(LAST)
    }

    /// How long `n` more tokens would have to wait behind what is owed and `ahead` further
    /// tokens; zero if they are to be had now.
    ///
    /// One conversion at the end, and no way to panic: so that who does not look at the answer does
    /// not pay for the division.
    #[inline(always)]
    pub(crate) fn delay(&self, arrival: Arrival, now: Timestamp, ahead: u64, n: u64) -> Duration {
        let units = self.units(now);
        let tokens = u128::from(ahead) + u128::from(n);
        let earned = u128::from(arrival.max(units)) + tokens * u128::from(self.cost);
        let due = earned.saturating_sub(u128::from(self.tolerance));
        let nanos = if due <= u128::from(units) {
            0
        } else {
            self.until(due, now)
        };
        Duration::from_nanos(nanos)
    }

    /// Whether one more token would have to wait for a millisecond, about. Without a division.
    #[inline(always)]
    pub(crate) fn is_far(&self, arrival: Arrival, now: Timestamp) -> bool {
        let milli = ((1_000_000 * u128::from(self.speed)) >> SHIFT) as u64;
        let there = self.tolerance.wrapping_sub(self.cost);
        arrival.saturating_sub(self.units(now)) > there.saturating_add(milli)
    }

    /// How many nanoseconds until the time in units reaches `due`.
    #[inline(always)]
    fn until(&self, due: u128, now: Timestamp) -> u64 {
        let due = due.saturating_sub(u128::from(self.base));
        // A sum of tokens this large takes longer than any clock runs.
        let nanos = if due >> (127 - SHIFT) == 0 {
            (due << SHIFT).div_ceil(u128::from(self.speed.max(1)))
        } else {
            u128::MAX
        };
        let at = nanos.saturating_add(u128::from(self.origin));
        let left = at.saturating_sub(u128::from(now.as_nanos()));
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// The arrival time once `n` tokens were taken at `now`, there or not. None change nothing: a
    /// cell that lies in the past is due to those whose timers are late.
    pub(crate) fn charge(&self, arrival: Arrival, now: Timestamp, n: u64) -> Arrival {
        if n == 0 {
            return arrival;
        }
        let cost = n.saturating_mul(self.cost);
        self.charged(arrival, self.units(now), cost)
    }

    /// The whole tokens that are to be had now.
    pub(crate) fn remaining(&self, arrival: Arrival, now: Timestamp) -> u64 {
        let owed = arrival.saturating_sub(self.units(now));
        self.tolerance.saturating_sub(owed) / self.cost
    }

    /// How long until nothing is owed.
    pub(crate) fn reset_after(&self, arrival: Arrival, now: Timestamp) -> Duration {
        if arrival <= self.units(now) {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.until(u128::from(arrival), now))
    }
}

fn lowest_terms(p: u128, q: u128) -> (u128, u128) {
    let (mut a, mut b) = (p, q);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (p / a, q / a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{MAX_PERIOD, MAX_TOKENS};

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn taken(gcra: &Gcra, nanos: impl Iterator<Item = u64>) -> u64 {
        let (mut arrival, mut taken) = (0, 0);
        for nanos in nanos {
            while let Some(next) = gcra.admit(arrival, gcra.units(at(nanos)), gcra.cost) {
                arrival = next;
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn a_rate_is_exact_where_nanoseconds_per_token_are_not_whole() {
        // 600 million a second are 1.67 ns a token: rounded, the rate would be 67 % off.
        let gcra = Gcra::new(Quota::per_second(600_000_000).burst(2));
        // 999 ns at 0.6 tokens each, and the burst.
        assert_eq!(taken(&gcra, 0..1000), 2 + 599);
    }

    #[test]
    fn a_rate_that_is_no_simple_fraction_does_not_drift() {
        // A prime number of tokens a second, over some three years looked at each hour or so.
        let rate = 999_983;
        let gcra = Gcra::new(Quota::per_second(rate).burst(1 << 40));
        let (mut arrival, hour) = (gcra.charge(0, at(0), 1 << 40), 3_600_000_000_000_u64);
        let mut got = 0_u128;
        for i in 1..=26_000_u64 {
            let now = at(i * hour);
            let there = gcra.remaining(arrival, now);
            arrival = gcra.charge(arrival, now, there);
            got += u128::from(there);
            let earned = u128::from(i) * 3600 * u128::from(rate);
            assert!(got <= earned && earned - got <= 1, "{i}: {got} of {earned}");
        }
    }

    #[test]
    fn a_delay_is_enough_and_not_too_much() {
        let gcra = Gcra::new(Quota::per(3, Duration::from_nanos(10)).burst(2));
        let arrival = gcra.charge(0, at(5), 2);
        let delay = gcra.delay(arrival, at(5), 0, 1);
        assert_eq!(delay.as_nanos(), 4);
        assert!(!gcra.delay(arrival, at(8), 0, 1).is_zero());
        assert!(gcra.delay(arrival, at(9), 0, 1).is_zero());
    }

    #[test]
    fn the_extremes_fit() {
        for quota in [
            Quota::per(MAX_TOKENS, MAX_PERIOD),
            Quota::per(1, MAX_PERIOD).burst(MAX_TOKENS),
            Quota::per(16, Duration::from_nanos(1)).burst(MAX_TOKENS),
        ] {
            let gcra = Gcra::new(quota);
            let mut arrival = 0;
            for _ in 0..4 {
                arrival = gcra.charge(arrival, Timestamp::MAX, MAX_TOKENS);
            }
            let _fits = gcra.delay(arrival, Timestamp::ZERO, u64::MAX, u64::MAX);
            assert_eq!(gcra.remaining(arrival, Timestamp::ZERO), 0);
            assert!(arrival < u64::MAX);
            let full = gcra.charge(0, at(1), MAX_TOKENS);
            assert_eq!(gcra.remaining(full, at(1)), 0);
            assert!(gcra.admit(full, gcra.units(at(1)), gcra.cost).is_none());
        }
        let slowest = Gcra::new(Quota::per(1, MAX_PERIOD));
        let arrival = slowest.charge(0, at(1), 1);
        assert_eq!(slowest.delay(arrival, at(1), 0, 1), MAX_PERIOD);
    }

    #[test]
    fn a_burst_of_many_years_is_earned_in_as_many() {
        // Ten million hours: in plain nanoseconds it would not fit.
        let gcra = Gcra::new(Quota::per_hour(1).burst(10_000_000));
        let empty = gcra.charge(0, at(1), 10_000_000);
        assert_eq!(gcra.remaining(empty, at(1)), 0);
        let hour = Duration::from_secs(3600);
        let wait = gcra.delay(empty, at(1), 0, 1);
        assert!(
            wait >= hour && wait < hour + Duration::from_millis(500),
            "{wait:?}"
        );
    }

    #[test]
    fn nothing_taken_is_nothing_changed() {
        let gcra = Gcra::new(Quota::per_second(10));
        let arrival = gcra.charge(0, at(1), 5);
        assert_eq!(gcra.charge(arrival, at(10_000_000_000), 0), arrival);
    }

    #[test]
    fn an_idle_cell_is_worth_a_fresh_one() {
        let gcra = Gcra::new(Quota::per_second(10).burst(5));
        let arrival = gcra.charge(0, at(1), 5);
        let later = at(10_000_000_000);
        assert_eq!(gcra.remaining(arrival, later), gcra.remaining(0, later));
        assert_eq!(gcra.reset_after(arrival, later), Duration::ZERO);
        assert_eq!(gcra.charge(arrival, later, 1), gcra.charge(0, later, 1));
    }

    #[test]
    fn units_can_start_anywhere() {
        let gcra = Gcra::new(Quota::per_second(10).burst(5)).starting(at(1000), 77);
        assert_eq!(gcra.units(at(3)), 77);
        assert_eq!(gcra.units(at(1000)), 77);
        let arrival = gcra.charge(0, at(1000), 6);
        let delay = gcra.delay(arrival, at(1000), 0, 1);
        assert_eq!(delay, Duration::from_millis(200));
        assert_eq!(
            gcra.reset_after(arrival, at(1000)),
            Duration::from_millis(600)
        );
    }
}
