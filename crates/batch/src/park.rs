//! Waiting on a thread for what was written for tasks.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A waker that lets one thread go on. Not the thread's own token, which a handler may use up.
#[derive(Default)]
pub(crate) struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// Returns once woken since the last return, or after `limit`.
    pub(crate) fn park(&self, limit: Duration) {
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
pub(crate) fn block_on<F: Future>(future: F, left: impl Fn() -> Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut cx = Context::from_waker(&waker);
    loop {
        // Before the poll, so that the poll has seen that the time is up.
        let left = left();
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if left.is_zero() {
            return None;
        }
        parker.park(left);
    }
}

/// [`block_on`] without a limit.
pub(crate) fn block_on_forever<F: Future>(future: F) -> F::Output {
    block_on(future, || Duration::MAX).expect("there is no limit")
}
