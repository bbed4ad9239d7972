//! The place where one submitter waits for one outcome.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Written once by the batcher, read once by the submitter. No code of others runs under its
/// lock: what is to be woken or dropped is handed out.
pub(crate) struct Cell<O> {
    state: Mutex<State<O>>,
}

enum State<O> {
    Waiting(Option<Waker>),
    Done(O),
    /// The submitter has its outcome, or wants none.
    Gone,
}

impl<O> Cell<O> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::Waiting(None)),
        }
    }

    /// Leaves the outcome: whom to wake for it, or the outcome again if nobody wants it.
    pub(crate) fn finish(&self, outcome: O) -> Result<Option<Waker>, O> {
        let mut state = self.lock();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = State::Done(outcome);
                Ok(waker)
            }
            State::Done(_) | State::Gone => Err(outcome),
        }
    }

    /// # Panics
    /// When the outcome has been taken.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<O> {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            match &mut *state {
                State::Waiting(known) => {
                    if known.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                        return Poll::Pending;
                    }
                    if let Some(waker) = fresh.take() {
                        let old = known.replace(waker);
                        drop(state);
                        drop(old);
                        return Poll::Pending;
                    }
                }
                State::Done(_) => {
                    let State::Done(outcome) = std::mem::replace(&mut *state, State::Gone) else {
                        unreachable!("matched above");
                    };
                    drop(state);
                    return Poll::Ready(outcome);
                }
                State::Gone => {
                    drop(state);
                    panic!("polled after completion");
                }
            }
            drop(state);
            fresh = Some(cx.waker().clone());
        }
    }

    /// The submitter goes. To be dropped by the caller: what it leaves behind.
    pub(crate) fn leave(&self) -> (Option<O>, Option<Waker>) {
        match std::mem::replace(&mut *self.lock(), State::Gone) {
            State::Waiting(waker) => (None, waker),
            State::Done(outcome) => (Some(outcome), None),
            State::Gone => (None, None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_given_once_and_comes_back_if_unwanted() {
        let cell = Cell::new();
        let cx = Context::from_waker(Waker::noop());
        assert!(cell.poll(&cx).is_pending());
        assert!(cell.finish(1).unwrap().is_some());
        assert_eq!(cell.finish(2).unwrap_err(), 2);
        assert_eq!(cell.poll(&cx), Poll::Ready(1));
        let cell = Cell::new();
        cell.leave();
        assert_eq!(cell.finish(3).unwrap_err(), 3);
    }
}
