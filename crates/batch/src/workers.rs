//! Those who run the batches: threads of the batcher's own, or tasks of tokio.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use overdrive_core::park::Parker;
use overdrive_core::unwind::drop_payload;

use crate::engine::{Cause, Next, Shared};

thread_local! {
    /// The address of the batcher that this thread works for.
    static EMPLOYER: Cell<usize> = const { Cell::new(0) };
}

fn address<T, R, E>(shared: &Arc<Shared<T, R, E>>) -> usize {
    Arc::as_ptr(shared).cast::<()>() as usize
}

/// Sees to it that a thread which must not wait does not.
///
/// # Panics
/// On a worker thread of this batcher, and in an async context of tokio.
#[track_caller]
pub(crate) fn may_block<T, R, E>(shared: &Arc<Shared<T, R, E>>) {
    assert!(
        EMPLOYER.get() != address(shared),
        "a handler must not wait for its own batcher: the worker would wait for itself"
    );
    #[cfg(feature = "tokio")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // Panics where blocking is not allowed.
        runtime.block_on(std::future::ready(()));
    }
}

/// A worker's place in the batcher. Left in whatever way the worker ends.
pub(crate) struct Place<T, R, E> {
    pub(crate) shared: Arc<Shared<T, R, E>>,
    pub(crate) worker: usize,
}

impl<T, R, E> Drop for Place<T, R, E> {
    fn drop(&mut self) {
        self.shared.worker_gone(self.worker);
    }
}

/// Starts a worker thread, which ends when the batcher is closed and has nothing left.
pub(crate) fn spawn_thread<T, R, E, F>(
    place: Place<T, R, E>,
    handler: Arc<F>,
) -> std::io::Result<JoinHandle<()>>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    F: Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
{
    let name = format!("overdrive-batch-{}", place.worker);
    thread::Builder::new()
        .name(name)
        .spawn(move || work(&place, &*handler))
}

/// Waits for threads to end.
pub(crate) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // What it can have panicked with is the handler's own destructor's.
        if let Err(payload) = thread.join() {
            drop_payload(payload);
        }
    }
}

fn work<T, R, E>(place: &Place<T, R, E>, handler: &impl Fn(Vec<T>) -> Result<Vec<R>, E>) {
    let Place { shared, worker } = place;
    EMPLOYER.set(address(shared));
    let (parker, waker) = Parker::new();
    loop {
        match shared.next(*worker, &waker) {
            Next::Batch(items) => {
                let size = items.len();
                let verdict = match catch_unwind(AssertUnwindSafe(|| handler(items))) {
                    Ok(returned) => returned.map_err(|error| Cause::Batch(Arc::new(error))),
                    Err(payload) => Err(panicked(payload)),
                };
                shared.publish(*worker, size, verdict);
            }
            Next::Tick => thread::yield_now(),
            Next::Park(limit) => parker.park(limit),
            Next::Ended => return,
        }
    }
}

/// What a caught panic tells the submitters.
pub(crate) fn panicked<E>(payload: Box<dyn Any + Send>) -> Cause<E> {
    let message = match payload.downcast_ref::<&'static str>() {
        Some(message) => Arc::from(*message),
        None => match payload.downcast_ref::<String>() {
            Some(message) => Arc::from(message.as_str()),
            None => Arc::from("a payload that is not text"),
        },
    };
    drop_payload(payload);
    Cause::Panicked(message)
}
