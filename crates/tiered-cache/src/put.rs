//! Storing a value, and making room for it.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::budget::Spare;
use crate::cache::{Cache, Hashed};
use crate::entry::Tick;
use crate::flight::Flight;
use crate::garbage::{Cause, Garbage};
use crate::options::{Tag, Ttl};
use crate::rejected::Rejected;
use crate::slots::{Left, New};
use crate::state::State;
use crate::sync::thread;

/// What is to be stored.
pub(crate) struct Value<V> {
    pub(crate) value: V,
    pub(crate) weight: u64,
    pub(crate) ttl: Ttl,
    pub(crate) tags: Box<[Tag]>,
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
        let shard = self.shard(hashed);
        // Weight that is taken, and not yet anybody's.
        let mut spare = Spare::none(&self.inner.budget);
        let mut replaced: Option<Left<K, V>> = None;
        loop {
            let mut state = shard.state.write();
            if !begun.is_current(&state, hashed, &new.key) || begun.is_outdated(&tags) {
                drop(state);
                garbage.push_left(replaced, Cause::Replaced);
                garbage.push_both(new.key, new.value);
                return Put::Superseded;
            }
            let max = self.inner.budget.max();
            let (live, dead) = state.find(hashed.key, &new.key, now);
            if let Some(slot) = dead {
                spare.weight += state.discard(slot, Cause::Expired, garbage);
            }
            if !has_life || weight > max {
                begun.end(&mut state, hashed, &new.key, garbage);
                state.counts.rejected += u64::from(has_life);
                let old = live.and_then(|slot| state.detach(slot, Cause::Removed));
                spare.weight += old.as_ref().map_or(0, |old| old.weight);
                drop(state);
                garbage.push_left(replaced, Cause::Replaced);
                if has_life {
                    garbage.push_left(old, Cause::Removed);
                    return Put::TooHeavy(Rejected::TooHeavy {
                        key: new.key,
                        value: new.value,
                        weight,
                        max,
                    });
                }
                garbage.push_both(new.key, new.value);
                return Put::NoLife(old.map(|old| {
                    garbage.tell(&old.key, &old.value, Cause::Removed);
                    garbage.push_key(old.key);
                    old.value
                }));
            }
            if let Some(slot) = live {
                let old_weight = state.slots.extra(slot).map_or(1, |extra| extra.weight);
                let lacks = weight.saturating_sub(old_weight + spare.weight);
                if lacks == 0 || self.inner.budget.take(lacks) {
                    spare.weight += lacks;
                    begun.end(&mut state, hashed, &new.key, garbage);
                    let old = state.slots.replace(slot, new);
                    spare.weight = spare.weight + old_weight - weight;
                    state.stored(slot, hashed.key, tags);
                    state.counts.replaced += 1;
                    drop(state);
                    return Put::Stored(old.map(|(key, value)| {
                        garbage.tell(&key, &value, Cause::Replaced);
                        garbage.push_key(key);
                        value
                    }));
                }
                // It needs more room than the old one leaves, which goes first.
                garbage.push_left(replaced, Cause::Replaced);
                replaced = state.detach(slot, Cause::Replaced);
                spare.weight += replaced.as_ref().map_or(0, |old| old.weight);
            }
            let room = self.make_room(&mut state, weight, &mut spare.weight, now, garbage);
            if room == Room::Lacking {
                drop(state);
                // Who waits holds nothing that another one waits for.
                spare.give();
                spare.weight = self.make_room_elsewhere(weight, now, garbage);
                continue;
            }
            begun.end(&mut state, hashed, &new.key, garbage);
            let mut expired = 0;
            if self.inner.timed.load(Ordering::Relaxed) {
                if let Some(slot) = state.slots.sweep(now) {
                    expired = state.discard(slot, Cause::Expired, garbage);
                }
            }
            spare.weight = spare.weight + expired - weight;
            let slot = state.slots.insert(new, room == Room::Free);
            state.stored(slot, hashed.key, tags);
            drop(state);
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
    fn make_room_elsewhere(&self, weight: u64, now: Tick, garbage: &mut Garbage<'_, K, V>) -> u64 {
        let spread = self.inner.spread.lock();
        let _spread = spread.unwrap_or_else(PoisonError::into_inner);
        let shards = &self.inner.shards;
        let budget = &self.inner.budget;
        let part = weight.div_ceil(shards.len() as u64);
        let mut spare = 0;
        for round in 0_u64.. {
            let before = spare;
            for shard in shards {
                if spare >= weight || budget.take(weight - spare) {
                    return spare.max(weight);
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
    /// There was some.
    Free,
    /// Others went for it.
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
    fn is_outdated(&self, tags: &[Tag]) -> bool {
        match self {
            Self::Now => false,
            Self::Flight(flight) => !tags.is_empty() && flight.is_outdated(tags),
        }
    }

    /// It is about to be stored: nothing else that is being made for its key will be.
    fn end<K: Eq>(
        &self,
        state: &mut State<K, V>,
        hashed: Hashed,
        key: &K,
        garbage: &mut Garbage<'_, K, V>,
    ) {
        if state.flights.is_empty() {
            return;
        }
        if let Some((key, _)) = state.flights.remove_if(hashed.whole(), key, |_| true) {
            garbage.push_key(key);
        }
    }
}
