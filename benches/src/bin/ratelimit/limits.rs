//! What none can do without: a reading of the clock and one shared word.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::scenarios::{Check, Permits, Rate};

/// Reads the cheapest precise clock; counts who is allowed, looks who is denied.
pub(crate) struct ClockAndWord {
    clock: quanta::Clock,
    word: AtomicU64,
    rate: Rate,
}

impl Check for ClockAndWord {
    fn new(rate: Rate) -> Self {
        let (clock, word) = (quanta::Clock::new(), AtomicU64::new(0));
        Self { clock, word, rate }
    }

    #[inline(always)]
    fn check(&self) -> bool {
        let now = self.clock.raw();
        match self.rate {
            Rate::Billion => self.word.fetch_add(1, Ordering::Relaxed) < now,
            Rate::Exhausted => self.word.load(Ordering::Relaxed) > now,
        }
    }
}

/// Counts up and down.
pub(crate) struct Counter(AtomicUsize);

impl Permits for Counter {
    fn new(_: usize) -> Self {
        Self(AtomicUsize::new(0))
    }

    #[inline(always)]
    fn acquire_and_release(&self) -> bool {
        self.0.fetch_add(1, Ordering::Acquire);
        self.0.fetch_sub(1, Ordering::Release) > 0
    }
}
