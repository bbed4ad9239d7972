//! A cell that threads share: one word, and the quota by which it is read.
//!
//! # Who may do what
//! 1. The word is the cell's arrival time, or [`TAKEN`].
//! 2. Anyone may replace an arrival time by the one that follows from charging it, in one
//!    compare-exchange. A denial writes nothing.
//! 3. The holder of the limiter's lock may *take* the word: it leaves [`TAKEN`], works on the time
//!    as its own, and puts one back. Who meets [`TAKEN`] has to go by the lock.
//! 4. The quota is only written while the word is taken, between two steps of `version`, the
//!    first to an odd number.
//! 5. No arrival time of one quota is ever one of a later quota (`base` grows, see
//!    [`SharedCell::change`]).
//!
//! 6. `denied_until` is a moment before which no check of one token is allowed, or zero. It is written
//!    by the holder of the lock only, who sets it to zero before it may lower the arrival time or
//!    change the quota. Everybody else only makes the arrival time later, so that it stays true.
//!
//! A check that read a mixture of two quotas therefore fails: either `version` has moved when it
//! looks again, or its arrival time belongs to the older quota, and the exchange does not find it.

use overdrive_core::Timestamp;

use crate::gcra::{Arrival, Gcra};
use crate::sync::{AtomicU64, Mutant, Ordering, fence, removed};

/// What a taken cell shows: further ahead than any arrival time.
pub(crate) const TAKEN: u64 = u64::MAX;

/// Where arrival times start anew once there is no room for more quotas above those before: a
/// charge would have to sleep through all of these to be mistaken.
pub(crate) const LAST_BASE: u64 = 1 << 62;

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct SharedCell {
    word: Word,
    version: AtomicU64,
    denied_until: AtomicU64,
    units: Units,
}

/// What a quota is read by, to be written under a version.
#[derive(Debug)]
pub(crate) struct Units {
    speed: AtomicU64,
    cost: AtomicU64,
    tolerance: AtomicU64,
    burst: AtomicU64,
    lost: AtomicU64,
    origin: AtomicU64,
    base: AtomicU64,
    end: AtomicU64,
}

