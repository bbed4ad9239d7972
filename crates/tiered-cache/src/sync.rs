//! The switch between std and the models' primitives.
//!
//! Loom runs all schedules of the lock (with few preemptions), the budget and a flight, shuttle
//! random ones of a whole cache.

#[cfg(overdrive_loom)]
pub(crate) use loom::{
    hint::spin_loop as spin,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(overdrive_shuttle)]
pub(crate) use shuttle::{
    hint::spin_loop as spin,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) use std::{
    hint::spin_loop as spin,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

use std::sync::PoisonError;

/// Nothing that it guards is ever left half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Lets others run for a short while, whatever their priority.
pub(crate) fn nap() {
    #[cfg(any(overdrive_loom, overdrive_shuttle))]
    thread::yield_now();
    #[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
    #[expect(clippy::disallowed_methods, reason = "nobody tells when it is over")]
    thread::sleep(std::time::Duration::from_micros(50));
}

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

    #[inline]
    pub(crate) fn with<O>(&self, f: impl FnOnce(*const V) -> O) -> O {
        f(self.0.get())
    }

    #[inline]
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
