//! Values being made, and those who wait for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::options::Tag;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A value being made.
pub(crate) struct Flight<V> {
    /// The thread that blocks until it is made, if one does.
    maker: Option<ThreadId>,
    state: Mutex<State<V>>,
    ended: Condvar,
    /// Tags that were invalidated since it began.
    outdated: Mutex<Vec<Tag>>,
}

enum State<V> {
    Running(Waiters),
    Made(V),
    /// The maker failed, panicked or went away: the next one tries.
    GivenUp,
}

/// The tasks that wait. A place is used again once its task has gone away, so that there are never
/// more than have waited at one time.
#[derive(Default)]
struct Waiters {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Waiters {
    fn enter(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn leave(&mut self, place: usize) -> Option<Waker> {
        self.free.push(place);
        self.wakers[place].take()
    }
}

impl<V> Flight<V> {
    pub(crate) fn new(maker: Option<ThreadId>) -> Self {
        Self {
            maker,
            state: Mutex::new(State::Running(Waiters::default())),
            ended: Condvar::new(),
            outdated: Mutex::new(Vec::new()),
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

    /// What is made is not to be stored under this tag.
    pub(crate) fn outdate(&self, tag: &str) {
        let mut outdated = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        if !outdated.iter().any(|known| **known == *tag) {
            outdated.push(tag.into());
        }
    }

    pub(crate) fn is_outdated(&self, tags: &[Tag]) -> bool {
        let outdated = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        outdated.iter().any(|tag| tags.contains(tag))
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
        if let State::Running(waiters) = before {
            for waker in waiters.wakers.into_iter().flatten() {
                overdrive_core::unwind::survive(|| waker.wake());
            }
        }
    }
}

impl<V> Drop for Flight<V> {
    fn drop(&mut self) {
        // The copy for those who wait. Its destructor is not to cost the last of them their own.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let state = std::mem::replace(state, State::GivenUp);
        overdrive_core::unwind::survive(|| drop(state));
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
        let mut state = self.flight.lock();
        loop {
            match &*state {
                State::Made(value) => return Some(value.clone()),
                State::GivenUp => return None,
                State::Running(_) => {}
            }
            assert!(
                self.flight.maker != Some(thread::current().id()),
                "the value for this key is being made by this thread, which would wait for itself"
            );
            let woken = self.flight.ended.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
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
            State::Running(waiters) => {
                let place = *this.place.get_or_insert_with(|| waiters.enter());
                unused = waiters.wakers[place].replace(waker);
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
            State::Running(waiters) => waiters.leave(place),
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

#[cfg(all(test, not(any(overdrive_loom, overdrive_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_went_away_leave_no_places_behind() {
        let flight = Arc::new(Flight::<u8>::new(None));
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = |pending: &mut Pending<u8>| Pin::new(pending).poll(&mut context);
        let mut stays = Pending::new(Arc::clone(&flight));
        for _ in 0..1_000 {
            let mut goes = Pending::new(Arc::clone(&flight));
            assert!(poll(&mut goes).is_pending());
            assert!(poll(&mut stays).is_pending());
        }
        match &*flight.lock() {
            State::Running(waiters) => assert_eq!(waiters.wakers.len(), 2),
            _ => panic!("it has not ended"),
        }
        flight.made(1);
        assert_eq!(poll(&mut stays), Poll::Ready(Some(1)));
    }

    #[test]
    fn a_panic_in_the_drop_of_the_copy_costs_nobody_the_value() {
        struct Fragile(bool);
        impl Drop for Fragile {
            fn drop(&mut self) {
                assert!(!self.0, "drop");
            }
        }
        impl Clone for Fragile {
            fn clone(&self) -> Self {
                Self(false)
            }
        }
        let flight = Arc::new(Flight::new(None));
        let pending = Pending::new(Arc::clone(&flight));
        flight.made(Fragile(true));
        drop(flight);
        assert!(pending.wait_blocking().is_some());
    }
}

#[cfg(all(test, overdrive_loom))]
mod models {
    use std::task::Wake;

    use loom::thread;

    use super::*;

    /// Wakes a thread that is, or will be, at [`wait`](Self::wait).
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        ringing: Condvar,
    }

    impl Bell {
        fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !std::mem::take(&mut *rung) {
                rung = self.ringing.wait(rung).unwrap();
            }
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *self.rung.lock().unwrap() = true;
            self.ringing.notify_one();
        }
    }

    type Poll1 = fn(&mut Pending<u8>, &mut Context<'_>) -> Poll<Option<u8>>;

    fn poll(pending: &mut Pending<u8>, cx: &mut Context<'_>) -> Poll<Option<u8>> {
        Pin::new(pending).poll(cx)
    }

    fn wait(mut pending: Pending<u8>, poll: Poll1) -> Option<u8> {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        loop {
            if let Poll::Ready(value) = poll(&mut pending, &mut Context::from_waker(&waker)) {
                drop(pending);
                drop(waker);
                assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept");
                return value;
            }
            bell.wait();
        }
    }

    fn end(flight: &Flight<u8>, made: bool) -> Option<u8> {
        if made {
            flight.made(7);
        }
        // As the drop of a reservation does in any case.
        flight.give_up();
        made.then_some(7)
    }

    fn one_who_waits(poll: Poll1, made: bool) {
        loom::model(move || {
            let flight = Arc::new(Flight::new(None));
            let pending = Pending::new(Arc::clone(&flight));
            let waiting = thread::spawn(move || wait(pending, poll));
            let value = end(&flight, made);
            assert_eq!(waiting.join().unwrap(), value);
        });
    }

    #[test]
    fn loom_a_task_that_waits_hears_of_the_end() {
        one_who_waits(poll, true);
        one_who_waits(poll, false);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_a_task_waits_for_ever_if_it_lets_go_between_look_and_entry() {
        fn looks_first(pending: &mut Pending<u8>, cx: &mut Context<'_>) -> Poll<Option<u8>> {
            match &*pending.flight.lock() {
                State::Made(value) => return Poll::Ready(Some(*value)),
                State::GivenUp => return Poll::Ready(None),
                State::Running(_) => {}
            }
            if let State::Running(waiters) = &mut *pending.flight.lock() {
                let place = *pending.place.get_or_insert_with(|| waiters.enter());
                waiters.wakers[place] = Some(cx.waker().clone());
            }
            Poll::Pending
        }
        one_who_waits(looks_first, true);
    }

    #[test]
    fn loom_a_thread_and_a_task_hear_of_one_end() {
        for made in [true, false] {
            loom::model(move || {
                let flight = Arc::new(Flight::new(None));
                let pending = || Pending::new(Arc::clone(&flight));
                let (one, other) = (pending(), pending());
                let thread = thread::spawn(move || one.wait_blocking());
                let task = thread::spawn(move || wait(other, poll));
                let value = end(&flight, made);
                assert_eq!(thread.join().unwrap(), value);
                assert_eq!(task.join().unwrap(), value);
            });
        }
    }

    #[test]
    fn loom_a_task_goes_away_and_its_place_to_the_next_one() {
        loom::model(|| {
            let flight = Arc::new(Flight::new(None));
            let pending = || Pending::new(Arc::clone(&flight));
            let (mut goes, stays) = (pending(), pending());
            let waiting = thread::spawn(move || {
                let bell = Arc::new(Bell::default());
                let waker = Waker::from(Arc::clone(&bell));
                let _ = poll(&mut goes, &mut Context::from_waker(&waker));
                drop(goes);
                drop(waker);
                assert!(
                    Arc::strong_count(&bell) <= 2,
                    "whoever ends it may hold one"
                );
                wait(stays, poll)
            });
            let value = end(&flight, true);
            assert_eq!(waiting.join().unwrap(), value);
        });
    }
}
