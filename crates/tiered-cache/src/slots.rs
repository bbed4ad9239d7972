//! The entries of a shard, and which of them goes.
//!
//! New entries pass a small window, first in, first out. At its end one that was used there, or
//! that was turned away shortly before, moves on to the main queue, and so does one that came
//! more often lately than the entry that would have to go for it; others are turned away. The
//! main queue is a clock: an entry that was used since the hand came by stays for another round
//! for each use, up to three. It keeps the entry at the hand until one is better, which is what
//! keeps a part of a loop that is larger than the cache.
//!
//! After S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023) and TinyLFU (Einziger, Friedman,
//! Manes, ACM ToS 2017). `tests/support/policy.rs` says it in few lines.

use std::borrow::Borrow;

use crate::entry::{END, Entry, Extra, Queue, Region, Slot, Tick};
use crate::history::History;
use crate::index::{Index, MAX_SLOTS};

/// The part of the weight that the window has.
pub(crate) const WINDOW: u64 = 16;

/// What is to be stored.
pub(crate) struct New<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u32,
    pub(crate) end: Tick,
    pub(crate) weight: u64,
    pub(crate) now: Tick,
    pub(crate) stale: Tick,
}

/// What left, and what it weighed.
pub(crate) struct Left<K, V> {
    pub(crate) slot: u32,
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) weight: u64,
}

#[repr(C)]
pub(crate) struct Slots<K, V> {
    index: Index,
    slots: Vec<Slot<K, V>>,
    has_extras: bool,
    /// One for each slot, or none at all.
    extras: Vec<Extra>,
    free: Vec<u32>,
    holes: usize,
    history: History,
    window: Queue,
    main: Queue,
    window_max: u64,
    /// How many entries it may come to.
    expected: usize,
    /// In ticks.
    idle: Option<u64>,
    /// Where the search for expired entries goes on.
    sweep: usize,
}

/// The part of a shard in what bounds a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) weight: u64,
    /// `MAX_SLOTS` if weights leave it open.
    pub(crate) entries: usize,
}

impl<K, V> Slots<K, V> {
    pub(crate) fn new(share: Share, has_extras: bool, idle: Option<u64>) -> Self {
        let expected = share.entries.min(MAX_SLOTS);
        Self {
            slots: Vec::new(),
            extras: Vec::new(),
            has_extras,
            free: Vec::new(),
            holes: 0,
            index: Index::new(expected),
            history: History::new(expected),
            window: Queue::EMPTY,
            main: Queue::EMPTY,
            window_max: (share.weight / WINDOW).max(1),
            expected,
            idle,
            sweep: 0,
        }
    }

    /// Its part is another from now on.
    pub(crate) fn resize(&mut self, share: Share) {
        self.expected = share.entries.min(MAX_SLOTS);
        self.index.expect(self.expected);
        if self.history.max() != self.expected {
            self.history.reset(self.expected);
            self.history.fit(self.len());
        }
        self.window_max = (share.weight / WINDOW).max(1);
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.window.weight + self.main.weight
    }

