//! How fast items come, and how long handlers take: what [`Gather::Adaptive`] goes by.
//!
//! [`Gather::Adaptive`]: crate::Gather::Adaptive

use std::time::Duration;

use overdrive_core::Timestamp;

/// A new measurement counts for one in so many.
const SMOOTHING: u64 = 8;

/// Moving averages, exponentially weighted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Nanoseconds from one item to the next.
    gap: Option<u64>,
    /// Nanoseconds that a batch takes.
    run: Option<u64>,
    last: Option<Timestamp>,
}

impl Pace {
    /// A batch of that many items was taken.
    pub(super) fn taken(&mut self, items: usize, now: Timestamp) {
        if let Some(last) = self.last.replace(now) {
            let gap = nanos(now.saturating_since(last)) / (items as u64).max(1);
            self.gap = Some(smooth(self.gap, gap));
        }
    }

    /// A batch took that long.
    pub(super) fn ran(&mut self, time: Duration) {
        self.run = Some(smooth(self.run, nanos(time)));
    }

    /// How long a batch of `size` items is to be kept open: half of what its handler takes, if the
    /// batch is expected to double by then.
    ///
    /// The time since the last batch counts already. A handler that once took long keeps a lone
    /// submitter as long from coming, and would else be taken for a reason to wait for others.
    pub(super) fn linger(&self, size: usize, now: Timestamp, max_wait: Duration) -> Duration {
        let mut with_these = *self;
        with_these.taken(size, now);
        let (Some(gap), Some(run)) = (with_these.gap, self.run) else {
            return Duration::ZERO;
        };
        let wait = (run / 2).min(nanos(max_wait));
        let expected = wait / gap.max(1);
        if expected >= size as u64 {
            Duration::from_nanos(wait)
        } else {
            Duration::ZERO
        }
    }
}

fn smooth(old: Option<u64>, new: u64) -> u64 {
    match old {
        None => new,
        Some(old) => old - old / SMOOTHING + new / SMOOTHING,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// After a hundred batches, the last of them taken at 99 gaps.
    fn pace(gap: u64, run: u64) -> Pace {
        let mut pace = Pace::default();
        for batch in 0..100 {
            pace.taken(1, at(batch * gap));
            pace.ran(Duration::from_nanos(run));
        }
        pace
    }

    #[test]
    fn it_lingers_where_the_batch_will_double_and_else_not() {
        let wait = Duration::from_secs(1);
        assert_eq!(Pace::default().linger(1, at(0), wait), Duration::ZERO);
        // Ten more items in half of the handler's time.
        let (busy, next) = (pace(MS, 20 * MS), at(100 * MS));
        assert!(busy.linger(1, next, wait) >= Duration::from_millis(9));
        assert!(busy.linger(1, next, wait) <= Duration::from_millis(10));
        assert_eq!(busy.linger(50, next, wait), Duration::ZERO);
        assert_eq!(
            busy.linger(1, next, Duration::from_millis(3)),
            Duration::from_millis(3)
        );
        // Nobody has come for long.
        assert_eq!(busy.linger(1, at(400 * MS), wait), Duration::ZERO);
        // A lone submitter: the next item comes after this one's result.
        let lone = pace(21 * MS, 20 * MS);
        assert_eq!(lone.linger(1, at(100 * 21 * MS), wait), Duration::ZERO);
    }

    #[test]
    fn a_handler_that_once_took_long_makes_nobody_wait_for_others() {
        let mut lone = pace(2 * MS, MS);
        lone.ran(Duration::from_secs(1));
        let next = at(198 * MS + 1_000 * MS);
        assert_eq!(lone.linger(1, next, Duration::from_secs(1)), Duration::ZERO);
    }
}
