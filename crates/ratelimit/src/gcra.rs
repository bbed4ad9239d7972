//! The generic cell rate algorithm, in exact arithmetic.
//!
//! GCRA (ITU-T I.371, 1996, as a "virtual scheduling algorithm"; also a leaky bucket as a meter)
//! keeps one number: the *theoretical arrival time*, at which the tokens given out so far would
//! have been earned at the quota's rate. A request is allowed if its tokens would be earned no
//! later than a full burst from now.
//!
//! Time is counted in units of `1 / tokens` nanoseconds. In these, a token is worth exactly
//! `period` nanoseconds' number of units, so there is nothing to round. With the limits of a
//! quota no product passes 2^105, and 128 bits hold all of them.

use std::time::Duration;

use overdrive_core::Timestamp;

use crate::quota::Quota;

/// A quota in the units of its own arithmetic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gcra {
    /// Units per nanosecond: the quota's tokens.
    scale: u128,
    /// Units per token: the nanoseconds of its period.
    cost: u128,
    /// Units of a full burst.
    tolerance: u128,
    burst: u64,
}

/// The state of one limited thing: its theoretical arrival time in units. What lies in the past
/// means the same as a fresh cell: nothing is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell(u128);

impl Gcra {
    /// For a quota that was validated.
    pub(crate) fn new(quota: Quota) -> Self {
        let cost = quota.period.as_nanos();
        Self {
            scale: u128::from(quota.tokens),
            cost,
            tolerance: cost * u128::from(quota.burst),
            burst: quota.burst,
        }
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }

    fn units(&self, time: Timestamp) -> u128 {
        u128::from(time.as_nanos()) * self.scale
    }

    /// The duration of that many units, rounded up.
    fn duration(&self, units: u128) -> Duration {
        let nanos = units.div_ceil(self.scale);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long `n` more tokens would have to wait behind what `cell` owes and `ahead` further
    /// tokens; zero if they are to be had now.
    pub(crate) fn delay(&self, cell: Cell, now: Timestamp, ahead: u64, n: u64) -> Duration {
        let now = self.units(now);
        let tokens = u128::from(ahead) + u128::from(n);
        let earned = cell.0.max(now) + tokens * self.cost;
        self.duration(earned.saturating_sub(now + self.tolerance))
    }

    /// What `cell` owes once `n` tokens were taken at `now`. None change nothing: a cell that lies
    /// in the past is due to those whose timers are late.
    pub(crate) fn charge(&self, cell: Cell, now: Timestamp, n: u64) -> Cell {
        if n == 0 {
            return cell;
        }
        Cell(cell.0.max(self.units(now)) + u128::from(n) * self.cost)
    }

    /// The whole tokens that are to be had now.
    pub(crate) fn remaining(&self, cell: Cell, now: Timestamp) -> u64 {
        let owed = cell.0.saturating_sub(self.units(now));
        let free = self.tolerance.saturating_sub(owed) / self.cost;
        u64::try_from(free).unwrap_or(u64::MAX)
    }

    /// How long until nothing is owed.
    pub(crate) fn reset_after(&self, cell: Cell, now: Timestamp) -> Duration {
        self.duration(cell.0.saturating_sub(self.units(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{MAX_PERIOD, MAX_TOKENS};

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_rate_is_exact_where_nanoseconds_per_token_are_not_whole() {
        // 600 million a second are 1.67 ns a token: rounded, the rate would be 67 % off.
        let gcra = Gcra::new(Quota::per_second(600_000_000).burst(2));
        let mut cell = Cell::default();
        let mut taken = 0;
        for nanos in 0..1000 {
            while gcra.delay(cell, at(nanos), 0, 1).is_zero() {
                cell = gcra.charge(cell, at(nanos), 1);
                taken += 1;
            }
        }
        // 999 ns at 0.6 tokens each, and the burst.
        assert_eq!(taken, 2 + 599);
    }

    #[test]
    fn a_delay_is_enough_and_not_too_much() {
        let gcra = Gcra::new(Quota::per(3, Duration::from_nanos(10)).burst(2));
        let cell = gcra.charge(Cell::default(), at(5), 2);
        let delay = gcra.delay(cell, at(5), 0, 1);
        assert_eq!(delay.as_nanos(), 4);
        assert!(!gcra.delay(cell, at(8), 0, 1).is_zero());
        assert!(gcra.delay(cell, at(9), 0, 1).is_zero());
    }

    #[test]
    fn the_extremes_fit() {
        let gcra = Gcra::new(Quota::per(MAX_TOKENS, MAX_PERIOD));
        let mut cell = Cell::default();
        for _ in 0..4 {
            cell = gcra.charge(cell, Timestamp::MAX, MAX_TOKENS);
        }
        let _fits = gcra.delay(cell, Timestamp::ZERO, u64::MAX, u64::MAX);
        assert_eq!(gcra.remaining(cell, Timestamp::ZERO), 0);
        assert_eq!(
            gcra.reset_after(cell, Timestamp::ZERO),
            Duration::from_nanos(u64::MAX)
        );
        let slowest = Gcra::new(Quota::per(1, MAX_PERIOD));
        let cell = slowest.charge(Cell::default(), at(1), 1);
        assert_eq!(slowest.delay(cell, at(1), 0, 1), MAX_PERIOD);
    }

    #[test]
    fn nothing_taken_is_nothing_changed() {
        let gcra = Gcra::new(Quota::per_second(10));
        let cell = gcra.charge(Cell::default(), at(1), 5);
        assert_eq!(gcra.charge(cell, at(10_000_000_000), 0), cell);
    }

    #[test]
    fn an_idle_cell_is_worth_a_fresh_one() {
        let gcra = Gcra::new(Quota::per_second(10).burst(5));
        let cell = gcra.charge(Cell::default(), at(1), 5);
        let later = at(10_000_000_000);
        assert_eq!(
            gcra.remaining(cell, later),
            gcra.remaining(Cell::default(), later)
        );
        assert_eq!(gcra.reset_after(cell, later), Duration::ZERO);
        assert_eq!(
            gcra.charge(cell, later, 1),
            gcra.charge(Cell::default(), later, 1)
        );
    }
}
