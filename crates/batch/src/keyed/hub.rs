//! What the groups of all keys share: the map of them, and the queue of those with work.
//!
//! A group in the map is *held* or at *rest*. Whoever holds it counts in its `held`, which is raised
//! under the hub's lock alone; so a group that is at rest under the lock is nobody's, has nothing
//! queued and nothing running, and can be taken out of the map with nothing lost and its key's order
//! kept. A virtual worker is in one place: parked in its group, in the ready queue, or with a real
//! worker; in the last two it holds its group.
//!
//! The hub's lock is taken before a group's. No code of the user's runs under it: keys are compared
//! while their groups are held and the lock is free, and what leaves the map is dropped after it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use overdrive_core::Health;
use overdrive_core::unwind::survive;

use super::group::{Found, Group, GroupRef, HELD};
use super::hold::{Duty, Hold};
use super::state::State;
use crate::engine::{Goal, Refused, Rules, Terms};
use crate::stats::BatchStats;
use crate::sync::{Mutex, Ordering, lock};

pub(super) struct Hub<K, T, R, E> {
    /// As set, with the number of real workers.
    pub(super) rules: Rules<T>,
    pub(super) per_key: usize,
    pub(super) max_keys: usize,
    pub(super) max_idle_keys: usize,
    hasher: RandomState,
    state: Mutex<State<K, T, R, E>>,
    /// By real worker: how to wake it, once it has begun.
    wakers: Box<[OnceLock<Waker>]>,
}

/// What a real worker is to do.
pub(super) enum Turn<'a, K, T, R, E> {
    Serve(Duty<'a, K, T, R, E>),
    /// Ask again when woken.
    Park,
    End,
}

/// A group, if there is one, and how to wake a worker.
type Left<K, T, R, E> = (Option<GroupRef<K, T, R, E>>, Vec<Waker>);

/// Why there is no group for a key.
enum Denied {
    Closed,
    Full,
}

