//! Loads that wait on a thread.

use std::hash::Hash;

use overdrive_core::{Deadline, DrainReport};

use crate::loader::{LoadError, Loader, fill};

impl<K, V, E> Loader<K, V, E>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// [`load`](Self::load), waited for on this thread. Without a runtime, with either kind of
    /// function.
    ///
    /// # Errors
    /// As `load`.
    ///
    /// # Panics
    /// As `load`; and on a thread that must not wait, see
    /// [`Batcher::submit_blocking`](crate::Batcher::submit_blocking), unless the cache has the value.
    #[track_caller]
    pub fn load_blocking(&self, key: K) -> Result<Option<V>, LoadError<K, E>> {
        if let Some(value) = self.desk.look_up(&key) {
            return Ok(Some(value));
        }
        self.batcher.submit_blocking(key).map_err(LoadError::of)
    }

    /// [`load_many`](Self::load_many), waited for on this thread.
    ///
    /// # Errors
    /// As `load_many`.
    ///
    /// # Panics
    /// As [`load_blocking`](Self::load_blocking).
    #[track_caller]
    pub fn load_many_blocking(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<V>, LoadError<K, E>>> {
        let (known, missing) = self.desk.look_all_up(keys);
        if missing.is_empty() {
            return fill(known, Vec::new());
        }
        let loaded = self.batcher.submit_all(missing).wait_blocking();
        fill(known, loaded)
    }
}

impl<K, V, E> Loader<K, V, E> {
    /// As [`Batcher::drain_blocking`](crate::Batcher::drain_blocking), counting keys asked for.
    ///
    /// # Panics
    /// As it.
    #[track_caller]
    pub fn drain_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.batcher.drain_blocking(deadline)
    }

    /// As [`Batcher::shutdown_blocking`](crate::Batcher::shutdown_blocking), counting keys asked
    /// for.
    ///
    /// # Panics
    /// As it.
    #[track_caller]
    pub fn shutdown_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.batcher.shutdown_blocking(deadline)
    }
}
