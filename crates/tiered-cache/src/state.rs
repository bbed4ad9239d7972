//! What a shard's lock guards.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::entry::Tick;
use crate::flight::Flight;
use crate::garbage::{Cause, Garbage};
use crate::lock::Lock;
use crate::options::{self, Tag};
use crate::slots::{Left, Share, Slots};
use crate::stats::Counts;
use crate::table::Table;

/// A part of a cache. No two share a line of memory, nor the line beside it.
#[repr(align(128))]
pub(crate) struct Shard<K, V> {
    pub(crate) state: Lock<State<K, V>>,
}

/// What look-ups read comes first, beside the lock.
#[repr(C)]
pub(crate) struct State<K, V> {
    pub(crate) slots: Slots<K, V>,
    tags: Tags,
    /// The values being made, by key. Taking one out of here does not end it, but what it makes
    /// is not stored then.
    pub(crate) flights: Table<K, Arc<Flight<V>>>,
    pub(crate) watches: Watches,
    pub(crate) counts: Counts,
    #[cfg(test)]
    pub(crate) guards: crate::controls::Guards,
}

#[derive(Default)]
struct Tags {
    slots: HashMap<Tag, HashSet<u32>>,
    of: HashMap<u32, Box<[Tag]>>,
}

impl Tags {
    #[inline]
    fn set(&mut self, slot: u32, tags: options::Tags) {
        self.forget(slot);
        if let Some(tags) = tags {
            self.note(slot, tags);
        }
    }

    #[cold]
    fn note(&mut self, slot: u32, tags: Box<[Tag]>) {
        for tag in &tags {
            self.slots.entry(tag.clone()).or_default().insert(slot);
        }
        self.of.insert(slot, tags);
    }

    #[inline]
    fn forget(&mut self, slot: u32) {
        if !self.of.is_empty() {
            self.take_out(slot);
        }
    }

    #[cold]
    fn take_out(&mut self, slot: u32) {
        for tag in self.of.remove(&slot).unwrap_or_default() {
            if let Some(slots) = self.slots.get_mut(&tag) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.slots.remove(&tag);
                }
            }
        }
    }
}

/// Those who look at copies of entries, and want to know whether these are still what is here.
#[derive(Default)]
pub(crate) struct Watches {
    watches: Vec<Watch>,
    next: u64,
}

struct Watch {
    id: u64,
    /// Of which key; all without.
    hash: Option<u32>,
    changed: HashSet<u32>,
}

impl Watches {
    pub(crate) fn begin(&mut self, hash: Option<u32>) -> u64 {
        self.next += 1;
        self.watches.push(Watch {
            id: self.next,
            hash,
            changed: HashSet::new(),
        });
        self.next
    }

    /// The slots of what was stored since.
    pub(crate) fn end(&mut self, id: u64) -> HashSet<u32> {
        let at = self.watches.iter().position(|watch| watch.id == id);
        at.map_or_else(HashSet::new, |at| self.watches.swap_remove(at).changed)
    }

    #[inline]
    fn note(&mut self, slot: u32, hash: u32) {
        for watch in &mut self.watches {
            if watch.hash.is_none_or(|of| of == hash) {
                watch.changed.insert(slot);
            }
        }
    }
}

impl<K, V> Shard<K, V> {
    pub(crate) fn new(share: Share, has_extras: bool, idle: Option<u64>) -> Self {
        Self {
            state: Lock::new(State {
                slots: Slots::new(share, has_extras, idle),
                tags: Tags::default(),
                flights: Table::default(),
                watches: Watches::default(),
                counts: Counts::default(),
                #[cfg(test)]
                guards: crate::controls::Guards::default(),
            }),
        }
    }
}

impl<K, V> State<K, V> {
    /// A value has just been stored at a slot.
    #[inline(always)]
    pub(crate) fn stored(&mut self, slot: u32, hash: u32, tags: options::Tags) {
        self.tags.set(slot, tags);
        self.watches.note(slot, hash);
        self.counts.inserted += 1;
    }

    /// The value of an entry has just been changed.
    pub(crate) fn changed(&mut self, slot: u32, hash: u32) {
        self.watches.note(slot, hash);
        self.counts.inserted += 1;
        self.counts.replaced += 1;
    }

    /// An entry is out of its slot: settles what else knows of it.
    #[inline(always)]
    pub(crate) fn gone(&mut self, slot: u32, cause: Cause) {
        self.tags.forget(slot);
        let count = match cause {
            Cause::Evicted => &mut self.counts.evicted,
            Cause::Expired => &mut self.counts.expired,
            Cause::Removed => &mut self.counts.removed,
            Cause::Replaced => &mut self.counts.replaced,
        };
        *count += 1;
    }

    /// Evicts one. What it weighed.
    #[inline(never)]
    pub(crate) fn evict(&mut self, now: Tick, garbage: &mut Garbage<'_, K, V>) -> Option<u64> {
        let (left, is_live) = self.slots.evict(now)?;
        let cause = if is_live {
            Cause::Evicted
        } else {
            Cause::Expired
        };
        self.gone(left.slot, cause);
        garbage.push(left.key, left.value, cause);
        Some(left.weight)
    }

    /// Takes the entry out.
    pub(crate) fn detach(&mut self, slot: u32, cause: Cause) -> Option<Left<K, V>> {
        let left = self.slots.remove(slot)?;
        self.gone(slot, cause);
        Some(left)
    }

    /// Takes the entry out and throws it away. What it weighed.
    pub(crate) fn discard(
        &mut self,
        slot: u32,
        cause: Cause,
        garbage: &mut Garbage<'_, K, V>,
    ) -> u64 {
        self.detach(slot, cause).map_or(0, |left| {
            garbage.push(left.key, left.value, cause);
            left.weight
        })
    }

    /// Takes the tagged out. How many, and what they weighed. What is being made will not be stored
    /// under this tag.
    pub(crate) fn discard_tagged(
        &mut self,
        tag: &str,
        garbage: &mut Garbage<'_, K, V>,
    ) -> (usize, u64) {
        for flight in self.flights.values() {
            flight.outdate(tag);
        }
        if self.tags.of.is_empty() {
            return (0, 0);
        }
        let slots = self.tags.slots.remove(tag).unwrap_or_default();
        let discard = |&slot: &u32| self.discard(slot, Cause::Removed, garbage);
        (slots.len(), slots.iter().map(discard).sum())
    }

    /// Takes all out. What they weighed.
    pub(crate) fn clear(&mut self, garbage: &mut Garbage<'_, K, V>) -> u64 {
        let weight = self.slots.weight();
        self.counts.removed += self.slots.len() as u64;
        self.tags = Tags::default();
        for (key, value) in self.slots.clear() {
            garbage.push(key, value, Cause::Removed);
        }
        weight
    }

    /// The tags of an entry.
    pub(crate) fn tags(&self, slot: u32) -> Vec<Tag> {
        let tags = self.tags.of.get(&slot);
        tags.map_or_else(Vec::new, |tags| tags.to_vec())
    }

    /// The slot of a live entry, and that of one whose time is over.
    #[inline]
    pub(crate) fn find<Q>(&self, hash: u32, key: &Q, now: Tick) -> (Option<u32>, Option<u32>)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        match self.slots.find(hash, key) {
            Some((slot, entry)) if self.slots.is_live(slot, entry, now) => (Some(slot), None),
            Some((slot, _)) => (None, Some(slot)),
            None => (None, None),
        }
    }
}
