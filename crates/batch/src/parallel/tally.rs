//! The figures of parallel batches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How far one call of a [`ParallelBatch`](crate::ParallelBatch) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The batch's name.
    pub name: &'a str,
    /// Items of this call that have ended, with a result or without.
    pub done: usize,
    /// Those of them that have none: an error, a panic.
    pub failed: usize,
    /// Items of this call, if its iterator says so beforehand, as that of a slice does.
    pub total: Option<usize>,
}

/// The figures of a [`ParallelBatch`](crate::ParallelBatch). At rest
/// `begun = completed + failed + panicked + dropped`, otherwise `begun` is more: the difference is in
/// work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParallelBatchStats {
    /// Items that the function was called with.
    pub begun: u64,
    /// Items with a result.
    pub completed: u64,
    /// Items with an error of their own.
    pub failed: u64,
    /// Items that panicked, in [`process_collect`](crate::ParallelBatch::process_collect).
    pub panicked: u64,
    /// Items whose future was dropped: by another's error or panic, or with the whole. So are those
    /// that panicked in another call than `process_collect`.
    pub dropped: u64,
}

pub(super) type Observer = dyn Fn(&Progress<'_>) + Send + Sync;

#[derive(Debug, Default)]
pub(super) struct Counts {
    begun: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> ParallelBatchStats {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        // What was begun last: so it is never less than what has ended.
        ParallelBatchStats {
            completed: read(&self.completed),
            failed: read(&self.failed),
            panicked: read(&self.panicked),
            dropped: read(&self.dropped),
            begun: read(&self.begun),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Completed,
    Failed,
    Panicked,
}

impl Verdict {
    pub(super) fn of<R, E>(result: &Result<R, E>) -> Self {
        match result {
            Ok(_) => Self::Completed,
            Err(_) => Self::Failed,
        }
    }
}

/// The figures of one call. What was begun and has not ended when it goes, was dropped.
///
/// One task at a time uses it, so its own numbers need no read-modify-write; they are atomic for
/// the call's future to be `Send`.
pub(super) struct Tally<'a> {
    name: &'a str,
    counts: &'a Counts,
    on_progress: Option<&'a Observer>,
    total: Option<usize>,
    begun: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl<'a> Tally<'a> {
    pub(super) fn new(
        name: &'a str,
        counts: &'a Counts,
        on_progress: Option<&'a Observer>,
        items: &impl Iterator,
    ) -> Self {
        let (least, most) = items.size_hint();
        let zero = || AtomicUsize::new(0);
        Self {
            name,
            counts,
            on_progress,
            total: most.filter(|&most| most == least),
            begun: zero(),
            done: zero(),
            failed: zero(),
        }
    }

    pub(super) fn begin(&self) {
        add_one(&self.begun);
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, verdict: Verdict) {
        let counts = self.counts;
        let count = match verdict {
            Verdict::Completed => &counts.completed,
            Verdict::Failed => &counts.failed,
            Verdict::Panicked => &counts.panicked,
        };
        count.fetch_add(1, Ordering::Release);
        let done = add_one(&self.done);
        let failed = match verdict {
            Verdict::Completed => self.failed.load(Ordering::Relaxed),
            Verdict::Failed | Verdict::Panicked => add_one(&self.failed),
        };
        if let Some(observe) = self.on_progress {
            observe(&Progress {
                name: self.name,
                done,
                failed,
                total: self.total,
            });
        }
    }
}

fn add_one(number: &AtomicUsize) -> usize {
    let sum = number.load(Ordering::Relaxed) + 1;
    number.store(sum, Ordering::Relaxed);
    sum
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let dropped = *self.begun.get_mut() - *self.done.get_mut();
        if dropped > 0 {
            let dropped = dropped as u64;
            self.counts.dropped.fetch_add(dropped, Ordering::Release);
        }
    }
}
