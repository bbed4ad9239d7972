//! Whether every id was handed out once, and to whom it belongs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The ids of the first slice, with the keys of those who got them; nothing after it.
#[derive(Debug)]
pub(super) struct Seen(Mutex<Option<Vec<(i64, i64)>>>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    pub(super) fn note(&self, id: i64, key: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_mut() {
            seen.push((id, key));
        }
    }

    /// What was noted, the first time.
    pub(super) fn take(&self) -> Option<Vec<(i64, i64)>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take()
    }
}

/// How many were told the id of their own row, if as many rows are in the table.
pub(super) fn right(seen: &[(i64, i64)], table: &HashMap<i64, i64>) -> u64 {
    let distinct: HashMap<i64, i64> = seen.iter().copied().collect();
    if distinct.len() != seen.len() || distinct.len() != table.len() {
        return 0;
    }
    let own = distinct
        .iter()
        .filter(|&(id, key)| table.get(id) == Some(key));
    own.count() as u64
}
