//! Storing a value, and making room for it.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::budget::Spare;
use crate::cache::{Cache, Hashed};
use crate::entry::Tick;
use crate::flight::Flight;
use crate::garbage::{Cause, Garbage};
use crate::lock::WriteGuard;
use crate::options::{Tags, Ttl};
use crate::rejected::Rejected;
use crate::slots::{Left, New};
use crate::state::{Shard, State};
use crate::sync::thread;

/// What is to be stored.
pub(crate) struct Value<V> {
    pub(crate) value: V,
    pub(crate) weight: u64,
    pub(crate) ttl: Ttl,
    pub(crate) tags: Tags,
}

/// A value that is to be stored, and what is known of it under the lock.
struct Coming<'a, K, V> {
    hashed: Hashed,
    new: New<K, V>,
    tags: Tags,
    has_life: bool,
    spare: Spare<'a>,
}

/// Since when a value is on its way.
pub(crate) enum Begun<'a, V> {
    /// It supersedes what is being made for its key.
    Now,
    /// It was made by this flight, and is superseded if that is no longer in the table, or one of
    /// its tags was invalidated meanwhile.
    Flight(&'a Arc<Flight<V>>),
}

pub(crate) enum Put<K, V> {
    /// And the value that it replaced.
    Stored(Option<V>),
    /// It would have expired at once; and the value that was removed.
    NoLife(Option<V>),
    Superseded,
    TooHeavy(Rejected<K, V>),
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    pub(crate) fn put(
        &self,
        hashed: Hashed,
        key: K,
        value: Value<V>,
        begun: Begun<'_, V>,
        garbage: &mut Garbage<'_, K, V>,
    ) -> Put<K, V> {
        let (weight, ttl, tags) = (value.weight, value.ttl, value.tags);
        if let Ttl::After(_) = ttl {
            if !self.inner.timed.load(Ordering::Relaxed) {
                self.inner.timed.store(true, Ordering::Relaxed);
            }
        }
        let (now, end) = self.times(ttl);
        let stale = self
            .inner
            .refresh
            .map_or(Tick::NEVER, |ticks| now.plus(ticks));
        let new = New {
            key,
            value: value.value,
            hash: hashed.key,
            end,
            weight,
            now,
            stale,
        };
        let has_life = !ttl.is_zero();
        let mut coming = Coming {
            hashed,
            new,
            tags,
            has_life,
            spare: Spare::none(&self.inner.budget),
        };
        let shard = self.shard(hashed);
        let mut state = shard.state.write();
        let is_plain = matches!(begun, Begun::Now)
            && state.flights.is_empty()
            && has_life
            && weight <= self.inner.budget.max();
        if is_plain {
            state.slots.look_ahead(hashed.key);
            if state.slots.find(hashed.key, &coming.new.key).is_none() {
                let spare = &mut coming.spare.weight;
                let room = self.make_room(&mut state, weight, spare, now, garbage);
                if room != Room::Lacking {
                    self.settle(state, coming, room, garbage);
                    return Put::Stored(None);
                }
            }
        }
        self.put_further(shard, state, coming, begun, garbage)
    }

    /// Stores it under a key that is not here, in room that was made for it.
    #[inline(always)]
    fn settle(
        &self,
        mut state: WriteGuard<'_, State<K, V>>,
        coming: Coming<'_, K, V>,
        room: Room,
        garbage: &mut Garbage<'_, K, V>,
    ) {
        let Coming {
            new,
            tags,
            mut spare,
            ..
        } = coming;
        spare.weight -= new.weight;
        if self.inner.timed.load(Ordering::Relaxed) {
            if let Some(slot) = state.slots.sweep(new.now) {
                spare.weight += state.discard(slot, Cause::Expired, garbage);
            }
        }
        let hash = new.hash;
        let slot = state.slots.insert(new, room == Room::Free);
        state.stored(slot, hash, tags);
        drop(state);
    }

