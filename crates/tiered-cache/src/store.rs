//! Entries in order of use, with their expiry and tags. No locks, and of the user's code only
//! `Eq` of keys.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hashbrown::HashTable;
use overdrive_core::Timestamp;

use crate::garbage::Garbage;
use crate::options::Tag;
use crate::stats::Counts;

/// No slot: the end of the list.
const END: usize = usize::MAX;

/// What is to be stored.
pub(crate) struct New<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: V,
    /// At most the store's bound.
    pub(crate) weight: u64,
    pub(crate) now: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) tags: Box<[Tag]>,
}

struct Entry<K, V> {
    new: New<K, V>,
    /// Never given twice.
    id: u64,
    used: Timestamp,
    newer: usize,
    older: usize,
}

/// Why an entry leaves.
#[derive(Clone, Copy)]
enum Cause {
    Evicted,
    Expired,
    Removed,
    Replaced,
}

impl<K, V> Store<K, V> {
    /// Drops all entries, one by one; the store is not used after.
    pub(crate) fn abandon(&mut self) {
        let mut garbage = Garbage::new();
        for entry in self.slots.drain(..).flatten() {
            garbage.push(entry.new.key, entry.new.value);
        }
    }
}

pub(crate) struct Store<K, V> {
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<usize>,
    index: HashTable<usize>,
    tagged: HashMap<Tag, HashSet<usize>>,
    newest: usize,
    oldest: usize,
    weight: u64,
    max_weight: u64,
    idle: Option<Duration>,
    next_id: u64,
    pub(crate) counts: Counts,
}

