//! The set-up of a loader.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::{Clock, ConfigError};

use crate::Batcher;
use crate::builder::{BatcherBuilder, MAX_MAX_SIZE};
use crate::loader::error::Failure;
use crate::loader::gather::{Desk, Gathered};
use crate::loader::{LoadCache, Loader};
use crate::settings::{BatchSettings, Gather, Overload};

/// Sets a [`Loader`] up. Nothing is required but the function, which `build_sync` or `build` takes.
#[must_use = "a builder does nothing until `build`"]
pub struct LoaderBuilder<K, V> {
    name: Cow<'static, str>,
    settings: BatchSettings,
    cache: Option<Box<dyn LoadCache<K, V>>>,
    clock: Option<Arc<dyn Clock>>,
}

/// What the function of a [`Loader`] may return: the values by key, or a list of them in the order
/// of the keys.
///
/// - [`HashMap<K, V>`]: a key that is not in it has no value. What was not asked for is ignored.
/// - [`Vec<Option<V>>`]: as many as there are keys. A list of another length is an error for the
///   whole batch, since nobody can say whose values are missing.
pub trait Loaded<K, V> {
    /// Whether `in_order` looks at the keys.
    #[doc(hidden)]
    const BY_KEY: bool;

    /// One for each key, or how many there are.
    #[doc(hidden)]
    fn in_order(self, keys: &[K], len: usize) -> Result<Vec<Option<V>>, usize>;
}

impl<K: Eq + Hash, V, S: BuildHasher> Loaded<K, V> for HashMap<K, V, S> {
    const BY_KEY: bool = true;

    fn in_order(mut self, keys: &[K], _: usize) -> Result<Vec<Option<V>>, usize> {
        Ok(keys.iter().map(|key| self.remove(key)).collect())
    }
}

impl<K, V> Loaded<K, V> for Vec<Option<V>> {
    const BY_KEY: bool = false;

    fn in_order(self, _: &[K], len: usize) -> Result<Self, usize> {
        if self.len() == len {
            Ok(self)
        } else {
            Err(self.len())
        }
    }
}

impl<K, V> LoaderBuilder<K, V> {
    pub(super) fn new() -> Self {
        Self {
            name: Cow::Borrowed("loader"),
            settings: BatchSettings::default(),
            cache: None,
            clock: None,
        }
    }

    /// A label for figures. Default `"loader"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from a plain value, where `max_size` is the most keys of a batch.
    pub fn settings(mut self, settings: BatchSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The most keys in one batch, counted before equal ones become one, so that the function never
    /// gets more. Default 100, at most [`MAX_MAX_SIZE`].
    pub fn max_keys(mut self, n: usize) -> Self {
        self.settings.max_size = n;
        self
    }

    /// See [`BatcherBuilder::max_wait`].
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.settings.max_wait = time;
        self
    }

    /// See [`BatcherBuilder::gather`].
    pub fn gather(mut self, gather: Gather) -> Self {
        self.settings.gather = gather;
        self
    }

    /// See [`BatcherBuilder::clock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// See [`BatcherBuilder::workers`].
    pub fn workers(mut self, n: usize) -> Self {
        self.settings.workers = n;
        self
    }

    /// See [`BatcherBuilder::capacity`].
    pub fn capacity(mut self, n: usize) -> Self {
        self.settings.capacity = Some(n);
        self
    }

    /// See [`BatcherBuilder::overload`].
    pub fn overload(mut self, overload: Overload) -> Self {
        self.settings.overload = overload;
        self
    }

    /// Where found values are kept and looked up before a key is submitted. Default nowhere: what is
    /// loaded once is loaded again.
    ///
    /// Costs a clone of each found key and value.
    pub fn cache(mut self, cache: impl LoadCache<K, V> + 'static) -> Self {
        self.cache = Some(Box::new(cache));
        self
    }

