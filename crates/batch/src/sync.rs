//! The primitives that the models replace: loom's run every schedule of few steps, shuttle's random
//! ones of many.

#[cfg(overdrive_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(overdrive_shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A value that is reached through shared references, with loom's interface.
#[cfg(not(overdrive_loom))]
pub(crate) struct UnsafeCell<V>(std::cell::UnsafeCell<V>);

#[cfg(not(overdrive_loom))]
impl<V> UnsafeCell<V> {
    pub(crate) const fn new(value: V) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) const fn get_mut(&mut self) -> &mut V {
        self.0.get_mut()
    }

    pub(crate) fn with<O>(&self, f: impl FnOnce(*const V) -> O) -> O {
        f(self.0.get())
    }

    pub(crate) fn with_mut<O>(&self, f: impl FnOnce(*mut V) -> O) -> O {
        f(self.0.get())
    }
}

#[cfg(overdrive_loom)]
pub(crate) struct UnsafeCell<V>(loom::cell::UnsafeCell<V>);

#[cfg(overdrive_loom)]
#[allow(unsafe_code, reason = "loom's cell has no safe way in")]
impl<V> UnsafeCell<V> {
    pub(crate) fn new(value: V) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    pub(crate) fn get_mut(&mut self) -> &mut V {
        // SAFETY: the reference is exclusive.
        self.0.with_mut(|value| unsafe { &mut *value })
    }

    pub(crate) fn with<O>(&self, f: impl FnOnce(*const V) -> O) -> O {
        self.0.with(f)
    }

    pub(crate) fn with_mut<O>(&self, f: impl FnOnce(*mut V) -> O) -> O {
        self.0.with_mut(f)
    }
}

/// Takes a lock under which nothing of the user's runs, so that no panic can have poisoned it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A guard that a control takes away, to show that its model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A cell is said to be over before its slots are there.
    OverTooEarly,
    /// A cell serves another batch before all outcomes have been fetched.
    ReopenUnfetched,
    /// A task that goes to sleep does not look again.
    SleepBlindly,
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
    static REMOVED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Runs a model without a guard.
#[cfg(all(test, overdrive_loom))]
pub(crate) fn without(mutant: Mutant, model: impl FnOnce()) {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            REMOVED.set(None);
        }
    }
    REMOVED.set(Some(mutant));
    let _back = Back;
    model();
}
