//! The guard for absent keys.

use std::time::Instant;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario};
use overdrive_tiered_cache::KeyFilter;

use crate::memory::Hasher;
use crate::ours;

const KEYS: u64 = 1_000_000;
const RATE: f64 = 0.01;

pub(crate) fn bloom() -> Scenario {
    Scenario::count(
        "cache/bloom",
        "absent keys that a full filter lets through",
        "per million",
    )
    .input("1,000,000 u64 keys, laid out for as many and one false positive in a hundred")
    .with(Contender::once(
        Role::Ours,
        ours::NAME,
        ours::VERSION,
        |_| passed(),
    ))
}

/// The checksum is the number of keys that are there and found.
fn passed() -> Figure {
    let builder = KeyFilter::<u64>::builder().expected_keys(KEYS as usize);
    let builder = builder.false_positive_rate(RATE).hasher(Hasher::default());
    let filter = match builder.build() {
        Ok(filter) => filter,
        Err(error) => panic!("a valid set-up was refused: {error}"),
    };
    (0..KEYS).for_each(|key| filter.insert(&key));
    let found = (0..KEYS).filter(|key| filter.may_contain(key)).count();
    let absent = 10 * KEYS;
    let begin = Instant::now();
    let passed = (KEYS..KEYS + absent).filter(|key| filter.may_contain(key));
    let passed = passed.count() as f64;
    let nanos = begin.elapsed().as_nanos() as f64;
    let mut figure = Figure {
        value: passed / absent as f64 * 1e6,
        check: found as u64,
        ..Figure::default()
    };
    let metrics = [
        ("fpr_over_configured", passed / absent as f64 / RATE),
        ("ns_per_check", nanos / absent as f64),
        ("bits_per_key", filter.stats().bits as f64 / KEYS as f64),
    ];
    figure.metrics = metrics.map(|(name, value)| (name.into(), value)).into();
    figure
}