    /// Makes a loader whose function is a plain one, which may block. It is run by threads, as the
    /// handler of [`BatcherBuilder::build_sync`].
    ///
    /// The function gets each key once, never none, and returns the values by key or in the order of
    /// the keys: see [`Loaded`]. An error or a panic fails its batch and no other.
    ///
    /// # Errors
    /// As [`BatcherBuilder::build_sync`], with the field `max_keys` for `max_size`.
    pub fn build_sync<F, L, E>(self, f: F) -> Result<Loader<K, V, E>, ConfigError>
    where
        F: Fn(Vec<K>) -> Result<L, E> + Send + Sync + 'static,
        L: Loaded<K, V>,
        K: Clone + Eq + Hash + Send + 'static,
        V: Clone + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (desk, builder) = self.parts()?;
        let own = Arc::clone(&desk);
        let batcher = builder.build_sync(move |keys| {
            let (batch, unique) = Batch::begin::<L, V>(&own, keys);
            batch.end(&own, f(unique))
        })?;
        Ok(Loader { batcher, desk })
    }

    /// Makes a loader whose function is an async one. It is run by tasks of the current tokio
    /// runtime, as the handler of [`BatcherBuilder::build`].
    ///
    /// The function gets each key once, never none, and returns the values by key or in the order of
    /// the keys: see [`Loaded`]. An error or a panic fails its batch and no other.
    ///
    /// # Errors
    /// As [`BatcherBuilder::build`], with the field `max_keys` for `max_size`.
    #[cfg(feature = "tokio")]
    pub fn build<F, Fut, L, E>(self, f: F) -> Result<Loader<K, V, E>, ConfigError>
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<L, E>> + Send + 'static,
        L: Loaded<K, V> + Send,
        K: Clone + Eq + Hash + Send + 'static,
        V: Clone + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (desk, builder) = self.parts()?;
        let own = Arc::clone(&desk);
        let batcher = builder.build(move |keys| {
            let desk = Arc::clone(&own);
            let (batch, unique) = Batch::begin::<L, V>(&desk, keys);
            let future = f(unique);
            async move { batch.end(&desk, future.await) }
        })?;
        Ok(Loader { batcher, desk })
    }

    fn parts(self) -> Result<Parts<K, V>, ConfigError>
    where
        K: Send + 'static,
    {
        ConfigError::within("max_keys", self.settings.max_size, MAX_MAX_SIZE)?;
        let mut builder = Batcher::builder().name(self.name).settings(self.settings);
        if let Some(clock) = self.clock {
            builder = builder.clock(clock);
        }
        Ok((Arc::new(Desk::new(self.cache)), builder))
    }
}

type Parts<K, V> = (Arc<Desk<K, V>>, BatcherBuilder<K>);

/// A call of the function.
struct Batch<K> {
    gathered: Gathered,
    /// The unique keys again, if they are needed afterwards.
    kept: Vec<K>,
    len: usize,
}

impl<K: Clone + Eq + Hash> Batch<K> {
    /// With the keys to call it with.
    fn begin<L, V>(desk: &Desk<K, V>, mut keys: Vec<K>) -> (Self, Vec<K>)
    where
        L: Loaded<K, V>,
        V: Clone,
    {
        let gathered = desk.gather(&mut keys);
        let kept = if L::BY_KEY || desk.has_cache() {
            keys.clone()
        } else {
            Vec::new()
        };
        let len = keys.len();
        let batch = Self {
            gathered,
            kept,
            len,
        };
        (batch, keys)
    }

    /// With what it returned.
    fn end<L, V, E>(
        self,
        desk: &Desk<K, V>,
        returned: Result<L, E>,
    ) -> Result<Vec<Option<V>>, Failure<E>>
    where
        L: Loaded<K, V>,
        V: Clone,
    {
        let loaded = returned.map_err(|error| Failure::Function(Arc::new(error)))?;
        let values = loaded
            .in_order(&self.kept, self.len)
            .map_err(|got| Failure::Count {
                expected: self.len,
                got,
            })?;
        desk.keep(&self.gathered, self.kept, &values);
        Ok(desk.spread(self.gathered, values))
    }
}

impl<K, V> fmt::Debug for LoaderBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
