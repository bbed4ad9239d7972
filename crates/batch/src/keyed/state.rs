//! The map of keys: a plain data structure, without locks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::group::{GONE, Group, GroupRef, HELD};
use super::hold::Hold;
use super::hub::Hub;
use crate::engine::Watchers;
use crate::stats::BatchStats;
use crate::sync::Ordering;

/// By the hash of their keys.
type Groups<K, T, R, E> = HashMap<u64, Vec<GroupRef<K, T, R, E>>>;

/// A virtual worker that is to be asked what it does.
type Ready<K, T, R, E> = (GroupRef<K, T, R, E>, usize);

pub(super) struct State<K, T, R, E> {
    pub(super) groups: Groups<K, T, R, E>,
    pub(super) live: usize,
    /// Of the live ones, how many are at rest.
    pub(super) resting: usize,
    /// Hashes, and when the group came to rest: the longest ago first. Entries of groups that were
    /// held since are stale.
    pub(super) rests: VecDeque<(u64, u64)>,
    pub(super) next_rest: u64,
    /// The longest ago first.
    pub(super) ready: VecDeque<Ready<K, T, R, E>>,
    /// By real worker: whether it waits to be woken.
    pub(super) asleep: Vec<bool>,
    pub(super) alive: usize,
    pub(super) closed: bool,
    pub(super) watchers: Watchers,
    /// Of the keys that left the map, and of items that never came to a key.
    pub(super) past: BatchStats,
    /// As [`Shared::finished`], of the keys that left the map.
    pub(super) past_finished: u64,
}

impl<K, T, R, E> State<K, T, R, E> {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            groups: HashMap::new(),
            live: 0,
            resting: 0,
            rests: VecDeque::new(),
            next_rest: HELD + 1,
            ready: VecDeque::new(),
            asleep: vec![false; workers],
            alive: workers,
            closed: false,
            watchers: Watchers::default(),
            past: BatchStats::default(),
            past_finished: 0,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &GroupRef<K, T, R, E>> {
        self.groups.values().flatten()
    }

    /// Whether there is nothing left to do, and never will be.
    pub(super) fn is_over(&self) -> bool {
        self.closed && self.live == 0
    }

    pub(super) fn other(
        &self,
        hash: u64,
        others: &[GroupRef<K, T, R, E>],
    ) -> Option<&GroupRef<K, T, R, E>> {
        let mut bucket = self.groups.get(&hash)?.iter();
        bucket.find(|group| !others.iter().any(|other| Arc::ptr_eq(other, group)))
    }

    /// Holds a group of the map.
    pub(super) fn take<'a>(
        &mut self,
        hub: &'a Hub<K, T, R, E>,
        group: &GroupRef<K, T, R, E>,
    ) -> Hold<'a, K, T, R, E> {
        if group.rest.swap(HELD, Ordering::Relaxed) != HELD {
            self.resting -= 1;
        }
        Hold::new(hub, group)
    }

    /// Puts a group to rest.
    pub(super) fn lay_down(&mut self, group: &Group<K, T, R, E>) {
        let since = self.next_rest;
        self.next_rest += 1;
        group.rest.store(since, Ordering::Relaxed);
        self.resting += 1;
        self.rests.push_back((group.hash, since));
        if self.rests.len() > 2 * self.resting + 64 {
            let groups = &self.groups;
            let rests = |&(hash, since): &(u64, u64)| find(groups, hash, since).is_some();
            self.rests.retain(rests);
        }
    }

    /// Takes the group out that has been at rest for longest.
    pub(super) fn evict(&mut self) -> Option<GroupRef<K, T, R, E>> {
        while let Some((hash, since)) = self.rests.pop_front() {
            if let Some(group) = find(&self.groups, hash, since) {
                let group = Arc::clone(group);
                return self.remove(hash, since, &group);
            }
        }
        None
    }

    /// Takes all groups out that are at rest.
    pub(super) fn evict_all(&mut self) -> Vec<GroupRef<K, T, R, E>> {
        let mut gone = Vec::with_capacity(self.resting);
        while let Some(group) = self.evict() {
            gone.push(group);
        }
        gone
    }

    /// Takes a group out that nobody holds, and keeps its figures.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        rest: u64,
        group: &GroupRef<K, T, R, E>,
    ) -> Option<GroupRef<K, T, R, E>> {
        let bucket = self.groups.get_mut(&hash)?;
        let place = bucket.iter().position(|one| Arc::ptr_eq(one, group))?;
        let gone = bucket.swap_remove(place);
        if bucket.is_empty() {
            self.groups.remove(&hash);
        }
        self.live -= 1;
        if rest != HELD {
            self.resting -= 1;
        }
        gone.rest.store(GONE, Ordering::Relaxed);
        self.past.add(&gone.shared.stats());
        self.past_finished += gone.shared.finished();
        Some(gone)
    }

    /// A sleeper that is to be woken.
    pub(super) fn rouse(&mut self) -> Option<usize> {
        let sleeper = self.asleep.iter().position(|&asleep| asleep)?;
        self.asleep[sleeper] = false;
        Some(sleeper)
    }
}

/// The group with that hash that has been at rest since then.
fn find<K, T, R, E>(
    groups: &Groups<K, T, R, E>,
    hash: u64,
    since: u64,
) -> Option<&GroupRef<K, T, R, E>> {
    let mut bucket = groups.get(&hash)?.iter();
    bucket.find(|group| group.rest.load(Ordering::Relaxed) == since)
}

impl<K, T, R, E> Group<K, T, R, E> {
    /// Under the hub's lock.
    pub(super) fn is_held(&self) -> bool {
        self.rest.load(Ordering::Relaxed) == HELD
    }
}
