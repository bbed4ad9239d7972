//! A simulator of policies: which requests of a trace would have been hits.

mod arc;
mod lirs;
mod opt;
mod order;
mod queues;
mod s3fifo;
mod tinylfu;

pub(crate) use arc::Arc;
pub(crate) use lirs::Lirs;
pub(crate) use opt::best_hit_ratio;
pub(crate) use queues::{Fifo, Lru, Sieve};
pub(crate) use s3fifo::S3Fifo;
pub(crate) use tinylfu::TinyLfu;

/// The rules of the crate under test, as its tests hold it to them.
#[path = "../../../../../crates/tiered-cache/tests/support/policy.rs"]
#[expect(dead_code, reason = "tests of another crate use more of it")]
mod rules;

/// Which keys are kept.
pub(crate) trait Policy {
    fn new(capacity: usize) -> Self;
    /// Gets the key, or else stores it: whether it was there.
    fn access(&mut self, key: u64) -> bool;
}

/// The part of the requests that are hits.
pub(crate) fn hit_ratio<P: Policy>(keys: &[u64], capacity: usize) -> f64 {
    let mut policy = P::new(capacity);
    let hits = keys.iter().filter(|&&key| policy.access(key)).count();
    hits as f64 / keys.len() as f64
}

/// The rules of the crate under test, without the crate.
pub(crate) struct Rules(rules::Policy);

impl Policy for Rules {
    fn new(capacity: usize) -> Self {
        Self(rules::Policy::new(capacity))
    }

    fn access(&mut self, key: u64) -> bool {
        // The rules know keys by 32 bits, spread.
        let mixed = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0.access((mixed ^ (mixed >> 32)) as u32)
    }
}
