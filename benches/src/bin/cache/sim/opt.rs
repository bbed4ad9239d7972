//! The limit: what a cache that knows the future would keep. Belady, "A study of replacement
//! algorithms for a virtual-storage computer", IBM Systems Journal 1966, with the right not to
//! store at all.

use std::collections::BTreeSet;

use foldhash::HashMap;

/// The part of the requests that are hits, at best.
pub(crate) fn best_hit_ratio(keys: &[u64], capacity: usize) -> f64 {
    let mut next = vec![usize::MAX; keys.len()];
    let mut last: HashMap<u64, usize> = HashMap::default();
    for (at, &key) in keys.iter().enumerate() {
        if let Some(before) = last.insert(key, at) {
            next[before] = at;
        }
    }
    // By their next use, which no two share.
    let mut kept = BTreeSet::new();
    let mut hits = 0_usize;
    for (at, &next) in next.iter().enumerate() {
        if kept.remove(&at) {
            hits += 1;
        } else if kept.len() >= capacity && kept.last().is_none_or(|&latest| latest <= next) {
            continue;
        } else if kept.len() >= capacity {
            kept.pop_last();
        }
        if next != usize::MAX {
            kept.insert(next);
        }
    }
    hits as f64 / keys.len() as f64
}
