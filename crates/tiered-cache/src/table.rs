//! A map whose hashes are computed by its user, so that none is computed under a lock.

use std::borrow::Borrow;

use hashbrown::HashTable;

pub(crate) struct Table<K, T> {
    rows: HashTable<(u64, K, T)>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            rows: HashTable::new(),
        }
    }
}

impl<K, T> Table<K, T> {
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().map(|(_, _, value)| value)
    }
}

impl<K: Eq, T> Table<K, T> {
    pub(crate) fn get<Q>(&self, hash: u64, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let row = self.rows.find(hash, |(_, k, _)| k.borrow() == key);
        row.map(|(_, _, value)| value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The key must not be in it.
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: T) {
        self.rows
            .insert_unique(hash, (hash, key, value), |(hash, ..)| *hash);
    }

    /// Takes the row out if `condition` holds of its value.
    pub(crate) fn remove_if<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        condition: impl FnOnce(&T) -> bool,
    ) -> Option<(K, T)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let row = self.rows.find_entry(hash, |(_, k, _)| k.borrow() == key);
        let row = row.ok().filter(|row| condition(&row.get().2))?;
        let ((_, key, value), _) = row.remove();
        Some((key, value))
    }

    /// As [`remove_if`](Self::remove_if), of a row that `is_it` knows without its key.
    pub(crate) fn remove_where(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<(K, T)> {
        let row = self.rows.find_entry(hash, |(_, _, value)| is_it(value));
        let ((_, key, value), _) = row.ok()?.remove();
        Some((key, value))
    }

    /// Takes all rows out of whose value `condition` holds.
    pub(crate) fn take_all(&mut self, mut condition: impl FnMut(&T) -> bool) -> Vec<(K, T)> {
        let rows = self.rows.extract_if(|(_, _, value)| condition(value));
        rows.map(|(_, key, value)| (key, value)).collect()
    }
}
