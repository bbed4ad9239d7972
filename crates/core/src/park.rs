//! Waiting on a thread for what was written for tasks.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A waker that lets one thread go on. Not the token of `std::thread::park`, which code that runs
/// in between may use up.
#[derive(Debug, Default)]
pub struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// A parker, and the waker that ends its waits.
    #[must_use]
    pub fn new() -> (Arc<Self>, Waker) {
        let parker = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&parker));
        (parker, waker)
    }

    /// Returns once it was woken since the last return, or after `limit`; [`Duration::MAX`] is
    /// none.
    pub fn park(&self, limit: Duration) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut woken = if limit == Duration::MAX {
            self.changed
                .wait_while(woken, |woken| !*woken)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            self.changed
                .wait_timeout_while(woken, limit, |woken| !*woken)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        };
        *woken = false;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

/// Polls `future` on this thread until it is ready. `None` if it still was not when polled after
/// `left` had come down to zero.
///
/// ```
/// use std::time::Duration;
///
/// let ready = overdrive_core::park::block_on(async { 7 }, || Duration::MAX);
/// assert_eq!(ready, Some(7));
/// let never = overdrive_core::park::block_on(std::future::pending::<()>(), || Duration::ZERO);
/// assert_eq!(never, None);
/// ```
pub fn block_on<F: Future>(future: F, left: impl Fn() -> Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let (parker, waker) = Parker::new();
    let mut context = Context::from_waker(&waker);
    loop {
        // Before the poll, so that the poll has seen that the time is up.
        let left = left();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if left.is_zero() {
            return None;
        }
        parker.park(left);
    }
}
