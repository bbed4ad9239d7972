//! The switch between std and loom, and a lock that outlives panics.

#[cfg(overdrive_loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(overdrive_loom))]
pub(crate) use std::sync::atomic;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Of the user's code only `Eq` and `Clone` run under it, before anything is changed: a panic
/// leaves whole what it guards.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(RwLock<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
