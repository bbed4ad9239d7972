//! Those who wait for the batcher as a whole.

use std::task::Waker;

/// What is awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// All batches before this number have ended.
    Past(u64),
    /// All workers have ended.
    Ended,
}

#[derive(Default)]
pub(crate) struct Watchers {
    list: Vec<Watcher>,
    next_id: u64,
}

struct Watcher {
    id: u64,
    goal: Goal,
    waker: Waker,
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a watcher, or gives the one with that `id` another waker: the old one, to be dropped.
    pub(crate) fn add(&mut self, goal: Goal, id: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        if let Some(watcher) = self.list.iter_mut().find(|w| Some(w.id) == *id) {
            return Some(std::mem::replace(&mut watcher.waker, waker));
        }
        let new = self.next_id;
        self.next_id += 1;
        *id = Some(new);
        self.list.push(Watcher {
            id: new,
            goal,
            waker,
        });
        None
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Waker> {
        let place = self.list.iter().position(|w| w.id == id)?;
        Some(self.list.swap_remove(place).waker)
    }

    /// Takes out those whose goal is met.
    pub(crate) fn tell(&mut self, met: impl Fn(Goal) -> bool, mut wake: impl FnMut(Waker)) {
        let mut place = 0;
        while place < self.list.len() {
            if met(self.list[place].goal) {
                wake(self.list.swap_remove(place).waker);
            } else {
                place += 1;
            }
        }
    }
}
