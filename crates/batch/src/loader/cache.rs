//! Where loaded values may be kept.

/// What a [`Loader`](crate::Loader) keeps values in: any map or cache that can be shared.
///
/// It is asked by every load and told by every batch, inside async tasks: it has to be quick, and
/// must not block or wait. How many values it keeps and for how long is its own affair. Only found
/// values are kept, neither errors nor that there is none.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use overdrive_batch::LoadCache;
///
/// /// Of one request, and dropped with it.
/// struct Memory(Mutex<HashMap<u64, String>>);
///
/// impl LoadCache<u64, String> for Memory {
///     fn get(&self, key: &u64) -> Option<String> {
///         self.0.lock().unwrap().get(key).cloned()
///     }
///
///     fn insert(&self, key: u64, value: String) {
///         self.0.lock().unwrap().insert(key, value);
///     }
///
///     fn remove(&self, key: &u64) {
///         self.0.lock().unwrap().remove(key);
///     }
/// }
/// ```
pub trait LoadCache<K, V>: Send + Sync {
    /// The value, if it is there.
    fn get(&self, key: &K) -> Option<V>;

    /// Puts a value there, in place of any other.
    fn insert(&self, key: K, value: V);

    /// Takes a value away, if it is there.
    fn remove(&self, key: &K);
}

impl<K, V, C: LoadCache<K, V> + ?Sized> LoadCache<K, V> for std::sync::Arc<C> {
    fn get(&self, key: &K) -> Option<V> {
        (**self).get(key)
    }

    fn insert(&self, key: K, value: V) {
        (**self).insert(key, value);
    }

    fn remove(&self, key: &K) {
        (**self).remove(key);
    }
}