    /// As [`put`](Self::put), whatever there is under its key, or on its way there.
    #[inline(never)]
    fn put_further(
        &self,
        shard: &Shard<K, V>,
        state: WriteGuard<'_, State<K, V>>,
        mut coming: Coming<'_, K, V>,
        begun: Begun<'_, V>,
        garbage: &mut Garbage<'_, K, V>,
    ) -> Put<K, V> {
        let (hashed, has_life) = (coming.hashed, coming.has_life);
        let (weight, now) = (coming.new.weight, coming.new.now);
        let mut replaced: Option<Left<K, V>> = None;
        // Outlives the lock.
        let mut under_way: Option<Arc<Flight<V>>> = None;
        let mut first = Some(state);
        loop {
            drop(under_way.take());
            let mut state = first.take().unwrap_or_else(|| shard.state.write());
            if !begun.is_current(&state, hashed, &coming.new.key) || begun.is_outdated(&coming.tags)
            {
                drop(state);
                garbage.push_left(replaced, Cause::Replaced);
                garbage.push_both(coming.new.key, coming.new.value);
                return Put::Superseded;
            }
            let max = self.inner.budget.max();
            // All comparisons come before all changes, in case one panics.
            under_way = state.flights.get(hashed.whole(), &coming.new.key).cloned();
            let (live, dead) = state.find(hashed.key, &coming.new.key, now);
            if let Some(slot) = dead {
                coming.spare.weight += state.discard(slot, Cause::Expired, garbage);
            }
            if !has_life || weight > max {
                end(&mut state, hashed, under_way.as_ref(), garbage);
                state.counts.rejected += u64::from(has_life);
                let old = live.and_then(|slot| state.detach(slot, Cause::Removed));
                coming.spare.weight += old.as_ref().map_or(0, |old| old.weight);
                drop(state);
                // Before the listener hears of anything: it may want room itself.
                coming.spare.give();
                garbage.push_left(replaced, Cause::Replaced);
                if has_life {
                    garbage.push_left(old, Cause::Removed);
                    return Put::TooHeavy(Rejected::TooHeavy {
                        key: coming.new.key,
                        value: coming.new.value,
                        weight,
                        max,
                    });
                }
                garbage.push_both(coming.new.key, coming.new.value);
                return Put::NoLife(old.map(|old| {
                    garbage.tell(&old.key, &old.value, Cause::Removed);
                    garbage.push_key(old.key);
                    old.value
                }));
            }
            if let Some(slot) = live {
                let old_weight = state.slots.extra(slot).map_or(1, |extra| extra.weight);
                let lacks = weight.saturating_sub(old_weight + coming.spare.weight);
                if lacks == 0 || self.inner.budget.take(lacks) {
                    coming.spare.weight += lacks;
                    end(&mut state, hashed, under_way.as_ref(), garbage);
                    let old = state.slots.replace(slot, coming.new);
                    coming.spare.weight = coming.spare.weight + old_weight - weight;
                    state.stored(slot, hashed.key, coming.tags);
                    state.counts.replaced += 1;
                    drop(state);
                    coming.spare.give();
                    return Put::Stored(old.map(|(key, value)| {
                        garbage.tell(&key, &value, Cause::Replaced);
                        garbage.push_key(key);
                        value
                    }));
                }
                // It needs more room than the old one leaves, which goes first.
                garbage.push_left(replaced, Cause::Replaced);
                replaced = state.detach(slot, Cause::Replaced);
                coming.spare.weight += replaced.as_ref().map_or(0, |old| old.weight);
            }
            let room = self.make_room(&mut state, weight, &mut coming.spare.weight, now, garbage);
            if room == Room::Lacking {
                drop(state);
                // Who waits holds nothing that another one waits for.
                coming.spare.give();
                coming.spare.weight = self.make_room_elsewhere(hashed, weight, now, garbage);
                continue;
            }
            end(&mut state, hashed, under_way.as_ref(), garbage);
            self.settle(state, coming, room, garbage);
            return Put::Stored(replaced.map(|old| {
                garbage.tell(&old.key, &old.value, Cause::Replaced);
                garbage.push_key(old.key);
                old.value
            }));
        }
    }

    /// Gets from the bound, or from entries of this shard, what is lacking.
    ///
    /// A shard that has little gives none of it, nor does any give much at once: the others have as
    /// much to choose from.
    #[inline(always)]
    fn make_room(
        &self,
        state: &mut State<K, V>,
        weight: u64,
        spare: &mut u64,
        now: Tick,
        garbage: &mut Garbage<'_, K, V>,
    ) -> Room {
        let lacks = weight.saturating_sub(*spare);
        let has_slot = !state.slots.is_full();
        if has_slot && (lacks == 0 || self.inner.budget.take(lacks)) {
            *spare += lacks;
            return Room::Free;
        }
        let own = state.slots.weight();
        let alone = self.inner.shards.len() == 1 || !has_slot;
        if alone || (self.has_enough(state) && lacks <= own / 8 + 1) {
            if lacks > 1 {
                *spare += self.inner.budget.take_some(lacks);
            }
            let mut evicted = false;
            while *spare < weight || (!has_slot && !evicted) {
                let Some(freed) = state.evict(now, garbage) else {
                    break;
                };
                *spare += freed;
                evicted = true;
            }
        }
        let lacks = weight.saturating_sub(*spare);
        if lacks > 0 && !self.inner.budget.take(lacks) {
            return Room::Lacking;
        }
        *spare += lacks;
        Room::Made
    }

