//! What keeps a group from being forgotten.

use std::sync::Arc;

use super::group::GroupRef;
use super::hub::Hub;
use crate::after::After;
use crate::engine::{Next, Ready, Shared, Verdict};
use crate::sync::Ordering;

/// A group that is held.
pub(super) struct Hold<'a, K, T, R, E> {
    hub: &'a Hub<K, T, R, E>,
    pub(super) group: GroupRef<K, T, R, E>,
}

/// A virtual worker that a real one works as. Dropped before it is through, everything ends: tasks
/// are only dropped when their runtime is, or after they were given up.
pub(super) struct Duty<'a, K, T, R, E> {
    hold: Hold<'a, K, T, R, E>,
    worker: usize,
    through: bool,
}

impl<'a, K, T, R, E> Hold<'a, K, T, R, E> {
    /// Under the hub's lock, of a group that is in the map and not at rest.
    pub(super) fn new(hub: &'a Hub<K, T, R, E>, group: &GroupRef<K, T, R, E>) -> Self {
        group.held.fetch_add(1, Ordering::Relaxed);
        let group = Arc::clone(group);
        Self { hub, group }
    }

    /// Of a group for which the new one has been counted.
    pub(super) fn taken(hub: &'a Hub<K, T, R, E>, group: GroupRef<K, T, R, E>) -> Self {
        Self { hub, group }
    }
}

impl<K, T, R, E> Drop for Hold<'_, K, T, R, E> {
    fn drop(&mut self) {
        self.hub.release(&self.group);
    }
}

impl<'a, K, T, R, E> Duty<'a, K, T, R, E> {
    pub(super) fn new(hold: Hold<'a, K, T, R, E>, worker: usize) -> Self {
        let through = false;
        Self {
            hold,
            worker,
            through,
        }
    }

    pub(super) fn key(&self) -> &K {
        self.hold.group.key()
    }

    /// The next step: never a lease.
    pub(super) fn next(&mut self, ready: Ready, after: &mut After<T, R, E>) -> Next<T> {
        let next = self.shared().next(self.worker, ready, after);
        // The virtual worker is parked, or has ended.
        self.through = matches!(next, Next::Park(_) | Next::Ended);
        next
    }

    /// Gives each submitter of the batch its own. What is left waits for its turn.
    pub(super) fn deliver(mut self, verdict: Verdict<R, E>, after: &mut After<T, R, E>) {
        let asks = self.shared().deliver(self.worker, verdict, after);
        self.through = true;
        if asks {
            let group = Arc::clone(&self.hold.group);
            self.hold.hub.requeue(group, self.worker);
        }
    }

    fn shared(&self) -> &Shared<T, R, E> {
        &self.hold.group.shared
    }
}

impl<K, T, R, E> Drop for Duty<'_, K, T, R, E> {
    fn drop(&mut self) {
        if !self.through {
            self.hold.hub.abandon();
        }
    }
}