    #[inline]
    pub(crate) fn find<Q>(&self, hash: u32, key: &Q) -> Option<(u32, &Entry<K, V>)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut found = None;
        self.index
            .find(hash, |slot| match &self.slots[slot as usize] {
                Slot::Used(entry) if entry.hash == hash && entry.key.borrow() == key => {
                    found = Some((slot, entry));
                    true
                }
                _ => false,
            });
        found
    }

    pub(crate) fn entry(&self, slot: u32) -> Option<&Entry<K, V>> {
        self.slots.get(slot as usize)?.entry()
    }

    #[inline]
    pub(crate) fn extra(&self, slot: u32) -> Option<&Extra> {
        if !self.has_extras {
            return None;
        }
        self.extras.get(slot as usize)
    }

    #[inline]
    pub(crate) fn is_live(&self, slot: u32, entry: &Entry<K, V>, now: Tick) -> bool {
        let is_before = |end: Tick| now < end || end == Tick::NEVER;
        let idle = || {
            let extra = self.extra(slot)?;
            Some(extra.used().plus(self.idle?))
        };
        is_before(entry.end()) && idle().is_none_or(is_before)
    }

    fn weight_of(&self, slot: u32) -> u64 {
        self.extra(slot).map_or(1, |extra| extra.weight)
    }

    /// All live entries.
    pub(crate) fn live(&self, now: Tick) -> impl Iterator<Item = (u32, &Entry<K, V>)> {
        let used = (0..).zip(&self.slots);
        let used = used.filter_map(|(slot, place)| Some(slot).zip(place.entry()));
        used.filter(move |&(slot, entry)| self.is_live(slot, entry, now))
    }

    /// Slots of entries that are not live.
    pub(crate) fn expired(&self, now: Tick) -> Vec<u32> {
        let used = (0..).zip(&self.slots);
        let used = used.filter_map(|(slot, place)| Some(slot).zip(place.entry()));
        let dead = used.filter(|&(slot, entry)| !self.is_live(slot, entry, now));
        dead.map(|(slot, _)| slot).collect()
    }

    /// One of the next two slots, if it holds an expired entry.
    pub(crate) fn sweep(&mut self, now: Tick) -> Option<u32> {
        for _ in 0..2.min(self.slots.len()) {
            self.sweep = (self.sweep + 1) % self.slots.len();
            let slot = self.sweep as u32;
            if (self.entry(slot)).is_some_and(|entry| !self.is_live(slot, entry, now)) {
                return Some(slot);
            }
        }
        None
    }

    /// Whether no slot can be added.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= MAX_SLOTS && self.free.is_empty()
    }

    /// Stores it under a key that is not here. `settle`: nothing had to go for it.
    pub(crate) fn insert(&mut self, new: New<K, V>, settle: bool) -> u32 {
        self.history.fit(self.len() + 1);
        let returns = self.history.arrive(new.hash);
        let entry = Entry::new(new.key, new.value, new.hash, new.end, u8::from(returns));
        let extra = Extra::new(new.weight, new.now, new.stale);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Slot::Used(entry);
                if self.has_extras {
                    self.extras[slot as usize] = extra;
                }
                slot
            }
            None => {
                self.grow();
                self.slots.push(Slot::Used(entry));
                if self.has_extras {
                    self.extras.push(extra);
                }
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let hash_of = |slot: u32| slots[slot as usize].entry().map_or(0, |entry| entry.hash);
        self.index.insert(new.hash, slot, hash_of);
        self.push(Region::Window, slot, new.weight);
        while settle && self.window.weight > self.window_max {
            let Some(slot) = self.front(Region::Window) else {
                break;
            };
            self.note_uses(slot);
            self.promote(slot);
        }
        slot
    }

    /// Makes room for another slot, with little to spare once it has come to what is expected.
    fn grow(&mut self) {
        let len = self.slots.len();
        if len < self.slots.capacity() {
            return;
        }
        let more = if len < self.expected {
            len.clamp(16, self.expected.max(16))
                .min((self.expected - len).max(16))
        } else {
            len / 64 + 16
        };
        self.slots.reserve_exact(more);
        if self.has_extras {
            self.extras.reserve_exact(more);
        }
    }

    /// Gives the entry at a slot another value, and its own back.
    pub(crate) fn replace(&mut self, slot: u32, new: New<K, V>) -> Option<(K, V)> {
        let entry = self.slots.get_mut(slot as usize)?.entry_mut()?;
        let value = std::mem::replace(&mut entry.value, new.value);
        entry.set_end(new.end);
        entry.touch();
        let queue = match entry.region {
            Region::Window => &mut self.window,
            Region::Main => &mut self.main,
        };
        if let Some(extra) = self.extras.get_mut(slot as usize) {
            queue.weight = queue.weight - extra.weight + new.weight;
            *extra = Extra::new(new.weight, new.now, new.stale);
        }
        Some((new.key, value))
    }

    /// Chooses an entry that goes, the least useful one, and takes it out.
    pub(crate) fn evict(&mut self, now: Tick) -> Option<(Left<K, V>, bool)> {
        loop {
            if self.window.weight < self.window_max || self.window.weight == 0 {
                if let Some((victim, is_live)) = self.victim(now) {
                    return self.take_first(Region::Main, victim, is_live);
                }
            }
            let candidate = self.front(Region::Window)?;
            if !self.is_live_at(candidate, now) {
                return self.take_first(Region::Window, candidate, false);
            }
            let (hash, used) = self.note_uses(candidate);
            let Some((victim, is_live)) = self.victim(now) else {
                if self.len() == 1 {
                    return self.take_first(Region::Window, candidate, true);
                }
                self.promote(candidate);
                continue;
            };
            if used || !is_live || self.is_better(hash, victim) {
                self.promote(candidate);
                return self.take_first(Region::Main, victim, is_live);
            }
            self.history.note(hash);
            return self.take_first(Region::Window, candidate, true);
        }
    }

    fn is_better(&self, candidate: u32, victim: u32) -> bool {
        let victim = self.entry(victim).map_or(0, |victim| victim.hash);
        self.history.frequency(candidate) > self.history.frequency(victim).max(1)
    }

    fn is_live_at(&self, slot: u32, now: Tick) -> bool {
        self.entry(slot)
            .is_some_and(|entry| self.is_live(slot, entry, now))
    }

    /// Moves the hand to the next entry that was not used since, or has expired: whether it is
    /// live.
    fn victim(&mut self, now: Tick) -> Option<(u32, bool)> {
        loop {
            let slot = self.front(Region::Main)?;
            if !self.is_live_at(slot, now) {
                return Some((slot, false));
            }
            let entry = self.slots[slot as usize].entry_mut()?;
            if !entry.take_use() {
                return Some((slot, true));
            }
            self.history.count(entry.hash, 1);
            let weight = self.weight_of(slot);
            self.pop(Region::Main, weight);
            self.push(Region::Main, slot, weight);
        }
    }

    /// Its hash, and whether it was used since it came.
    fn note_uses(&mut self, slot: u32) -> (u32, bool) {
        let Some(entry) = self.slots[slot as usize].entry_mut() else {
            return (0, false);
        };
        let (hash, uses) = (entry.hash, entry.take_uses());
        self.history.count(hash, uses);
        (hash, uses > 0)
    }

    /// From the front of the window to the end of the main queue.
    fn promote(&mut self, slot: u32) {
        let weight = self.weight_of(slot);
        self.pop(Region::Window, weight);
        self.push(Region::Main, slot, weight);
    }

    /// Takes out the entry at the front of a queue, whose slot is free then.
    fn take_first(&mut self, queue: Region, slot: u32, live: bool) -> Option<(Left<K, V>, bool)> {
        let weight = self.weight_of(slot);
        self.pop(queue, weight);
        let place = std::mem::replace(&mut self.slots[slot as usize], Slot::Free);
        let Slot::Used(Entry {
            key, value, hash, ..
        }) = place
        else {
            return None;
        };
        self.free.push(slot);
        self.index.remove(hash, slot);
        let left = Left {
            slot,
            key,
            value,
            weight,
        };
        Some((left, live))
    }

    /// Takes out any entry. Its slot stays a hole until its queue has come to it.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Left<K, V>> {
        let weight = self.weight_of(slot);
        let entry = self.entry(slot)?;
        let (hole, region) = (Slot::Hole(entry.next), entry.region);
        let Slot::Used(entry) = std::mem::replace(&mut self.slots[slot as usize], hole) else {
            return None;
        };
        self.queue(region).weight -= weight;
        self.index.remove(entry.hash, slot);
        self.holes += 1;
        if self.holes > self.slots.len() / 4 + 16 {
            self.compact();
        }
        Some(Left {
            slot,
            key: entry.key,
            value: entry.value,
            weight,
        })
    }

    /// Takes out all, and forgets all.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        let slots = std::mem::take(&mut self.slots);
        self.extras = Vec::new();
        self.free = Vec::new();
        self.holes = 0;
        self.sweep = 0;
        self.index.clear();
        self.history.reset(self.history.max());
        (self.window, self.main) = (Queue::EMPTY, Queue::EMPTY);
        slots.into_iter().filter_map(|slot| match slot {
            Slot::Used(entry) => Some((entry.key, entry.value)),
            _ => None,
        })
    }
}

