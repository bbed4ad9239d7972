//! Values being made, and those who wait for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

/// A value being made.
pub(crate) struct Flight<V> {
    /// The thread that blocks until it is made, if one does.
    maker: Option<ThreadId>,
    state: Mutex<State<V>>,
    ended: Condvar,
}

enum State<V> {
    /// Tasks that wait have a place here.
    Running(Vec<Option<Waker>>),
    Made(V),
    /// The maker failed, panicked or went away: the next one tries.
    GivenUp,
}

impl<V> Flight<V> {
    pub(crate) fn new(maker: Option<ThreadId>) -> Self {
        Self {
            maker,
            state: Mutex::new(State::Running(Vec::new())),
            ended: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // Only a value's or a waker's `Clone` can panic under it, which changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn made(&self, value: V) {
        self.end(State::Made(value));
    }

    pub(crate) fn give_up(&self) {
        self.end(State::GivenUp);
    }

    /// Only its first end counts.
    fn end(&self, end: State<V>) {
        let mut state = self.lock();
        if !matches!(*state, State::Running(_)) {
            drop(state);
            drop(end);
            return;
        }
        let before = std::mem::replace(&mut *state, end);
        drop(state);
        self.ended.notify_all();
        if let State::Running(wakers) = before {
            for waker in wakers.into_iter().flatten() {
                overdrive_core::unwind::survive(|| waker.wake());
            }
        }
    }
}

/// Waits for a value that another one makes; from [`Reserve::Busy`](crate::Reserve::Busy).
///
/// As a future, and blocking: [`wait_blocking`](Self::wait_blocking). Both give `None` if the value
/// was not made after all; who wants it asks again then.
///
/// # Cancel safety
/// It can be dropped at any time.
#[must_use = "it waits only when it is awaited"]
pub struct Pending<V> {
    flight: Arc<Flight<V>>,
    /// Its place among those to wake.
    place: Option<usize>,
}

impl<V> Pending<V> {
    pub(crate) fn new(flight: Arc<Flight<V>>) -> Self {
        Self {
            flight,
            place: None,
        }
    }

    /// Blocks until the value is made, or given up.
    ///
    /// # Panics
    /// If this very thread makes it, and would wait for itself.
    #[must_use]
    pub fn wait_blocking(self) -> Option<V>
    where
        V: Clone,
    {
        assert!(
            self.flight.maker != Some(thread::current().id()),
            "the value for this key is being made by this thread, which would wait for itself"
        );
        let running = |state: &mut State<V>| matches!(state, State::Running(_));
        let state = self.flight.ended.wait_while(self.flight.lock(), running);
        match &*state.unwrap_or_else(PoisonError::into_inner) {
            State::Made(value) => Some(value.clone()),
            State::Running(_) | State::GivenUp => None,
        }
    }
}

impl<V: Clone> Future for Pending<V> {
    type Output = Option<V>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<V>> {
        let this = &mut *self;
        let waker = cx.waker().clone();
        let mut unused = None;
        let mut state = this.flight.lock();
        let poll = match &mut *state {
            State::Made(value) => Poll::Ready(Some(value.clone())),
            State::GivenUp => Poll::Ready(None),
            State::Running(wakers) => {
                let place = *this.place.get_or_insert_with(|| {
                    wakers.push(None);
                    wakers.len() - 1
                });
                unused = wakers[place].replace(waker);
                Poll::Pending
            }
        };
        drop(state);
        drop(unused);
        poll
    }
}

impl<V> Unpin for Pending<V> {}

impl<V> Drop for Pending<V> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut state = self.flight.lock();
        let waker = match &mut *state {
            State::Running(wakers) => wakers[place].take(),
            _ => None,
        };
        drop(state);
        overdrive_core::unwind::survive(|| drop(waker));
    }
}

impl<V> std::fmt::Debug for Pending<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