impl<K, T, R, E> Hub<K, T, R, E> {
    pub(super) fn new(
        rules: Rules<T>,
        per_key: usize,
        max_keys: usize,
        max_idle_keys: usize,
    ) -> Self {
        let workers = rules.workers;
        Self {
            rules,
            per_key,
            max_keys,
            max_idle_keys,
            hasher: RandomState::new(),
            state: Mutex::new(State::new(workers)),
            wakers: (0..workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// A virtual worker has something to do. Its group is held by whoever says so.
    pub(super) fn ready(&self, group: GroupRef<K, T, R, E>, worker: usize) {
        let sleeper = {
            let mut state = lock(&self.state);
            if state.alive == 0 {
                return;
            }
            group.held.fetch_add(1, Ordering::Relaxed);
            state.ready.push_back((group, worker));
            state.rouse()
        };
        self.wake(sleeper);
    }

    /// A virtual worker has more to do, behind all others. The real worker that had it will look.
    pub(super) fn requeue(&self, group: GroupRef<K, T, R, E>, worker: usize) {
        let mut state = lock(&self.state);
        group.held.fetch_add(1, Ordering::Relaxed);
        state.ready.push_back((group, worker));
    }

    /// Real worker `worker` is woken by `waker` from now on.
    pub(super) fn enlist(&self, worker: usize, waker: &Waker) {
        self.wakers[worker].get_or_init(|| waker.clone());
    }

    /// What real worker `worker` is to do.
    pub(super) fn turn(&self, worker: usize) -> Turn<'_, K, T, R, E> {
        let mut state = lock(&self.state);
        state.asleep[worker] = false;
        if let Some((group, virtual_worker)) = state.ready.pop_front() {
            let hold = Hold::taken(self, group);
            return Turn::Serve(Duty::new(hold, virtual_worker));
        }
        if state.is_over() {
            return Turn::End;
        }
        state.asleep[worker] = true;
        Turn::Park
    }

    /// A real worker has ended, or was dropped by its runtime.
    pub(super) fn worker_gone(&self, worker: usize) {
        let over = lock(&self.state).is_over();
        if !over {
            self.abandon();
        }
        let mut told = Vec::new();
        loop {
            let left = {
                let mut state = lock(&self.state);
                state.asleep[worker] = false;
                if state.alive > 1 || state.ready.is_empty() {
                    state.alive -= 1;
                    if state.alive == 0 {
                        state.watchers.tell(|_| true, |waker| told.push(waker));
                    }
                    break;
                }
                // The last one puts everything to rest before it is gone.
                std::mem::take(&mut state.ready)
            };
            for (group, _) in left {
                drop(Hold::taken(self, group));
            }
        }
        wake_each(told);
    }

    /// The group is held by one less.
    pub(super) fn release(&self, group: &GroupRef<K, T, R, E>) {
        if group.held.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (gone, sleepers) = self.lay_down(group);
        for waker in sleepers {
            waker.wake();
        }
        drop(gone);
    }

    /// Puts a group to rest that nobody holds, or takes it out when the end has come.
    fn lay_down(&self, group: &GroupRef<K, T, R, E>) -> Left<K, T, R, E> {
        let mut state = lock(&self.state);
        let held = group.held.load(Ordering::Acquire) > 0;
        if held || group.rest.load(Ordering::Relaxed) != HELD {
            return (None, Vec::new());
        }
        if state.closed {
            let gone = state.remove(group.hash, HELD, group);
            let sleepers = if state.live == 0 {
                self.everybody(&mut state)
            } else {
                Vec::new()
            };
            return (gone, sleepers);
        }
        state.lay_down(group);
        let gone = if state.resting > self.max_idle_keys {
            state.evict()
        } else {
            None
        };
        (gone, Vec::new())
    }

    fn everybody(&self, state: &mut State<K, T, R, E>) -> Vec<Waker> {
        state.asleep.fill(false);
        self.wakers
            .iter()
            .filter_map(|waker| waker.get().cloned())
            .collect()
    }

    fn wake(&self, worker: Option<usize>) {
        if let Some(waker) = worker.and_then(|worker| self.wakers[worker].get()) {
            waker.wake_by_ref();
        }
    }

    /// The groups that somebody holds, held.
    pub(super) fn all_held(&self) -> Vec<Hold<'_, K, T, R, E>> {
        let state = lock(&self.state);
        let held = state.all().filter(|group| group.is_held());
        held.map(|group| Hold::new(self, group)).collect()
    }

    /// Takes no more items. Idempotent.
    pub(super) fn close(&self) {
        let gone;
        let sleepers;
        {
            let mut state = lock(&self.state);
            state.closed = true;
            gone = state.evict_all();
            sleepers = if state.live == 0 {
                self.everybody(&mut state)
            } else {
                Vec::new()
            };
        }
        for waker in sleepers {
            waker.wake();
        }
        drop(gone);
        // No further one comes, now that it is closed. Each caller sees to all of them, so that none
        // returns while another is at it.
        for hold in self.all_held() {
            hold.group.shared.close();
        }
    }

    /// Gives up on everything that has not ended; how much that was.
    pub(super) fn abandon(&self) -> u64 {
        self.close();
        let held = self.all_held();
        held.iter().map(|hold| hold.group.shared.abandon()).sum()
    }

    /// Counts an item whose deadline had passed before it was placed.
    pub(super) fn came_late(&self) {
        lock(&self.state).past.expired += 1;
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    pub(super) fn keys(&self) -> usize {
        lock(&self.state).live
    }

    pub(super) fn health(&self) -> Health {
        let state = lock(&self.state);
        let degraded = |group: &GroupRef<K, T, R, E>| {
            group.is_held() && group.shared.health() == Health::Degraded
        };
        if state.closed {
            Health::Unhealthy
        } else if (state.live - state.resting) * 4 >= self.max_keys * 3 || state.all().any(degraded)
        {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    pub(super) fn stats(&self) -> BatchStats {
        let state = lock(&self.state);
        let mut stats = state.past;
        for group in state.all() {
            stats.add(&group.shared.stats());
        }
        stats.submitted = stats.accounted();
        stats
    }

    /// Accepted items that ended with a result, or an error that their submitter was given.
    pub(super) fn finished(&self) -> u64 {
        let state = lock(&self.state);
        let live = state.all().map(|group| group.shared.finished());
        state.past_finished + live.sum::<u64>()
    }

    /// Whether all workers have ended; if not, `cx` is woken when they have.
    pub(super) fn watch_end(&self, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let old = {
            let mut state = lock(&self.state);
            if state.alive == 0 {
                drop(state);
                return Poll::Ready(());
            }
            state.watchers.add(Goal::Ended, id, waker)
        };
        drop(old);
        Poll::Pending
    }

    /// The watcher goes.
    pub(super) fn forget(&self, id: u64) {
        let gone = lock(&self.state).watchers.remove(id);
        drop(gone);
    }
}

impl<K, T, R, E> Hub<K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    /// Puts an item into the queue of its key.
    pub(super) fn place(
        self: &Arc<Self>,
        key: K,
        item: T,
        terms: Terms,
    ) -> Result<Found<K, T, R, E>, Refused<T>> {
        let hold = match self.hold(key) {
            Ok(hold) => hold,
            Err(Denied::Closed) => return Err(Refused::Closed(item)),
            Err(Denied::Full) => return Err(Refused::Full(item)),
        };
        let placed = hold.group.shared.place(item, terms)?;
        Ok((Arc::clone(&hold.group), placed))
    }

    /// The key's group, which is made if there is none.
    fn hold(self: &Arc<Self>, key: K) -> Result<Hold<'_, K, T, R, E>, Denied> {
        let hash = self.hasher.hash_one(&key);
        let mut key = Some(key);
        // Not in the map, unless nobody else was faster.
        let mut fresh: Option<GroupRef<K, T, R, E>> = None;
        // Of other keys with the same hash.
        let mut others = Vec::new();
        let mut evicted = None;
        loop {
            if let Some(found) = self.candidate(hash, &others)? {
                let wanted = key.as_ref().or_else(|| fresh.as_deref().map(Group::key));
                if wanted.is_some_and(|wanted| found.group.key() == wanted) {
                    return Ok(found);
                }
                others.push(Arc::clone(&found.group));
                continue;
            }
            if let Some(key) = key.take() {
                fresh = Some(Group::new(self, key, hash));
            }
            let Some(group) = &fresh else {
                unreachable!("made above");
            };
            if let Some(hold) = self.enter(group, &others, &mut evicted)? {
                return Ok(hold);
            }
        }
    }

    /// A group with that hash that is not among the `others`, held. `None` if there is none, and
    /// room for one.
    fn candidate(
        &self,
        hash: u64,
        others: &[GroupRef<K, T, R, E>],
    ) -> Result<Option<Hold<'_, K, T, R, E>>, Denied> {
        let mut state = lock(&self.state);
        if state.closed {
            state.past.rejected += 1;
            return Err(Denied::Closed);
        }
        if let Some(group) = state.other(hash, others) {
            let group = Arc::clone(group);
            return Ok(Some(state.take(self, &group)));
        }
        if state.live >= self.max_keys && state.resting == 0 {
            state.past.rejected += 1;
            return Err(Denied::Full);
        }
        Ok(None)
    }

    /// Puts a group into the map, held. `None` if one has come that may be of the same key.
    fn enter(
        &self,
        group: &GroupRef<K, T, R, E>,
        others: &[GroupRef<K, T, R, E>],
        evicted: &mut Option<GroupRef<K, T, R, E>>,
    ) -> Result<Option<Hold<'_, K, T, R, E>>, Denied> {
        let mut state = lock(&self.state);
        if state.closed {
            state.past.rejected += 1;
            return Err(Denied::Closed);
        }
        if state.other(group.hash, others).is_some() {
            return Ok(None);
        }
        if state.live >= self.max_keys {
            *evicted = state.evict();
            if evicted.is_none() {
                state.past.rejected += 1;
                return Err(Denied::Full);
            }
        }
        group.rest.store(HELD, Ordering::Relaxed);
        let bucket = state.groups.entry(group.hash).or_default();
        bucket.push(Arc::clone(group));
        state.live += 1;
        Ok(Some(Hold::new(self, group)))
    }
}