/// The queues.
impl<K, V> Slots<K, V> {
    fn queue(&mut self, region: Region) -> &mut Queue {
        match region {
            Region::Window => &mut self.window,
            Region::Main => &mut self.main,
        }
    }

    fn push(&mut self, region: Region, slot: u32, weight: u64) {
        let queue = self.queue(region);
        let last = std::mem::replace(&mut queue.last, slot);
        queue.weight += weight;
        if last == END {
            queue.first = slot;
        }
        if let Some(entry) = self.slots[slot as usize].entry_mut() {
            (entry.next, entry.region) = (END, region);
        }
        match self.slots.get_mut(last as usize) {
            Some(Slot::Used(entry)) => entry.next = slot,
            Some(Slot::Hole(next)) => *next = slot,
            _ => {}
        }
    }

    /// Takes the entry at the front out of the queue.
    fn pop(&mut self, region: Region, weight: u64) {
        let first = self.queue(region).first;
        let next = self.entry(first).map_or(END, |entry| entry.next);
        let queue = self.queue(region);
        queue.weight -= weight;
        queue.first = next;
        if next == END {
            queue.last = END;
        }
    }

    /// The entry at the front; holes before it are freed.
    fn front(&mut self, region: Region) -> Option<u32> {
        loop {
            let first = self.queue(region).first;
            match *self.slots.get(first as usize)? {
                Slot::Used(_) => return Some(first),
                Slot::Free => return None,
                Slot::Hole(next) => {
                    self.free_hole(first);
                    let queue = self.queue(region);
                    queue.first = next;
                    if next == END {
                        queue.last = END;
                    }
                }
            }
        }
    }

    fn free_hole(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
        self.free.push(slot);
        self.holes -= 1;
    }

    /// Takes the holes out of both queues.
    fn compact(&mut self) {
        for region in [Region::Window, Region::Main] {
            let queue = std::mem::replace(self.queue(region), Queue::EMPTY);
            let mut at = queue.first;
            loop {
                match self.slots.get(at as usize) {
                    Some(Slot::Used(entry)) => {
                        let next = entry.next;
                        self.push(region, at, 0);
                        at = next;
                    }
                    Some(&Slot::Hole(next)) => {
                        self.free_hole(at);
                        at = next;
                    }
                    _ => break,
                }
            }
            self.queue(region).weight = queue.weight;
        }
    }
}
