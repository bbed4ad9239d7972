//! What is dropped once no lock is held.

use std::mem;

use overdrive_core::unwind::survive;

/// Keys and values that left the cache. Make it before the lock is taken, so that it is dropped
/// after the lock is released. A panic in a destructor costs that value's destructor alone.
pub(crate) struct Garbage<K, V> {
    /// Usually there is one at most; it needs no allocation.
    first: Option<(K, V)>,
    more: Vec<(K, V)>,
    keys: Vec<K>,
}

impl<K, V> Garbage<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            first: None,
            more: Vec::new(),
            keys: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, key: K, value: V) {
        if self.first.is_none() {
            self.first = Some((key, value));
        } else {
            self.more.push((key, value));
        }
    }

    pub(crate) fn push_key(&mut self, key: K) {
        self.keys.push(key);
    }
}

impl<K, V> Drop for Garbage<K, V> {
    fn drop(&mut self) {
        for (key, value) in self
            .first
            .take()
            .into_iter()
            .chain(mem::take(&mut self.more))
        {
            survive(|| drop(key));
            survive(|| drop(value));
        }
        for key in mem::take(&mut self.keys) {
            survive(|| drop(key));
        }
    }
}
