//! Work that blocks a worker, and the worker that takes its place.

use std::sync::Arc;

use crate::engine::Shared;
use crate::raw::context;

/// Runs `f`, which may block for long, and sees to it that as many workers as before do other
/// work meanwhile: one that sleeps, or a new thread, of which there may be
/// [`spare_workers`](crate::ThreadPoolBuilder::spare_workers). A thread that is too much when `f`
/// has returned ends at its next rest. On a thread that is no worker it just runs `f`.
///
/// What the worker has spawned is not lost while it blocks: others take it.
///
/// Cost: some atomic operations; tens of microseconds if a thread has to be started.
///
/// ```
/// use overdrive_workstealing::{ThreadPool, blocking};
///
/// let pool = ThreadPool::builder().workers(1).spare_workers(1).build()?;
/// let (tell, told) = std::sync::mpsc::channel();
/// let waits = pool.submit(move || blocking(|| told.recv()))?;
/// pool.spawn(move || tell.send("the only worker blocks").unwrap())?;
/// assert!(waits.join()?.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If `f` does.
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    let worker_of = context::innermost(|frame| {
        let frame = frame?;
        frame.local.map(|_| Arc::clone(frame.shared))
    });
    let Some(shared) = worker_of else {
        return f();
    };
    let _blocked = Blocked::new(shared);
    f()
}

struct Blocked(Arc<Shared>);

impl Blocked {
    fn new(shared: Arc<Shared>) -> Self {
        shared.crew.block();
        if shared.crew.able() < shared.parts.workers {
            // If it cannot be started, there is one worker less for a while.
            let _: Result<bool, _> = shared.start_thread();
        } else {
            shared.notify();
        }
        Self(shared)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.crew.unblock();
    }
}
