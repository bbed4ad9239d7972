//! One key's batcher: an engine whose workers are virtual, and run by the workers of the hub.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use overdrive_core::unwind::survive;

use super::hub::Hub;
use crate::after::After;
use crate::cell::Placed;
use crate::engine::{Ready, Rules, Shared, Weight};
use crate::sync::AtomicU64;

pub(super) type GroupRef<K, T, R, E> = Arc<Group<K, T, R, E>>;

/// Where an item is: in which group, and there.
pub(super) type Found<K, T, R, E> = (GroupRef<K, T, R, E>, Placed);

pub(super) struct Group<K, T, R, E> {
    key: Guarded<K>,
    pub(super) hash: u64,
    pub(super) shared: Shared<T, R, E>,
    /// How many hold it: submitters about to place an item, virtual workers that are not parked.
    /// Raised under the hub's lock alone, so that a group that nobody holds stays so under it.
    pub(super) held: AtomicU64,
    /// When it came to rest, or [`HELD`], or [`GONE`]. Under the hub's lock.
    pub(super) rest: AtomicU64,
}

/// The group is in the map, and somebody holds it.
pub(super) const HELD: u64 = 0;

/// The group has left the map.
pub(super) const GONE: u64 = u64::MAX;

impl<K, T, R, E> Group<K, T, R, E> {
    pub(super) fn key(&self) -> &K {
        self.key.0.as_ref().expect("there until it is dropped")
    }
}

impl<K, T, R, E> Group<K, T, R, E>
where
    K: Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    /// A group that is not in the map, with its virtual workers parked.
    pub(super) fn new(hub: &Arc<Hub<K, T, R, E>>, key: K, hash: u64) -> Arc<Self> {
        let group = Arc::new(Self {
            key: Guarded(Some(key)),
            hash,
            shared: Shared::new(copy(&hub.rules, hub.per_key)),
            held: AtomicU64::new(0),
            rest: AtomicU64::new(GONE),
        });
        let mut after = After::new();
        for worker in 0..hub.per_key {
            let summons = Summons {
                hub: Arc::downgrade(hub),
                group: Arc::downgrade(&group),
                worker,
            };
            group.shared.enlist(worker, &Waker::from(Arc::new(summons)));
            let _parks = group.shared.next(worker, Ready::Called, &mut after);
        }
        group
    }
}

/// The rules, for one key.
fn copy<T>(rules: &Rules<T>, workers: usize) -> Rules<T> {
    let weight = rules.weight.as_ref();
    Rules {
        name: Cow::Borrowed(""),
        workers,
        clock: Arc::clone(&rules.clock),
        weight: weight.map(|weight| Weight {
            max: weight.max,
            of: Arc::clone(&weight.of),
        }),
        isolate: None,
        ..*rules
    }
}

/// A key, whose destructor may panic: that is no business of whoever happens to drop the group.
struct Guarded<K>(Option<K>);

impl<K> Drop for Guarded<K> {
    fn drop(&mut self) {
        let key = self.0.take();
        survive(|| drop(key));
    }
}

/// Calls a virtual worker: puts it where the real ones look. Weak, since the group owns it.
struct Summons<K, T, R, E> {
    hub: Weak<Hub<K, T, R, E>>,
    group: Weak<Group<K, T, R, E>>,
    worker: usize,
}

impl<K, T, R, E> Wake for Summons<K, T, R, E> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let (Some(hub), Some(group)) = (self.hub.upgrade(), self.group.upgrade()) {
            hub.ready(group, self.worker);
        }
    }
}
