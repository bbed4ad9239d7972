//! The clean-up thread of a pool with an idle timeout.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use overdrive_core::thread_slot::{self, ENDING};
use overdrive_core::unwind::survive;

use crate::engine::Inner;
use crate::local::Me;

/// The handle on the thread. It holds the pool weakly and ends with it.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

thread_local! {
    /// The signal that the calling thread listens to, if it is a clean-up thread. No destructor,
    /// so that it can be asked in a thread's last moments, when `thread::current` cannot.
    static LISTENS_TO: Cell<*const Signal> = const { Cell::new(ptr::null()) };
}

impl Housekeeper {
    pub(crate) fn start<T: Send + 'static>(
        pool: Weak<Inner<T>>,
        name: &str,
        every: Duration,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let heard = Arc::clone(&signal);
        // A zero byte would make the thread builder panic, and the others spoil a listing.
        let name = format!("overdrive-pool-{name}").replace(char::is_control, "?");
        let thread = Builder::new().name(name).spawn(move || {
            LISTENS_TO.set(Arc::as_ptr(&heard));
            while !heard.wait(every) {
                let Some(pool) = pool.upgrade() else { return };
                // A panic in a user's destructor has been reported by the panic hook. It must
                // not end the clean-up.
                survive(|| {
                    pool.trim_idle(Me::current());
                });
                // This may have become the last handle.
                survive(move || drop(pool));
            }
        })?;
        Ok(Self { signal, thread })
    }

    /// Has the thread end, and waits for that, unless this is the thread or one that is ending.
    ///
    /// The wait is short: while the pool's last handle is being dropped elsewhere, the thread can
    /// hold none, so it runs no user code. A thread that runs its exit hooks may hold a lock of
    /// the system's loader, which another thread's end needs too, so that one does not wait.
    pub(crate) fn stop(self) {
        *self
            .signal
            .stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.changed.notify_all();
        let is_it = ptr::eq(LISTENS_TO.get(), Arc::as_ptr(&self.signal));
        if !is_it && thread_slot::current() != ENDING {
            // It catches what it runs; there is nothing to learn from its result.
            let _ = self.thread.join();
        }
    }
}

impl Signal {
    /// Waits for `time`, or less if stopped, and says whether it is.
    fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = self
            .changed
            .wait_timeout_while(stopped, time, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *stopped
    }
}
