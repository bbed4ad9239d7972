//! The primitives that the models replace: loom's run every schedule of few steps, shuttle's random
//! ones of many.

#[cfg(overdrive_loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{JoinHandle, Thread, current as current_thread, park, yield_now},
};
#[cfg(overdrive_shuttle)]
pub(crate) use shuttle::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{JoinHandle, Thread, current as current_thread, park, yield_now},
};
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{JoinHandle, Thread, current as current_thread, park, yield_now},
};

/// Takes a lock under which nothing of the user's runs, so that no panic can have poisoned it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits on a condition of such a lock.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Parks for so long at most. The models know no time: there it is a plain wait, or none.
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) use std::thread::park_timeout;

#[cfg(any(overdrive_loom, overdrive_shuttle))]
pub(crate) fn park_timeout(_: std::time::Duration) {
    park();
}

/// A thread of that name.
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) fn spawn_thread(
    name: String,
    stack_size: Option<usize>,
    f: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let mut builder = std::thread::Builder::new().name(name);
    if let Some(bytes) = stack_size {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(f)
}

#[cfg(overdrive_shuttle)]
pub(crate) fn spawn_thread(
    _: String,
    _: Option<usize>,
    f: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    Ok(shuttle::thread::spawn(f))
}

/// Loom models parts of the pool, which start no threads of their own.
#[cfg(overdrive_loom)]
pub(crate) fn spawn_thread(
    _: String,
    _: Option<usize>,
    f: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    Ok(loom::thread::spawn(f))
}

/// A guard that a control takes away, to show that its model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The owner of a split deque publishes a job without Release.
    RelaxedPublish,
    /// The owner takes a public job back without looking whether a thief has it.
    TakeBackBlindly,
    /// A worker sleeps without having looked for work after it said so.
    SleepUnseen,
    /// A worker that wakes by itself leaves the token of the one who woke it at the same time.
    DropToken,
    /// A task ends without a word to who waits for it.
    FinishSilently,
    /// A place is freed without the lock of those who wait for one.
    FreeUnlocked,
    /// A thief ends a join without a look whether its owner sleeps.
    EndBlindly,
}

/// Whether the running model has taken `mutant`'s guard away; constant `false` in real builds.
#[cfg(not(all(test, overdrive_loom)))]
#[inline(always)]
pub(crate) const fn removed(_: Mutant) -> bool {
    false
}

#[cfg(all(test, overdrive_loom))]
pub(crate) fn removed(mutant: Mutant) -> bool {
    REMOVED.get() == Some(mutant)
}

#[cfg(all(test, overdrive_loom))]
thread_local! {
    /// Loom runs all threads of a model on the thread of its test.
    pub(crate) static REMOVED: std::cell::Cell<Option<Mutant>> =
        const { std::cell::Cell::new(None) };
}
