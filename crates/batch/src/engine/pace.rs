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
    pub(super) fn linger(&self, size: usize, max_wait: Duration) -> Duration {
        let (Some(gap), Some(run)) = (self.gap, self.run) else {
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

    fn pace(gap: u64, run: u64) -> Pace {
        let mut pace = Pace::default();
        for batch in 0..100 {
            pace.taken(
                1,
                Timestamp::ZERO.saturating_add(Duration::from_nanos(batch * gap)),
            );
            pace.ran(Duration::from_nanos(run));
        }
        pace
    }

    #[test]
    fn it_lingers_where_the_batch_will_double_and_else_not() {
        let wait = Duration::from_secs(1);
        assert_eq!(Pace::default().linger(1, wait), Duration::ZERO);
        // Ten more items in half of the handler's time.
        let busy = pace(MS, 20 * MS);
        assert!(busy.linger(1, wait) >= Duration::from_millis(9));
        assert!(busy.linger(1, wait) <= Duration::from_millis(10));
        assert_eq!(busy.linger(50, wait), Duration::ZERO);
        assert_eq!(
            busy.linger(1, Duration::from_millis(3)),
            Duration::from_millis(3)
        );
        // A lone submitter: the next item comes after this one's result.
        let lone = pace(21 * MS, 20 * MS);
        assert_eq!(lone.linger(1, wait), Duration::ZERO);
    }
}