impl<K: Eq, V> Store<K, V> {
    pub(crate) fn new(max_weight: u64, idle: Option<Duration>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            tagged: HashMap::new(),
            newest: END,
            oldest: END,
            weight: 0,
            max_weight,
            idle,
            next_id: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The value, which is now the newest.
    pub(crate) fn get<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: Timestamp,
        garbage: &mut Garbage<K, V>,
    ) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let Some(slot) = self.find_live(hash, key, now, garbage) else {
            self.counts.misses += 1;
            return None;
        };
        self.counts.hits += 1;
        if self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
        let entry = self.slots[slot].as_mut()?;
        // Whoever read the clock earlier may come later.
        entry.used = entry.used.max(now);
        Some(&entry.new.value)
    }

    /// The value; this does not count as use.
    pub(crate) fn peek<Q>(&self, hash: u64, key: &Q, now: Timestamp) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.find(hash, key)?;
        let entry = self.slots[slot].as_ref();
        entry
            .filter(|entry| self.is_live(entry, now))
            .map(|entry| &entry.new.value)
    }

    /// Stores it, evicting from the oldest on until there is room. The value that it replaces.
    pub(crate) fn insert(&mut self, new: New<K, V>, garbage: &mut Garbage<K, V>) -> Option<V> {
        let old = self.take(new.hash, &new.key, new.now, Cause::Replaced, garbage);
        while self.weight > self.max_weight - new.weight {
            self.discard(self.oldest, Cause::Evicted, garbage);
        }
        self.weight += new.weight;
        self.counts.inserted += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let hash = new.hash;
        for tag in &new.tags {
            self.tagged.entry(tag.clone()).or_default().insert(slot);
        }
        self.slots[slot] = Some(Entry {
            id: self.next_id,
            used: new.now,
            newer: END,
            older: END,
            new,
        });
        self.next_id += 1;
        self.link_newest(slot);
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |&slot| {
            slots[slot].as_ref().map_or(0, |entry| entry.new.hash)
        });
        old.map(|(key, value)| {
            garbage.push_key(key);
            value
        })
    }

    pub(crate) fn remove<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: Timestamp,
        garbage: &mut Garbage<K, V>,
    ) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.take(hash, key, now, Cause::Removed, garbage)
    }

    /// How many were removed.
    pub(crate) fn remove_tagged(&mut self, tag: &str, garbage: &mut Garbage<K, V>) -> usize {
        let slots = self.tagged.remove(tag).unwrap_or_default();
        for &slot in &slots {
            self.discard(slot, Cause::Removed, garbage);
        }
        slots.len()
    }

    pub(crate) fn clear(&mut self, garbage: &mut Garbage<K, V>) {
        while self.oldest != END {
            self.discard(self.oldest, Cause::Removed, garbage);
        }
        self.slots = Vec::new();
        self.free = Vec::new();
        self.index = HashTable::new();
    }

    pub(crate) fn purge(&mut self, now: Timestamp, garbage: &mut Garbage<K, V>) -> usize {
        let dead = |entry: &Entry<K, V>| !self.is_live(entry, now);
        let dead: Vec<usize> = self
            .occupied()
            .filter(|(_, e)| dead(e))
            .map(|e| e.0)
            .collect();
        for &slot in &dead {
            self.discard(slot, Cause::Expired, garbage);
        }
        dead.len()
    }

    /// Copies of all live entries, each with what [`remove_exact`](Self::remove_exact) wants.
    pub(crate) fn snapshot(&self, now: Timestamp) -> Vec<((usize, u64), K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.occupied()
            .filter(|(_, entry)| self.is_live(entry, now))
            .map(|(slot, e)| ((slot, e.id), e.new.key.clone(), e.new.value.clone()))
            .collect()
    }

    /// Removes that very entry; false if it is gone or another has taken its place.
    pub(crate) fn remove_exact(&mut self, at: (usize, u64), garbage: &mut Garbage<K, V>) -> bool {
        let entry = self.slots.get(at.0).and_then(Option::as_ref);
        let same = entry.is_some_and(|entry| entry.id == at.1);
        if same {
            self.discard(at.0, Cause::Removed, garbage);
        }
        same
    }

    fn occupied(&self) -> impl Iterator<Item = (usize, &Entry<K, V>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, entry)| entry.as_ref().map(|entry| (slot, entry)))
    }

    fn is_live(&self, entry: &Entry<K, V>, now: Timestamp) -> bool {
        let idle = self.idle.map(|idle| entry.used.saturating_add(idle));
        // The end of time is never reached, even by a clock that stands there.
        let before = |end: Timestamp| now < end || end == Timestamp::MAX;
        before(entry.new.expires) && idle.is_none_or(before)
    }

    fn find<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let is_it = |&slot: &usize| {
            let entry = self.slots[slot].as_ref();
            entry.is_some_and(|e| e.new.hash == hash && e.new.key.borrow() == key)
        };
        self.index.find(hash, is_it).copied()
    }

    /// The slot of a live entry; an expired one is discarded.
    fn find_live<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: Timestamp,
        garbage: &mut Garbage<K, V>,
    ) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.find(hash, key)?;
        let entry = self.slots[slot].as_ref();
        if entry.is_some_and(|entry| self.is_live(entry, now)) {
            return Some(slot);
        }
        self.discard(slot, Cause::Expired, garbage);
        None
    }

    fn take<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: Timestamp,
        cause: Cause,
        garbage: &mut Garbage<K, V>,
    ) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.find_live(hash, key, now, garbage)?;
        self.detach(slot, cause)
    }

    fn discard(&mut self, slot: usize, cause: Cause, garbage: &mut Garbage<K, V>) {
        if let Some((key, value)) = self.detach(slot, cause) {
            garbage.push(key, value);
        }
    }

    /// Takes the entry out of everything that knows it.
    fn detach(&mut self, slot: usize, cause: Cause) -> Option<(K, V)> {
        self.unlink(slot);
        let Entry { new, .. } = self.slots[slot].take()?;
        self.free.push(slot);
        if let Ok(found) = self.index.find_entry(new.hash, |&other| other == slot) {
            found.remove();
        }
        for tag in &new.tags {
            if let Some(slots) = self.tagged.get_mut(tag) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.tagged.remove(tag);
                }
            }
        }
        self.weight -= new.weight;
        let count = match cause {
            Cause::Evicted => &mut self.counts.evicted,
            Cause::Expired => &mut self.counts.expired,
            Cause::Removed => &mut self.counts.removed,
            Cause::Replaced => &mut self.counts.replaced,
        };
        *count += 1;
        Some((new.key, new.value))
    }

    fn unlink(&mut self, slot: usize) {
        let Some(entry) = &self.slots[slot] else {
            return;
        };
        let (newer, older) = (entry.newer, entry.older);
        match self.at(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.at(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        let second = self.newest;
        match self.at(second) {
            Some(entry) => entry.newer = slot,
            None => self.oldest = slot,
        }
        if let Some(entry) = self.at(slot) {
            (entry.newer, entry.older) = (END, second);
        }
        self.newest = slot;
    }

    fn at(&mut self, slot: usize) -> Option<&mut Entry<K, V>> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_comes_late_does_not_age_the_entry() {
        let at = Timestamp::from_nanos;
        let mut store = Store::new(1, Some(Duration::from_nanos(10)));
        let mut garbage = Garbage::new();
        let new = New {
            hash: 0,
            key: (),
            value: (),
            weight: 1,
            now: at(0),
            expires: Timestamp::MAX,
            tags: Box::default(),
        };
        assert!(store.insert(new, &mut garbage).is_none());
        for (now, live) in [(9, true), (5, true), (18, true), (28, false)] {
            let found = store.get(0, &(), at(now), &mut garbage);
            assert_eq!(found.is_some(), live, "{now}");
        }
    }
}
