//! Futures without a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::Flag;

/// Runs a future on this thread until it is ready.
///
/// It is polled only when it has been woken, so a future that forgets its waker hangs here, and
/// after 60 seconds panics.
///
/// ```
/// assert_eq!(overdrive_testkit::block_on(async { 6 * 7 }), 42);
/// ```
///
/// # Panics
/// If the future is not woken for 60 seconds.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        // One flag per poll; a late wake of an earlier one is not lost on its own flag, since a
        // future must wake the last waker it was given.
        let woken = Arc::new(FlagWaker(Flag::new()));
        let waker = Waker::from(woken.clone());
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        woken.0.wait();
    }
}

struct FlagWaker(Flag);

impl Wake for FlagWaker {
    fn wake(self: Arc<Self>) {
        self.0.set();
    }
}

/// A waker that counts, to poll a future by hand.
///
/// ```
/// use std::future::Future;
/// use overdrive_testkit::CountingWaker;
///
/// let waker = CountingWaker::new();
/// let mut future = Box::pin(std::future::pending::<()>());
/// assert!(future.as_mut().poll(&mut waker.context()).is_pending());
/// assert_eq!(waker.wakes(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct CountingWaker {
    counting: Arc<Counting>,
    waker: Waker,
}

#[derive(Debug)]
struct Counting {
    wakes: AtomicUsize,
    thread: Thread,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl CountingWaker {
    /// A waker that has not been woken. It also unparks the thread that makes it.
    #[must_use]
    pub fn new() -> Self {
        let counting = Arc::new(Counting {
            wakes: AtomicUsize::new(0),
            thread: thread::current(),
        });
        let waker = Waker::from(counting.clone());
        Self { counting, waker }
    }

    /// How often it was woken.
    #[must_use]
    pub fn wakes(&self) -> usize {
        self.counting.wakes.load(Ordering::SeqCst)
    }

    /// The context to poll with.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// The waker itself.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl Default for CountingWaker {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_future_woken_from_another_thread_ends() {
        let stored: Arc<Mutex<Option<Waker>>> = Arc::default();
        let (set, mut polls) = (Flag::new(), 0);
        let future = std::future::poll_fn(|context| {
            polls += 1;
            if set.is_set() {
                return Poll::Ready(polls);
            }
            *stored.lock().unwrap() = Some(context.waker().clone());
            let (set, stored) = (set.clone(), stored.clone());
            thread::spawn(move || {
                set.set();
                let waker = stored.lock().unwrap().take();
                waker.unwrap().wake();
            });
            Poll::Pending
        });
        assert_eq!(block_on(future), 2);
    }

    #[test]
    fn wakes_are_counted_over_clones() {
        let waker = CountingWaker::new();
        waker.waker().wake_by_ref();
        let clone = waker.waker().clone();
        clone.wake();
        assert_eq!(waker.wakes(), 2);
    }
}
