//! Waiting for the groups of all keys.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::KeyedBatcher;
use super::group::{Group, GroupRef};
use super::hub::Hub;
use crate::engine::Goal;
use crate::workers;

type Watched<K, T, R, E> = (GroupRef<K, T, R, E>, Goal);

/// Ready when each group has met its goal: one is watched after the other.
pub(super) struct WatchAll<K, T, R, E> {
    groups: Vec<Watched<K, T, R, E>>,
    /// The last one's watcher.
    id: Option<u64>,
}

impl<K, T, R, E> WatchAll<K, T, R, E> {
    /// Until everything submitted so far has ended.
    pub(super) fn flush(hub: &Hub<K, T, R, E>) -> Self {
        Self::new(hub, |group| group.shared.flush())
    }

    /// Until everything has ended, of a hub that is closed.
    pub(super) fn drained(hub: &Hub<K, T, R, E>) -> Self {
        Self::new(hub, |_| Goal::Past(u64::MAX))
    }

    fn new(hub: &Hub<K, T, R, E>, goal: impl Fn(&Group<K, T, R, E>) -> Goal) -> Self {
        let held = hub.all_held().into_iter();
        let groups = held.map(|hold| (Arc::clone(&hold.group), goal(&hold.group)));
        Self {
            groups: groups.collect(),
            id: None,
        }
    }
}

impl<K, T, R, E> Unpin for WatchAll<K, T, R, E> {}

impl<K, T, R, E> Future for WatchAll<K, T, R, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        while let Some((group, goal)) = this.groups.last() {
            if group.shared.watch(*goal, &mut this.id, cx).is_pending() {
                return Poll::Pending;
            }
            this.id = None;
            this.groups.pop();
        }
        Poll::Ready(())
    }
}

impl<K, T, R, E> Drop for WatchAll<K, T, R, E> {
    fn drop(&mut self) {
        if let (Some((group, _)), Some(id)) = (self.groups.last(), self.id) {
            group.shared.forget(id);
        }
    }
}

/// Ready when all workers have ended.
pub(super) struct WatchEnd<'a, K, T, R, E> {
    hub: &'a Hub<K, T, R, E>,
    id: Option<u64>,
}

impl<'a, K, T, R, E> WatchEnd<'a, K, T, R, E> {
    pub(super) fn new(hub: &'a Hub<K, T, R, E>) -> Self {
        Self { hub, id: None }
    }
}

impl<K, T, R, E> Future for WatchEnd<'_, K, T, R, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.hub.watch_end(&mut this.id, cx)
    }
}

impl<K, T, R, E> Drop for WatchEnd<'_, K, T, R, E> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.hub.forget(id);
        }
    }
}

/// The future of [`KeyedBatcher::flush`].
///
/// # Cancel safety
/// Dropping the future only ends the wait.
#[must_use = "futures do nothing unless polled"]
pub struct KeyedFlush<'a, K, T, R, E> {
    batcher: &'a KeyedBatcher<K, T, R, E>,
    watch: Option<WatchAll<K, T, R, E>>,
}

impl<'a, K, T, R, E> KeyedFlush<'a, K, T, R, E> {
    pub(super) fn new(batcher: &'a KeyedBatcher<K, T, R, E>) -> Self {
        Self {
            batcher,
            watch: None,
        }
    }

    #[track_caller]
    pub(super) fn wait_blocking(self) {
        workers::may_block(self.batcher.hub());
        crate::park::block_on_forever(self);
    }
}

impl<K, T, R, E> Future for KeyedFlush<'_, K, T, R, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let hub = self.batcher.hub();
        let watch = self.watch.get_or_insert_with(|| WatchAll::flush(hub));
        Pin::new(watch).poll(cx)
    }
}

impl<K, T, R, E> fmt::Debug for KeyedFlush<'_, K, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedFlush").finish_non_exhaustive()
    }
}
