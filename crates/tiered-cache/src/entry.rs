//! What a shard keeps of an entry, in as few bytes as it takes.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use overdrive_core::Timestamp;

/// No slot: the end of a list.
pub(crate) const END: u32 = u32::MAX;
/// The most uses that an entry notes between two looks at it.
const MOST_USES: u8 = 3;

/// A moment, in steps of 2^14 ns (16.4 us), in 48 bits: 146 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) const ZERO: Self = Self(0);
    /// The end of what has none. No clock ever gets there.
    pub(crate) const NEVER: Self = Self((1 << 48) - 1);

    pub(crate) fn now(at: Timestamp) -> Self {
        Self((at.as_nanos() >> 14).min(Self::NEVER.0 - 1))
    }

    /// The end of something; rounded down, so that nothing lives too long.
    pub(crate) fn end(at: Timestamp) -> Self {
        Self((at.as_nanos() >> 14).min(Self::NEVER.0))
    }

    /// How many steps that is; at least one.
    pub(crate) fn count(time: Duration) -> u64 {
        u64::try_from(time.as_nanos() >> 14)
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Whether an end is still to come.
    #[inline]
    pub(crate) fn is_before(self, end: Self) -> bool {
        self < end || end == Self::NEVER
    }

    /// How long after that moment it is; `None` for ever.
    pub(crate) fn since(self, earlier: Self) -> Option<Duration> {
        let ticks = self.0.saturating_sub(earlier.0);
        (self != Self::NEVER).then(|| Duration::from_nanos(ticks << 14))
    }

    pub(crate) fn plus(self, ticks: u64) -> Self {
        Self(self.0.saturating_add(ticks).min(Self::NEVER.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Window,
    Main,
}

pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u32,
    pub(crate) next: u32,
    end_low: u32,
    end_high: u16,
    uses: AtomicU8,
    pub(crate) region: Region,
}

impl<K, V> Entry<K, V> {
    /// In the window, last of it.
    pub(crate) fn new(key: K, value: V, hash: u32, end: Tick, uses: u8) -> Self {
        let mut entry = Self {
            key,
            value,
            hash,
            next: END,
            end_low: 0,
            end_high: 0,
            uses: AtomicU8::new(uses),
            region: Region::Window,
        };
        entry.set_end(end);
        entry
    }

    pub(crate) fn end(&self) -> Tick {
        Tick(u64::from(self.end_high) << 32 | u64::from(self.end_low))
    }

    pub(crate) fn set_end(&mut self, end: Tick) {
        self.end_low = end.0 as u32;
        self.end_high = (end.0 >> 32) as u16;
    }

    /// Notes a use. Readers at the same moment may note one together; most find it noted often
    /// enough, and write nothing.
    #[inline]
    pub(crate) fn touch(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }

    /// Takes the noted uses.
    pub(crate) fn take_uses(&mut self) -> u8 {
        std::mem::take(self.uses.get_mut())
    }

    /// Takes one of the noted uses.
    pub(crate) fn take_use(&mut self) -> bool {
        let uses = self.uses.get_mut();
        *uses = match uses.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// What only some caches keep of an entry.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) weight: u64,
    pub(crate) used: AtomicU64,
    /// From when on a new value is wanted.
    pub(crate) stale: Tick,
}

impl Extra {
    pub(crate) fn used(&self) -> Tick {
        Tick(self.used.load(Ordering::Relaxed))
    }

    /// Whoever read the clock earlier may come later.
    pub(crate) fn touch(&self, now: Tick) {
        if self.used() < now {
            self.used.store(now.0, Ordering::Relaxed);
        }
    }

    pub(crate) fn new(weight: u64, now: Tick, stale: Tick) -> Self {
        let used = AtomicU64::new(now.0);
        Self {
            weight,
            used,
            stale,
        }
    }
}

/// A place for an entry.
pub(crate) enum Slot<K, V> {
    Used(Entry<K, V>),
    /// Its entry is gone, but a list still leads through it, to that slot.
    Hole(u32),
    Free,
}

impl<K, V> Slot<K, V> {
    #[inline]
    pub(crate) fn entry(&self) -> Option<&Entry<K, V>> {
        match self {
            Self::Used(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn entry_mut(&mut self) -> Option<&mut Entry<K, V>> {
        match self {
            Self::Used(entry) => Some(entry),
            _ => None,
        }
    }
}

/// A queue through the slots.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) weight: u64,
}

impl Queue {
    pub(crate) const EMPTY: Self = Self {
        first: END,
        last: END,
        weight: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_two_words_takes_two_more() {
        assert_eq!(size_of::<Slot<u64, u64>>(), 32);
    }

    #[test]
    fn ends_are_kept_to_the_step() {
        for nanos in [0, 1, 16_384, 1 << 40, u64::MAX] {
            let end = Tick::end(Timestamp::from_nanos(nanos));
            let entry = Entry::new((), (), 0, end, 0);
            assert_eq!(entry.end(), end);
        }
        let never = Tick::end(Timestamp::MAX);
        assert!(never == Tick::NEVER && Tick::now(Timestamp::MAX) < never);
    }
}