    /// Whether a shard has entries to choose from, or half of its part of the weight.
    fn has_enough(&self, state: &State<K, V>) -> bool {
        let half = self.inner.budget.max() / (2 * self.inner.shards.len() as u64);
        state.slots.len() >= 8 || state.slots.weight() > half
    }

    /// Gets so much from all shards in turn, and takes it; nothing, if there is not so much in
    /// all.
    ///
    /// One at a time: two that each had half of what they need would wait for each other.
    fn make_room_elsewhere(
        &self,
        hashed: Hashed,
        weight: u64,
        now: Tick,
        garbage: &mut Garbage<'_, K, V>,
    ) -> u64 {
        let spread = self.inner.spread.lock();
        let _spread = spread.unwrap_or_else(PoisonError::into_inner);
        let shards = &self.inner.shards;
        let budget = &self.inner.budget;
        let part = weight.div_ceil(shards.len() as u64);
        let mut spare = 0;
        for round in 0_u64.. {
            let before = spare;
            // Not always with the same one, which would give more than the others.
            let (before_own, from_own) = shards.split_at(self.shard_at(hashed));
            for shard in from_own.iter().chain(before_own) {
                spare += budget.take_some(weight.saturating_sub(spare));
                if spare >= weight {
                    return spare;
                }
                let mut state = shard.state.write();
                if round == 0 && !self.has_enough(&state) {
                    continue;
                }
                let mut freed = 0;
                while freed < part && spare + freed < weight {
                    match state.evict(now, garbage) {
                        Some(more) => freed += more,
                        None => break,
                    }
                }
                spare += freed;
            }
            if spare >= weight {
                return spare;
            }
            if weight > budget.max() {
                break;
            }
            if spare == before {
                // What is lacking is with others, who are about to store it or to give it back.
                thread::yield_now();
            }
        }
        budget.give(spare);
        0
    }

    fn times(&self, ttl: Ttl) -> (Tick, Tick) {
        if !self.inner.timed.load(Ordering::Relaxed) {
            return (Tick::ZERO, Tick::NEVER);
        }
        let now = self.inner.clock.now();
        let end = match ttl {
            Ttl::After(life) => Tick::end(now.saturating_add(life)),
            Ttl::Forever => Tick::NEVER,
        };
        (Tick::now(now), end)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Room {
    /// There was some, or others made it.
    Free,
    /// Entries of this shard went for it.
    Made,
    Lacking,
}

impl<V> Begun<'_, V> {
    fn is_current<K: Eq>(&self, state: &State<K, V>, hashed: Hashed, key: &K) -> bool {
        let Self::Flight(flight) = self else {
            return true;
        };
        #[cfg(test)]
        if !state.guards.fence.is_in_place() {
            return true;
        }
        let current = state.flights.get(hashed.whole(), key);
        current.is_some_and(|current| Arc::ptr_eq(current, flight))
    }

    /// Whether one of its tags was invalidated since.
    fn is_outdated(&self, tags: &Tags) -> bool {
        match self {
            Self::Now => false,
            Self::Flight(flight) => {
                let tags = tags.as_ref();
                tags.is_some_and(|tags| flight.is_outdated(tags))
            }
        }
    }
}

/// Something is about to be stored: what else is being made for its key will not be.
fn end<K: Eq, V>(
    state: &mut State<K, V>,
    hashed: Hashed,
    under_way: Option<&Arc<Flight<V>>>,
    garbage: &mut Garbage<'_, K, V>,
) {
    let Some(under_way) = under_way else {
        return;
    };
    let is_it = |flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, under_way);
    if let Some((key, _)) = state.flights.remove_where(hashed.whole(), is_it) {
        garbage.push_key(key);
    }
}
