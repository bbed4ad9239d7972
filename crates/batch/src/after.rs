//! What is seen to when the locks are free.

use std::sync::OnceLock;
use std::task::Waker;

use overdrive_core::unwind::survive;

use crate::engine::Outcome;
use crate::observe::{Origin, Origins};

/// Collects, under locks, what may run code of the user's: wakers to wake, values to drop.
pub(crate) struct After<T, R, E> {
    /// A worker. The first of each is kept apart since seldom there are more, and so nothing is
    /// allocated.
    worker: Option<usize>,
    workers: Vec<usize>,
    waker: Option<Waker>,
    wakers: Vec<Waker>,
    unwanted: Vec<Outcome<T, R, E>>,
    origins: Origins,
}

impl<T, R, E> After<T, R, E> {
    pub(crate) fn new() -> Self {
        Self {
            worker: None,
            workers: Vec::new(),
            waker: None,
            wakers: Vec::new(),
            unwanted: Vec::new(),
            origins: Origins::new(),
        }
    }

    pub(crate) fn rouse(&mut self, worker: Option<usize>) {
        match self.worker {
            None => self.worker = worker,
            Some(_) => self.workers.extend(worker),
        }
    }

    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        match self.waker {
            None => self.waker = waker,
            Some(_) => self.wakers.extend(waker),
        }
    }

    pub(crate) fn discard(&mut self, outcome: Outcome<T, R, E>) {
        self.unwanted.push(outcome);
    }

    pub(crate) fn let_go(&mut self, origin: Origin) {
        self.origins.add(origin);
    }

    /// Sees to everything. A panic of one keeps nothing from the others.
    pub(crate) fn run(&mut self, workers: &[OnceLock<Waker>]) {
        if let Some(waker) = self.waker.take() {
            survive(|| waker.wake());
            if !self.wakers.is_empty() {
                self.wakers.drain(..).for_each(|w| survive(|| w.wake()));
            }
        }
        if let Some(worker) = self.worker.take() {
            rouse(workers, worker);
            if !self.workers.is_empty() {
                self.workers.drain(..).for_each(|w| rouse(workers, w));
            }
        }
        if !self.unwanted.is_empty() {
            self.unwanted
                .drain(..)
                .for_each(|one| survive(|| drop(one)));
        }
        survive(|| self.origins.clear());
    }
}

pub(crate) fn rouse(workers: &[OnceLock<Waker>], worker: usize) {
    if let Some(waker) = workers[worker].get() {
        survive(|| waker.wake_by_ref());
    }
}

/// Drops values one by one: as one, they would end the process if the destructors of two panicked.
pub(crate) fn drop_each<V>(values: Vec<V>) {
    for value in values {
        survive(|| drop(value));
    }
}
