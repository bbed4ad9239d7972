//! Those who run the batches: threads of the batcher's own, or tasks of tokio.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use overdrive_core::park::Parker;
use overdrive_core::unwind::{drop_payload, survive};

use crate::after::{After, drop_each};
use crate::engine::{Cause, Next, Ready, Shared, Verdict};
use crate::isolate::Bisection;
use crate::observe::{Observed, Origins};

/// So many batchers deep is it known whose handlers a thread is in.
const DEPTH: usize = 4;

// The addresses of the batchers that this thread works for, the latest first.
#[cfg(not(overdrive_shuttle))]
thread_local! {
    static EMPLOYERS: Cell<[usize; DEPTH]> = const { Cell::new([0; DEPTH]) };
}
#[cfg(overdrive_shuttle)]
shuttle::thread_local! {
    static EMPLOYERS: Cell<[usize; DEPTH]> = Cell::new([0; DEPTH]);
}

fn address<S>(shared: &Arc<S>) -> usize {
    Arc::as_ptr(shared).cast::<()>() as usize
}

/// This thread works for that batcher from now on.
pub(crate) fn employ<S>(shared: &Arc<S>) {
    let mut employers = [0; DEPTH];
    employers[0] = address(shared);
    EMPLOYERS.with(|cell| cell.set(employers));
}

/// Runs what belongs to that batcher's handler, on a thread that is not its own.
pub(crate) fn employed<S, O>(shared: &Arc<S>, f: impl FnOnce() -> O) -> O {
    struct Back([usize; DEPTH]);
    impl Drop for Back {
        fn drop(&mut self) {
            EMPLOYERS.with(|cell| cell.set(self.0));
        }
    }
    let back = Back(EMPLOYERS.with(Cell::get));
    let mut employers = [0; DEPTH];
    employers[0] = address(shared);
    employers[1..].copy_from_slice(&back.0[..DEPTH - 1]);
    EMPLOYERS.with(|cell| cell.set(employers));
    f()
}

/// Whether this thread works for that batcher.
pub(crate) fn is_employed<S>(shared: &Arc<S>) -> bool {
    EMPLOYERS.with(Cell::get).contains(&address(shared))
}

/// Sees to it that a thread which must not wait does not.
///
/// # Panics
/// On a worker thread of this batcher, and in an async context of tokio.
#[track_caller]
pub(crate) fn may_block<S>(shared: &Arc<S>) {
    assert!(
        !is_employed(shared),
        "a handler must not wait for its own batcher: the worker would wait for itself"
    );
    #[cfg(feature = "tokio")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // Panics where blocking is not allowed.
        runtime.block_on(std::future::ready(()));
    }
}

/// What runs batches: the way to what a batch needs, and what then runs it.
pub(crate) struct Handler<A, F, L> {
    /// What it needs, where that is nothing.
    pub(crate) at_hand: fn() -> Option<L>,
    pub(crate) acquire: A,
    pub(crate) call: F,
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
pub(crate) fn spawn_thread<T, R, E, L, A, F>(
    place: Place<T, R, E>,
    handler: Arc<Handler<A, F, L>>,
) -> std::io::Result<JoinHandle<()>>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    L: 'static,
    A: Fn() -> Result<L, E> + Send + Sync + 'static,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
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

fn work<T, R, E, L, A, F>(place: &Place<T, R, E>, handler: &Handler<A, F, L>)
where
    A: Fn() -> Result<L, E>,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E>,
{
    let Place { shared, worker } = place;
    employ(shared);
    let (parker, waker) = Parker::new();
    shared.enlist(*worker, &waker);
    let mut after = After::new();
    let mut lease = Ok(None);
    let mut ready = Ready::Called;
    loop {
        let mut next = shared.next(*worker, ready, &mut after);
        while let Next::Batch(items, origins) = next {
            let verdict = match std::mem::replace(&mut lease, Ok(None)) {
                Ok(lease) => run(shared, *worker, handler, lease, items, origins),
                Err(cause) => {
                    drop_each(items);
                    Verdict::Failed(cause)
                }
            };
            next = shared.publish(*worker, verdict, &mut after);
        }
        ready = match next {
            Next::Lease => {
                lease = caught(|| (handler.acquire)()).map(Some);
                Ready::Leased
            }
            Next::Tick => {
                thread::yield_now();
                Ready::Ticked
            }
            // All items were withdrawn while the lease was acquired.
            Next::Park(_) if !matches!(lease, Ok(None)) => {
                let unused = std::mem::replace(&mut lease, Ok(None));
                survive(|| drop(unused));
                Ready::Called
            }
            Next::Park(limit) => {
                parker.park(limit);
                if shared.ticks() {
                    thread::yield_now();
                    Ready::Ticked
                } else {
                    Ready::Called
                }
            }
            Next::Ended => return,
            Next::Batch(..) => unreachable!("run above"),
        };
    }
}

/// Runs a batch: in parts, if it fails and its items are to be told apart.
pub(crate) fn run<T, R, E, L, A, F>(
    shared: &Shared<T, R, E>,
    worker: usize,
    handler: &Handler<A, F, L>,
    mut lease: Option<L>,
    items: Vec<T>,
    mut origins: Origins,
) -> Verdict<R, E>
where
    A: Fn() -> Result<L, E>,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E>,
{
    let Some(rule) = &shared.rules.isolate else {
        return attempt(shared, handler, lease, items, origins).into();
    };
    let mut bisection = Bisection::new(rule, items);
    while let Some(part) = bisection.next() {
        if !shared.has_batch(worker) {
            return bisection.given_up();
        }
        let copies = bisection.copies(part);
        let returned = copies.and_then(|items| {
            // Only the first call, of all items, has their links.
            attempt(
                shared,
                handler,
                lease.take(),
                items,
                std::mem::take(&mut origins),
            )
        });
        bisection.record(returned);
    }
    survive(|| drop(lease));
    bisection.verdict()
}

/// One call of the handler, with a lease of its own unless there is one.
fn attempt<T, R, E, L, A, F>(
    shared: &Shared<T, R, E>,
    handler: &Handler<A, F, L>,
    lease: Option<L>,
    items: Vec<T>,
    origins: Origins,
) -> Result<Vec<R>, Cause<E>>
where
    A: Fn() -> Result<L, E>,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E>,
{
    let lease = match lease.or_else(handler.at_hand) {
        Some(lease) => lease,
        None => match caught(|| (handler.acquire)()) {
            Ok(lease) => lease,
            Err(cause) => {
                drop_each(items);
                return Err(cause);
            }
        },
    };
    caught(|| {
        let observed = Observed::begin(&shared.rules.name, items.len(), origins);
        observed.run(|| (handler.call)(lease, items))
    })
}

pub(crate) fn caught<O, E>(call: impl FnOnce() -> Result<O, E>) -> Result<O, Cause<E>> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(returned) => returned.map_err(|error| Cause::Batch(Arc::new(error))),
        Err(payload) => Err(panicked(payload)),
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
