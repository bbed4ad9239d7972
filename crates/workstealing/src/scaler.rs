//! How many workers there should be.

use std::fmt;
use std::time::Duration;

/// What is known of a pool at one look, for a [`Scaler`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// The time since the last look.
    pub interval: Duration,
    /// The worker threads there are.
    pub workers: usize,
    /// Those of them that are in [`blocking`](crate::blocking()), and so do not count.
    pub blocked: usize,
    /// Those that sleep.
    pub idle: usize,
    /// The least number of workers.
    pub min: usize,
    /// The largest.
    pub max: usize,
    /// Tasks that wait.
    pub queued: u64,
    /// Tasks that ended in the interval.
    pub completed: u64,
    /// The share of its processors, or of the quota of its container, that the process has used.
    /// `None` where that cannot be known.
    pub cpu: Option<f64>,
}

/// Decides how many workers a pool should have. It is asked at an interval while there is work, and
/// is a pure function of what it was told, so it can be tested without threads.
///
/// Its answer is cut to the pool's bounds. Workers that are missing are started; none is ended for
/// it: that takes an [idle timeout](crate::ThreadPoolBuilder::idle_timeout).
pub trait Scaler: Send + 'static {
    /// The number of workers that there should be, those that block not counted.
    fn decide(&mut self, sample: &Sample) -> usize;
}

impl fmt::Debug for dyn Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scaler")
    }
}

/// Adds workers while tasks wait too long, and more processors could be used.
///
/// The delay of a task is estimated from what waits and what ended in the interval. Beyond the
/// target on two looks in a row it adds a quarter of the workers; if tasks wait and none ended, as
/// when all workers block, it doubles them. It never adds any while the processors are used up and
/// nobody blocks: that would only add switches. If throughput has not risen by 5 % on the third
/// look after it added some, it adds none for a hundred looks.
#[derive(Clone, Copy, Debug)]
pub struct QueueDelay {
    target: Duration,
    late: u32,
    /// Throughput before the last addition, and looks since.
    added: Option<(f64, u32)>,
    hold: u32,
}

/// Share of the processors from which on more workers are of no use.
const SATURATED: f64 = 0.95;
const HOLD: u32 = 100;

impl QueueDelay {
    /// With that target of the delay.
    #[must_use]
    pub const fn new(target: Duration) -> Self {
        Self {
            target,
            late: 0,
            added: None,
            hold: 0,
        }
    }

    fn is_late(&self, sample: &Sample) -> bool {
        let per_task = sample.interval.as_secs_f64() / sample.completed.max(1) as f64;
        let delay = sample.queued as f64 * per_task;
        sample.idle == 0
            && sample.queued > 0
            && (sample.completed == 0 || delay > self.target.as_secs_f64())
    }
}

impl Default for QueueDelay {
    /// A target of 5 milliseconds.
    fn default() -> Self {
        Self::new(Duration::from_millis(5))
    }
}

impl Scaler for QueueDelay {
    fn decide(&mut self, sample: &Sample) -> usize {
        let able = sample.workers.saturating_sub(sample.blocked);
        let throughput = sample.completed as f64 / sample.interval.as_secs_f64().max(1e-9);
        self.hold = self.hold.saturating_sub(1);
        if let Some((before, looks)) = &mut self.added {
            *looks += 1;
            if *looks == 3 {
                if throughput < *before * 1.05 && sample.completed > 0 {
                    self.hold = HOLD;
                }
                self.added = None;
            }
        }
        let is_late = self.is_late(sample);
        self.late = if is_late { self.late + 1 } else { 0 };
        let saturated = sample.blocked == 0 && sample.cpu.is_some_and(|cpu| cpu >= SATURATED);
        let stalled = sample.completed == 0;
        // One addition at a time: what it brought is to be seen first.
        let waiting = self.hold > 0 || self.added.is_some();
        if self.late < 2 || saturated || (waiting && !stalled) {
            return able;
        }
        let more = if stalled { able } else { able / 4 };
        let wanted = usize::try_from(sample.queued).unwrap_or(usize::MAX);
        if !stalled {
            self.late = 0;
            self.added = Some((throughput, 0));
        }
        able.saturating_add(more.max(1).min(wanted))
            .clamp(sample.min, sample.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    /// A pool of so many workers, all busy.
    fn busy(workers: usize, queued: u64, completed: u64, cpu: f64) -> Sample {
        Sample {
            interval: TICK,
            workers,
            min: 2,
            max: 10,
            queued,
            completed,
            cpu: Some(cpu),
            ..Sample::default()
        }
    }

    #[test]
    fn a_storm_of_blocking_tasks_has_its_workers_within_five_looks() {
        let mut scaler = QueueDelay::default();
        let mut workers = 2;
        for look in 0..5 {
            let free = 8_u64.saturating_sub(workers as u64 - 2);
            workers = scaler
                .decide(&busy(workers, free + 8, 0, 0.05))
                .max(workers);
            assert!(workers <= 10, "look {look}");
        }
        assert_eq!(workers, 10);
    }

    #[test]
    fn no_worker_is_added_while_the_processors_are_used_up() {
        let mut scaler = QueueDelay::default();
        for _ in 0..1000 {
            assert_eq!(scaler.decide(&busy(4, 100_000, 10, 0.99)), 4);
        }
        let blocked = Sample {
            blocked: 2,
            ..busy(4, 100_000, 10, 0.99)
        };
        assert_eq!(scaler.decide(&blocked), 3, "half of them do nothing");
    }

    /// Tasks that wait on something outside, ten milliseconds each: a worker ends one per look.
    #[test]
    fn constant_load_is_met_without_going_back_and_forth() {
        let mut scaler = QueueDelay::default();
        let (mut workers, mut queued) = (2_u64, 0_u64);
        let mut changes = 0;
        for _ in 0..1000 {
            queued += 6;
            let done = queued.min(workers);
            queued -= done;
            let sample = Sample {
                idle: usize::from(done < workers),
                ..busy(workers as usize, queued, done, 0.1)
            };
            let decided = scaler.decide(&sample) as u64;
            assert!(decided >= workers, "it never asks for fewer");
            changes += u32::from(decided > workers);
            workers = decided;
        }
        assert!((6..=10).contains(&workers), "{workers}");
        assert!(changes <= 8 && queued < 100, "{changes} {queued}");
    }

    #[test]
    fn what_did_not_help_is_not_done_again_for_a_while() {
        let mut scaler = QueueDelay::default();
        let mut workers = 4;
        let mut grew = Vec::new();
        for look in 0..90 {
            let decided = scaler.decide(&busy(workers, 1000, 8, 0.5));
            if decided > workers {
                grew.push(look);
            }
            workers = decided;
        }
        assert!(grew.len() <= 2, "{grew:?}");
    }

    #[test]
    fn an_idle_pool_is_left_alone() {
        let mut scaler = QueueDelay::default();
        for _ in 0..10 {
            let sample = Sample {
                idle: 1,
                ..busy(3, 0, 0, 0.0)
            };
            assert_eq!(scaler.decide(&sample), 3);
        }
    }
}