impl Units {
    pub(crate) fn new(gcra: &Gcra) -> Self {
        Self {
            speed: AtomicU64::new(gcra.speed),
            cost: AtomicU64::new(gcra.cost),
            tolerance: AtomicU64::new(gcra.tolerance),
            burst: AtomicU64::new(gcra.burst),
            lost: AtomicU64::new(gcra.lost),
            origin: AtomicU64::new(gcra.origin),
            base: AtomicU64::new(gcra.base),
            end: AtomicU64::new(gcra.end),
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> Gcra {
        Gcra {
            speed: self.speed.load(Ordering::Relaxed),
            cost: self.cost.load(Ordering::Relaxed),
            tolerance: self.tolerance.load(Ordering::Relaxed),
            burst: self.burst.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            origin: self.origin.load(Ordering::Relaxed),
            base: self.base.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn store(&self, gcra: &Gcra) {
        for (part, value) in [
            (&self.speed, gcra.speed),
            (&self.cost, gcra.cost),
            (&self.tolerance, gcra.tolerance),
            (&self.burst, gcra.burst),
            (&self.lost, gcra.lost),
            (&self.origin, gcra.origin),
            (&self.base, gcra.base),
            (&self.end, gcra.end),
        ] {
            part.store(value, Ordering::Relaxed);
        }
    }
}

/// Alone on its line, so that readers of the quota do not wait for those who charge.
#[derive(Debug)]
#[repr(align(64))]
struct Word(AtomicU64);

/// The answer of a cell that nobody had taken.
#[derive(Debug)]
pub(crate) enum Answer {
    Allowed,
    Denied(Gcra, Arrival),
    ExceedsBurst(u64),
}

/// The cell is taken, or its quota is changing: ask the holder of the lock.
#[derive(Debug)]
pub(crate) struct Busy;

impl SharedCell {
    pub(crate) fn new(gcra: &Gcra) -> Self {
        Self {
            word: Word(AtomicU64::new(gcra.base)),
            version: AtomicU64::new(0),
            denied_until: AtomicU64::new(0),
            units: Units::new(gcra),
        }
    }

    /// How long one token is known to be out of reach; zero if that is not known.
    #[inline(always)]
    pub(crate) fn denied_for(&self, now: Timestamp) -> u64 {
        let until = self.denied_until.load(Ordering::Relaxed);
        until.saturating_sub(now.as_nanos())
    }

    /// For the holder of the lock, which has not taken the cell: remembers until when one token is out
    /// of reach.
    pub(crate) fn remember_denial(&self, now: Timestamp) {
        if let Ok((gcra, arrival)) = self.look() {
            let until = now.saturating_add(gcra.delay(arrival, now, 0, 1));
            self.denied_until.store(until.as_nanos(), Ordering::Relaxed);
        }
    }

    /// Takes `n` tokens, if they are there.
    #[inline(always)]
    pub(crate) fn check(&self, now: Timestamp, n: u64) -> Result<Answer, Busy> {
        let version = self.version.load(Ordering::Acquire);
        let gcra = self.units.load();
        let units = gcra.units(now);
        loop {
            // Acquire: if it is of a later quota, the look at the version below sees that.
            let arrival = self.word.0.load(Ordering::Acquire);
            fence(Ordering::Acquire);
            // Unequal if it was odd, too.
            let moved = self.version.load(Ordering::Relaxed) != version & !1;
            if moved && !removed(Mutant::TrustTheQuota) {
                return Err(Busy);
            }
            // A burst is at least one.
            if n > 1 && n > gcra.burst {
                return Ok(Answer::ExceedsBurst(gcra.burst));
            }
            // Within the burst, so it fits.
            let cost = n.wrapping_mul(gcra.cost);
            let Some(next) = gcra.admit(arrival, units, cost) else {
                if arrival == TAKEN {
                    return Err(Busy);
                }
                return Ok(Answer::Denied(gcra, arrival));
            };
            if self.replace(arrival, next) {
                return Ok(Answer::Allowed);
            }
        }
    }

    /// Takes up to `n` of the tokens that are there, and no more than a `share`th of them unless
    /// it is the last: how many.
    pub(crate) fn check_up_to(&self, now: Timestamp, n: u64, share: u64) -> Result<u64, Busy> {
        loop {
            let (gcra, arrival) = self.look()?;
            let there = gcra.remaining(arrival, now);
            let taken = n.min((there / share).max(1)).min(there);
            if taken == 0 {
                return Ok(0);
            }
            if self.replace(arrival, gcra.charge(arrival, now, taken)) {
                return Ok(taken);
            }
        }
    }

    #[inline(always)]
    fn replace(&self, arrival: Arrival, next: Arrival) -> bool {
        if removed(Mutant::StoreBlindly) {
            self.word.0.store(next, Ordering::Release);
            return true;
        }
        self.word
            .0
            .compare_exchange_weak(arrival, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// A quota and an arrival time that belong together, or did a moment ago.
    pub(crate) fn look(&self) -> Result<(Gcra, Arrival), Busy> {
        let version = self.version.load(Ordering::Acquire);
        let gcra = self.units.load();
        let arrival = self.word.0.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        let moved = version & 1 != 0 || self.version.load(Ordering::Relaxed) != version;
        if moved || arrival == TAKEN {
            return Err(Busy);
        }
        Ok((gcra, arrival))
    }

    /// For the holder of the lock, which must not have it.
    pub(crate) fn take(&self) -> Arrival {
        if !removed(Mutant::KeepTheDenial) {
            self.denied_until.store(0, Ordering::Relaxed);
        }
        let arrival = self.word.0.swap(TAKEN, Ordering::AcqRel);
        debug_assert_ne!(arrival, TAKEN, "taken once");
        arrival
    }

    /// For the one who took it.
    pub(crate) fn put(&self, arrival: Arrival) {
        debug_assert_ne!(arrival, TAKEN, "an arrival time is below the mark");
        self.word.0.store(arrival, Ordering::Release);
    }

    /// Another quota, for the one who took the word: with the units in which it is to be read.
    /// `before` and `arrival` are what it was; nothing ahead of a burst from now and of that was
    /// ever shown.
    pub(crate) fn change(
        &self,
        before: &Gcra,
        arrival: Arrival,
        next: &Gcra,
        now: Timestamp,
    ) -> Gcra {
        let ahead = before.units(now).saturating_add(before.tolerance);
        let shown = ahead.max(arrival).saturating_add(2);
        let base = match shown {
            _ if removed(Mutant::RepeatArrivals) => 0,
            shown if shown > LAST_BASE => 0,
            shown => shown,
        };
        let next = next.starting(now, base);
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.units.store(&next);
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
        next
    }
}
