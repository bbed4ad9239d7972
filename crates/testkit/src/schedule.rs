//! Events in simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use overdrive_core::Timestamp;
use overdrive_core::clock::ManualClock;

/// Events at points in simulated time, to be stepped through on a [`ManualClock`].
///
/// Each step moves the clock to the event's time. Events at the same time come in an order that
/// the seed decides, the same for the same seed, so that a test can try several.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::Clock;
/// use overdrive_core::clock::ManualClock;
/// use overdrive_testkit::Schedule;
///
/// let clock = ManualClock::new();
/// let mut schedule = Schedule::seeded(1);
/// schedule.at(Duration::from_secs(2), "refill").at(Duration::from_secs(1), "call");
/// let mut seen = Vec::new();
/// while let Some((now, event)) = schedule.next(&clock) {
///     assert_eq!(now, clock.now());
///     seen.push(event);
/// }
/// assert_eq!(seen, ["call", "refill"]);
/// ```
#[derive(Clone, Debug)]
pub struct Schedule<E> {
    // Unique by the last part; ordered by time, then by chance.
    events: BTreeMap<(Timestamp, u64, u64), E>,
    random: fastrand::Rng,
    added: u64,
}

impl<E> Schedule<E> {
    /// An empty schedule.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            events: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            added: 0,
        }
    }

    /// Adds an event that long after the clock's origin. One in the past comes next.
    pub fn at(&mut self, after: Duration, event: E) -> &mut Self {
        self.at_timestamp(Timestamp::ZERO.saturating_add(after), event)
    }

    /// Adds an event at that moment.
    pub fn at_timestamp(&mut self, moment: Timestamp, event: E) -> &mut Self {
        self.added += 1;
        let key = (moment, self.random.u64(..), self.added);
        self.events.insert(key, event);
        self
    }

    /// Adds `n` events, each at a random time before `end`.
    pub fn scatter(&mut self, n: usize, end: Duration, mut event: impl FnMut(usize) -> E) {
        let end = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX).max(1);
        for i in 0..n {
            let moment = Timestamp::from_nanos(self.random.u64(..end));
            self.at_timestamp(moment, event(i));
        }
    }

    /// Takes the next event and moves `clock` to its time.
    pub fn next(&mut self, clock: &ManualClock) -> Option<(Timestamp, E)> {
        let ((moment, _, _), event) = self.events.pop_first()?;
        clock.advance_to(moment);
        Some((overdrive_core::Clock::now(clock), event))
    }

    /// Events left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Vec<usize> {
        let clock = ManualClock::new();
        let mut schedule = Schedule::seeded(seed);
        for i in 0..8 {
            schedule.at(Duration::from_secs(1), i);
        }
        schedule.scatter(20, Duration::from_secs(3), |i| 8 + i);
        let mut last = Timestamp::ZERO;
        let mut events = Vec::new();
        while let Some((now, event)) = schedule.next(&clock) {
            assert!(now >= last);
            last = now;
            events.push(event);
        }
        assert!(schedule.is_empty());
        events
    }

    #[test]
    fn the_seed_decides_and_time_orders() {
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn events_may_be_added_while_stepping() {
        let clock = ManualClock::new();
        let mut schedule = Schedule::seeded(0);
        schedule.at(Duration::from_secs(5), 1);
        assert_eq!(schedule.next(&clock).unwrap().1, 1);
        schedule.at(Duration::from_secs(2), 2);
        let (now, event) = schedule.next(&clock).unwrap();
        assert_eq!((now.as_nanos(), event), (5_000_000_000, 2));
    }
}
