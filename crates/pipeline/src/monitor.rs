//! Watching a pipeline from outside, and ending it.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

/// The figures of a [`Pipeline`](crate::Pipeline), from its [`Monitor`] while it runs and from
/// its end.
///
/// `received` is what the source gave. Of that, `in_flight` is still on its way. A pipeline
/// without stages that filter, expand or collect delivers or fails each of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineStats {
    /// Items that the source gave.
    pub received: u64,
    /// Results that the sink took.
    pub delivered: u64,
    /// Items that a stage, or the sink, refused with an error.
    pub failed: u64,
    /// Items in whose stage, or in the sink, there was a panic.
    pub panicked: u64,
    /// Items that were on their way when the pipeline ended early, by an error, a panic, a
    /// cancellation or its drop; or that it never took out of its channel.
    pub abandoned: u64,
    /// Items of the source of which something is on its way now.
    pub in_flight: u64,
    /// The most that there ever were.
    pub peak_in_flight: u64,
}

/// What the parts of a pipeline count together.
#[derive(Default)]
pub(crate) struct Watch {
    received: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    abandoned: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
    cancelled: AtomicBool,
    /// How many items the source may still give before its driver looks around.
    budget: AtomicUsize,
    /// Whether it was used up, and the driver woken for that.
    paused: AtomicBool,
    /// Of whoever drives the pipeline.
    driver: Mutex<Option<Waker>>,
}

impl Watch {
    /// How many items the source may give from now on.
    pub(crate) fn allow(&self, items: usize) {
        self.budget.store(items, Ordering::Relaxed);
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Whether the source gives nothing only because the driver is to look around, which it will.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether the source may give an item now. If not, nobody needs to be told when it may: the
    /// driver learns of the items in flight that leave, and of the cancellation; and a budget that
    /// is used up wakes it.
    pub(crate) fn admits(&self, bound: u64, context: &Context<'_>) -> bool {
        if self.in_flight() >= bound || self.is_cancelled() {
            return false;
        }
        let left = self.budget.load(Ordering::Relaxed);
        if left == 0 {
            self.paused.store(true, Ordering::Relaxed);
            context.waker().wake_by_ref();
            return false;
        }
        // Only the driver's thread changes it.
        self.budget.store(left - 1, Ordering::Relaxed);
        true
    }

    /// The source gave an item: its number.
    pub(crate) fn enter(&self) -> u64 {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.store(now, Ordering::Relaxed);
        }
        count(&self.received)
    }

    /// Nothing is left of an item.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered(&self) {
        count(&self.delivered);
    }

    pub(crate) fn failed(&self) {
        count(&self.failed);
    }

    pub(crate) fn panicked(&self) {
        count(&self.panicked);
    }

    pub(crate) fn abandon(&self, items: u64) {
        self.abandoned.fetch_add(items, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Who is to be woken by a cancellation.
    pub(crate) fn driven_by(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let old = driver.replace(waker);
        drop(driver);
        drop(old);
    }

    /// It is over: a monitor that is kept keeps nobody's waker.
    pub(crate) fn driven_by_nobody(&self) {
        drop(self.take_driver());
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(waker) = self.take_driver() {
            waker.wake();
        }
    }

    fn take_driver(&self) -> Option<Waker> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        driver.take()
    }

    pub(crate) fn stats(&self) -> PipelineStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PipelineStats {
            received: get(&self.received),
            delivered: get(&self.delivered),
            failed: get(&self.failed),
            panicked: get(&self.panicked),
            abandoned: get(&self.abandoned),
            in_flight: get(&self.in_flight),
            peak_in_flight: get(&self.peak),
        }
    }
}

/// One more of what only the driver counts, so that it needs no atomic addition: how many before.
fn count(of: &AtomicU64) -> u64 {
    let before = of.load(Ordering::Relaxed);
    of.store(before + 1, Ordering::Relaxed);
    before
}

/// A handle to a pipeline that is about to run, or runs: its figures, and its end. From
/// [`Pipeline::monitor`](crate::Pipeline::monitor).
#[derive(Clone)]
pub struct Monitor {
    pub(crate) name: Cow<'static, str>,
    pub(crate) watch: Arc<Watch>,
}

impl Monitor {
    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        self.watch.stats()
    }

    /// Ends the pipeline before its source does: its run returns
    /// [`PipelineError::Cancelled`](crate::PipelineError::Cancelled) once the stages that are
    /// at work have returned. What is on its way then is dropped, and counted as abandoned.
    ///
    /// A source or a sink that blocks is not interrupted.
    pub fn cancel(&self) {
        self.watch.cancel();
    }

    /// The name of the pipeline at the time the monitor was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("name", &self.name)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
