//! The primitives that the loom models replace, and the switch for their controls.
//!
//! `Arc`, `Weak` and `OnceLock` stay std's: reference counts, the exit hook and the clean-up
//! thread are outside the models, which drive the pool's engine with explicit thread ids.

#[cfg(not(overdrive_loom))]
pub(crate) use self::plain::*;
#[cfg(overdrive_loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
    sync::{Mutex, MutexGuard},
};

#[cfg(not(overdrive_loom))]
mod plain {
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// std's cell with loom's closure interface.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// A guard that a control takes away, to show that its model notices.
#[cfg_attr(
    not(all(test, overdrive_loom)),
    expect(dead_code, reason = "only a model removes a guard")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// `put`'s slow path takes the cache for full although it answered a trim request just now.
    AssumeFull,
    /// A slot is freed while the registry still lists it, outside the lock.
    FreeOutsideLock,
    /// A thread's id is free for others before its cache is handed in.
    IdReleasedFirst,
    /// A bucket of table entries is published without Release.
    RelaxedBucket,
    /// What a trim has out for weighing keeps no room, and goes back all the same.
    RestoreBlindly,
    /// A trim takes the objects of another thread's cache itself.
    StealFromOwner,
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
    /// Objects that `StealFromOwner` took.
    pub(crate) static STOLEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
