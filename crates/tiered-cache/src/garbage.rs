//! What left the cache: told to the listener and dropped once no lock is held.

use std::mem;

use overdrive_core::unwind::survive;

use crate::slots::Left;

/// Why an entry left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// To make room for others.
    Evicted,
    /// Its time was over, and somebody came by.
    Expired,
    /// By `remove`, `remove_if`, `retain`, `invalidate_tag` or `clear`; by a value of its key that
    /// was not stored.
    Removed,
    /// Another value took its place.
    Replaced,
}

/// What is told of entries that left.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

/// Entries that left, and keys and values that never were entries. Make it before a lock is taken,
/// so that it is dropped after the lock is released. A panic in a destructor or in the listener
/// costs that call alone.
pub(crate) struct Garbage<'a, K, V> {
    listener: Option<&'a Listener<K, V>>,
    /// Usually there is one at most; it needs no allocation.
    first: Option<(K, V, Cause)>,
    more: Vec<Item<K, V>>,
}

enum Item<K, V> {
    Left(K, V, Cause),
    Key(K),
    Value(V),
}

impl<'a, K, V> Garbage<'a, K, V> {
    #[inline]
    pub(crate) fn new(listener: Option<&'a Listener<K, V>>) -> Self {
        Self {
            listener,
            first: None,
            more: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, key: K, value: V, cause: Cause) {
        if !mem::needs_drop::<(K, V)>() && self.listener.is_none() {
            // Nobody would notice.
        } else if self.first.is_none() {
            self.first = Some((key, value, cause));
        } else {
            self.more.push(Item::Left(key, value, cause));
        }
    }

    pub(crate) fn push_left(&mut self, left: Option<Left<K, V>>, cause: Cause) {
        if let Some(left) = left {
            self.push(left.key, left.value, cause);
        }
    }

    pub(crate) fn push_key(&mut self, key: K) {
        if mem::needs_drop::<K>() {
            self.more.push(Item::Key(key));
        }
    }

    /// Of what never was an entry.
    pub(crate) fn push_both(&mut self, key: K, value: V) {
        self.push_key(key);
        self.more.push(Item::Value(value));
    }

    /// Tells the listener of an entry that goes to somebody else.
    pub(crate) fn tell(&self, key: &K, value: &V, cause: Cause) {
        if let Some(listener) = self.listener {
            survive(|| listener(key, value, cause));
        }
    }

    fn empty(&mut self) {
        if let Some((key, value, cause)) = self.first.take() {
            self.drop_left(key, value, cause);
        }
        for item in mem::take(&mut self.more) {
            match item {
                Item::Left(key, value, cause) => self.drop_left(key, value, cause),
                Item::Key(key) => survive(|| drop(key)),
                Item::Value(value) => survive(|| drop(value)),
            }
        }
    }

    fn drop_left(&self, key: K, value: V, cause: Cause) {
        self.tell(&key, &value, cause);
        survive(|| drop(key));
        survive(|| drop(value));
    }
}

impl<K, V> Drop for Garbage<'_, K, V> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.first.is_some() || !self.more.is_empty() {
            self.empty();
        }
    }
}