fn wake_each(wakers: Vec<Waker>) {
    for waker in wakers {
        survive(|| waker.wake());
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use overdrive_core::clock::PreciseClock;

    use super::*;
    use crate::BatcherBuilder;

    type Small = Hub<u8, u8, u8, Infallible>;

    fn small() -> Arc<Small> {
        let rules = BatcherBuilder::new().workers(1);
        let rules = rules.rules(|| Arc::new(PreciseClock)).unwrap();
        Arc::new(Hub::new(rules, 1, 2, 2))
    }

    #[test]
    fn of_two_that_make_a_key_at_the_same_time_one_goes_in() {
        let hub = small();
        let [first, second, third, fourth] = [1, 1, 2, 3].map(|key| Group::new(&hub, key, 7));
        let mut evicted = None;
        // None of them has found one.
        let hold = hub.enter(&first, &[], &mut evicted).ok().unwrap().unwrap();
        assert!(matches!(hub.enter(&second, &[], &mut evicted), Ok(None)));
        assert!(matches!(hub.candidate(7, &[]), Ok(Some(found)) if found.group.key() == &1));
        // Those of other keys are known to be.
        let others = [Arc::clone(&first)];
        assert!(matches!(
            hub.enter(&third, &others, &mut evicted),
            Ok(Some(_))
        ));
        assert_eq!((hub.keys(), evicted.is_none()), (2, true));
        // The one at rest makes room, and the one that is held does not.
        let others = [first, third];
        let fourth = hub.enter(&fourth, &others, &mut evicted).ok().unwrap();
        assert!(evicted.is_some_and(|group| group.key() == &2));
        assert!(matches!(hub.candidate(8, &[]), Err(Denied::Full)));
        drop((hold, fourth));
        assert!(matches!(hub.candidate(8, &[]), Ok(None)));
    }

    #[test]
    fn what_is_made_when_the_end_comes_stays_out() {
        let hub = small();
        let group = Group::new(&hub, 1, 7);
        assert!(matches!(hub.candidate(7, &[]), Ok(None)));
        hub.close();
        assert!(matches!(
            hub.enter(&group, &[], &mut None),
            Err(Denied::Closed)
        ));
        assert!(matches!(hub.candidate(7, &[]), Err(Denied::Closed)));
        assert_eq!((hub.keys(), hub.stats().rejected), (0, 2));
    }

    #[test]
    fn the_row_of_those_at_rest_stays_short() {
        let hub = small();
        let group = Group::new(&hub, 1, 7);
        drop(hub.enter(&group, &[], &mut None));
        for _ in 0..1_000 {
            drop(hub.candidate(7, &[]));
        }
        assert!(lock(&hub.state).rests.len() <= 2 + 64 + 1);
        assert_eq!(lock(&hub.state).resting, 1);
    }
}
