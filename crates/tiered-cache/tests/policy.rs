//! Step by step, a cache of one shard keeps what the policy says.

#[path = "support/policy.rs"]
#[expect(dead_code, reason = "the benchmarks use more of it")]
mod policy;

use std::hash::{BuildHasher, Hash, Hasher};

use overdrive_tiered_cache::Cache;
use policy::Policy;

/// A key that knows what the cache makes of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.0);
    }
}

#[derive(Clone, Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, n: u32) {
        self.0 = u64::from(n);
    }
}

impl BuildHasher for Plain {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        self.clone()
    }
}

/// What a cache spreads a key's hash to, of which a shard sees the lower half.
fn spread(key: u32) -> u32 {
    let wide = u128::from(u64::from(key) ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
    ((wide as u64) ^ ((wide >> 64) as u64)) as u32
}

/// Loops, a hot set that moves, and keys that come once.
fn requests(seed: u64, n: usize) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut next = 1 << 20;
    let mut keys = Vec::new();
    while keys.len() < n {
        let (hot, length) = (rng.u32(..5) * 100, rng.usize(1..2_000));
        match rng.u8(..4) {
            0 => keys.extend((0..length).map(|i| 10_000 + i as u32 % (1 + hot))),
            1 => keys.extend((0..length).map(|_| {
                next += 1;
                next
            })),
            _ => keys.extend((0..length).map(|_| hot + rng.u32(..rng.clone().u32(1..400)))),
        }
    }
    keys.truncate(n);
    keys
}

fn follow(capacity: usize, seed: u64, n: usize, removals: bool) {
    let cache = Cache::builder()
        .max_entries(capacity)
        .shards(1)
        .hasher(Plain(0))
        .build()
        .unwrap();
    let mut policy = Policy::new(capacity);
    let mut rng = fastrand::Rng::with_seed(seed);
    for (step, key) in requests(seed, n).into_iter().enumerate() {
        let (key, hash) = (Key(key), spread(key));
        match rng.u8(..20) {
            0 if removals => {
                assert_eq!(cache.remove(&key).is_some(), policy.remove(hash), "{step}");
            }
            1 => {
                cache.insert(key, ()).unwrap();
                policy.insert(hash);
            }
            _ => {
                let hit = cache.get(&key).is_some();
                assert_eq!(hit, policy.get(hash), "step {step} of {capacity}");
                if !hit {
                    cache.insert(key, ()).unwrap();
                    policy.insert(hash);
                }
            }
        }
        assert_eq!(cache.len(), policy.len(), "{step}");
    }
    let kept = cache
        .iter()
        .filter(|(key, ())| policy.contains(spread(key.0)));
    assert_eq!(kept.count(), policy.len());
}

#[test]
fn a_shard_keeps_what_the_policy_keeps() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    let n = if deep { 400_000 } else { 8_000 };
    for capacity in [1, 2, 3, 10, 100, 333, 1_500] {
        follow(capacity, capacity as u64, n, false);
    }
}

#[test]
fn a_shard_keeps_what_the_policy_keeps_of_what_is_not_removed() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    let n = if deep { 100_000 } else { 4_000 };
    for capacity in [1, 2, 7, 50, 400] {
        follow(capacity, capacity as u64, n, true);
    }
}
