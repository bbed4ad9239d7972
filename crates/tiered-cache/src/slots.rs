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
use crate::line::prefetch;

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
                Slot::Used(entry) if entry.key.borrow() == key => {
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

    /// Has the processor fetch what an insertion of this hash will touch.
    #[inline]
    pub(crate) fn look_ahead(&self, hash: u32) {
        self.history.prefetch(hash);
    }

    /// Has it fetch what the next insertion will touch: of those who will be judged then their
    /// index and history, and whoever comes after them. They themselves were fetched by the
    /// insertion before.
    #[inline]
    fn look_at_next(&self) {
        if let Some(entry) = self.entry(self.window.first) {
            self.index.prefetch(entry.hash);
            self.history.prefetch(entry.hash);
            self.prefetch(entry.next);
        }
        if let Some(entry) = self.entry(self.main.first) {
            self.history.prefetch(entry.hash);
            self.prefetch(entry.next);
        }
    }

    #[inline]
    fn prefetch(&self, slot: u32) {
        prefetch(self.slots.as_ptr().wrapping_add(slot as usize));
    }

    #[inline]
    pub(crate) fn has_extras(&self) -> bool {
        self.has_extras
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
        now.is_before(entry.end()) && !(self.has_extras && self.is_idle(slot, now))
    }

    /// Notes when it was used last: whether a new value is wanted.
    #[cold]
    pub(crate) fn touch_extra(&self, slot: u32, now: Tick) -> bool {
        let Some(extra) = self.extras.get(slot as usize) else {
            return false;
        };
        extra.touch(now);
        extra.stale <= now
    }

    #[cold]
    fn is_idle(&self, slot: u32, now: Tick) -> bool {
        let extra = self.extras.get(slot as usize).zip(self.idle);
        extra.is_some_and(|(extra, idle)| !now.is_before(extra.used().plus(idle)))
    }

    #[inline(always)]
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
    #[inline(always)]
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
        if settle {
            self.settle();
        }
        self.look_at_next();
        slot
    }

    #[inline(never)]
    fn settle(&mut self) {
        while self.window.weight > self.window_max {
            let Some(slot) = self.front(Region::Window) else {
                break;
            };
            self.note_uses(slot);
            self.promote(slot);
        }
    }

    /// Makes room for another slot, with little to spare once it has come to what is expected.
    #[inline(never)]
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
    #[inline(always)]
    pub(crate) fn evict(&mut self, now: Tick) -> Option<(Left<K, V>, bool)> {
        loop {
            if self.window.weight < self.window_max || self.window.weight == 0 {
                if let Some((victim, _, is_live)) = self.victim(now) {
                    return self.take_first(Region::Main, victim, is_live);
                }
            }
            let candidate = self.front(Region::Window)?;
            let entry = self.entry(candidate)?;
            let hash = entry.hash;
            if !self.is_live(candidate, entry, now) {
                return self.take_first(Region::Window, candidate, false);
            }
            let used = self.note_uses(candidate);
            let Some((victim, other, is_live)) = self.victim(now) else {
                if self.len() == 1 {
                    return self.take_first(Region::Window, candidate, true);
                }
                self.promote(candidate);
                continue;
            };
            if used || !is_live || self.history.prefers(hash, other) {
                self.promote(candidate);
                return self.take_first(Region::Main, victim, is_live);
            }
            return self.take_first(Region::Window, candidate, true);
        }
    }

    /// Moves the hand to the next entry that was not used since, or has expired: its slot, its
    /// hash, and whether it is live.
    #[inline(always)]
    fn victim(&mut self, now: Tick) -> Option<(u32, u32, bool)> {
        loop {
            let slot = self.front(Region::Main)?;
            let entry = self.entry(slot)?;
            let (hash, is_live) = (entry.hash, self.is_live(slot, entry, now));
            if !is_live || !self.take_use(slot) {
                return Some((slot, hash, is_live));
            }
            self.go_round(slot, hash);
        }
    }

    #[inline(always)]
    fn take_use(&mut self, slot: u32) -> bool {
        let entry = self.slots[slot as usize].entry_mut();
        entry.is_some_and(Entry::take_use)
    }

    fn go_round(&mut self, slot: u32, hash: u32) {
        self.history.count(hash, 1);
        let weight = self.weight_of(slot);
        self.pop(Region::Main, weight);
        self.push(Region::Main, slot, weight);
    }

    /// Whether it was used since it came.
    #[inline(always)]
    fn note_uses(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots[slot as usize].entry_mut() else {
            return false;
        };
        let (hash, uses) = (entry.hash, entry.take_uses());
        if uses > 0 {
            self.history.count(hash, uses);
        }
        uses > 0
    }

    /// From the front of the window to the end of the main queue.
    fn promote(&mut self, slot: u32) {
        let weight = self.weight_of(slot);
        self.pop(Region::Window, weight);
        self.push(Region::Main, slot, weight);
    }

    /// Takes out the entry at the front of a queue, whose slot is free then.
    #[inline(always)]
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
    #[inline(always)]
    fn queue(&mut self, region: Region) -> &mut Queue {
        match region {
            Region::Window => &mut self.window,
            Region::Main => &mut self.main,
        }
    }

    #[inline(always)]
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
    #[inline(always)]
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
    #[inline(always)]
    fn front(&mut self, region: Region) -> Option<u32> {
        let first = self.queue(region).first;
        match self.slots.get(first as usize)? {
            Slot::Used(_) => Some(first),
            _ => self.free_to_front(region),
        }
    }

    #[cold]
    fn free_to_front(&mut self, region: Region) -> Option<u32> {
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
