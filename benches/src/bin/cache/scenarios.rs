//! The scenarios.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario};
use overdrive_tiered_cache::{Cache, TieredCache};

use crate::ours;
#[cfg(feature = "cache-peers")]
use crate::peers::{Moka, MokaFuture, MutexLru, QuickCache};
use crate::reference::RwLockMap;

/// Entries that fit.
const CAPACITY: usize = 10_000;
/// Keys of the mixed scenario.
const KEYS: usize = 100_000;
/// Keys that are got in a row, over and over; a power of two.
const HOT: u64 = 1_024;
/// Drawn keys, a power of two.
const DRAWN: usize = 1 << 16;
const CALLERS: u64 = 1_000;

/// A cache in memory.
pub(crate) trait Memory: Send + Sync + Sized + 'static {
    fn new(capacity: usize) -> Self;
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64, value: u64);
}

/// A cache with an asynchronous loader. A clone is a handle.
pub(crate) trait Stampede: Clone + Send + Sync + 'static {
    fn new() -> Self;
    fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> impl Future<Output = Option<u64>> + Send;
}

/// All scenarios of caches.
pub(crate) fn suite() -> Vec<Scenario> {
    vec![get_hit(), mix(), stampede()]
}

fn get_hit() -> Scenario {
    let scenario = Scenario::time("cache/get_hit", "get a value that is there")
        .input("1,024 keys in turn, u64 to u64, of a cache for 10,000; no expiry")
        .threads(&[1, 2, 4]);
    let limit = hits::<RwLockMap>(Role::Limit, "rwlock-map", "std");
    let ours = hits::<Cache<u64, u64>>(Role::Ours, "overdrive-tiered-cache", ours::VERSION);
    let scenario = scenario.with(ours).with(limit);
    #[cfg(feature = "cache-peers")]
    let scenario = scenario
        .with(hits::<QuickCache>(
            Role::Peer,
            "quick_cache",
            &version("quick_cache"),
        ))
        .with(hits::<Moka>(Role::Peer, "moka", &version("moka")))
        .with(hits::<MutexLru>(
            Role::Reference,
            "mutex-lru",
            &version("lru"),
        ));
    scenario
}

/// The checksum is that of the values, which the keys determine.
fn hits<C: Memory>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |_| {
        let cache: &'static C = Box::leak(Box::new(C::new(CAPACITY)));
        for key in 0..HOT {
            cache.insert(key, value_of(key));
        }
        move |_| {
            move |ops| {
                (0..ops).fold(0_u64, |sum, n| {
                    sum.wrapping_add(cache.get(n % HOT).unwrap_or(0))
                })
            }
        }
    })
}

fn mix() -> Scenario {
    let scenario = Scenario::time("cache/mix_zipf_09", "get a value, or make and insert it")
        .input("100,000 u64 keys, Zipf 0.9, of a cache for 10,000; no expiry")
        .threads(&[1, 2, 4]);
    let ours = mixed::<Cache<u64, u64>>(Role::Ours, "overdrive-tiered-cache", ours::VERSION);
    let limit = mixed::<RwLockMap>(Role::Context, "rwlock-map", "std")
        .remark("never evicts, so it soon has all keys");
    let scenario = scenario.with(ours).with(limit);
    #[cfg(feature = "cache-peers")]
    let scenario = scenario
        .with(mixed::<QuickCache>(
            Role::Peer,
            "quick_cache",
            &version("quick_cache"),
        ))
        .with(mixed::<Moka>(Role::Peer, "moka", &version("moka")))
        .with(mixed::<MutexLru>(
            Role::Reference,
            "mutex-lru",
            &version("lru"),
        ));
    scenario
}

/// The checksum is that of the values returned or made, whatever was kept.
fn mixed<C: Memory>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let cache: &'static C = Box::leak(Box::new(C::new(CAPACITY)));
        let keys: Arc<[u64]> = zipf(setup.seed).into();
        for &key in keys.iter() {
            get_or_insert(cache, key);
        }
        move |thread| {
            let keys = Arc::clone(&keys);
            let mut at = thread * DRAWN / 8;
            move |ops| {
                (0..ops).fold(0_u64, |sum, _| {
                    at = (at + 1) % DRAWN;
                    sum.wrapping_add(get_or_insert(cache, keys[at]))
                })
            }
        }
    })
}

fn get_or_insert<C: Memory>(cache: &C, key: u64) -> u64 {
    cache.get(key).unwrap_or_else(|| {
        let value = value_of(key);
        cache.insert(key, value);
        value
    })
}

fn value_of(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Keys of which the n-th most frequent comes as often as `n^-0.9`.
fn zipf(seed: u64) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|n| {
            sum += (n as f64).powf(-0.9);
            sum
        })
        .collect();
    let mut state = seed;
    let draw = |_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        sums.partition_point(|&upto| upto < part * sum) as u64
    };
    (0..DRAWN).map(draw).collect()
}

fn stampede() -> Scenario {
    let scenario = Scenario::count(
        "cache/stampede_1000",
        "1,000 tasks load one key at a time; the first of them is aborted while it waits",
        "loader calls",
    )
    .input("a loader that takes 20 ms")
    .threads(&[2])
    .slow();
    let ours = calls::<TieredCache<u64, u64>>(Role::Ours, "overdrive-tiered-cache", ours::VERSION);
    let scenario = scenario.with(ours);
    #[cfg(feature = "cache-peers")]
    let scenario = scenario
        .with(calls::<MokaFuture>(Role::Peer, "moka", &version("moka")))
        .with(calls::<Arc<QuickCache>>(
            Role::Peer,
            "quick_cache",
            &version("quick_cache"),
        ));
    scenario
}

fn calls<C: Stampede>(role: Role, name: &str, version: &str) -> Contender {
    Contender::once(role, name, version, |_| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        };
        runtime.block_on(async {
            let (cache, calls) = (C::new(), Arc::new(AtomicU64::new(0)));
            let ask = || {
                let calls = Arc::clone(&calls);
                tokio::spawn(cache.clone().load(1, async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(7)
                }))
            };
            let first = ask();
            while calls.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let others: Vec<_> = (1..CALLERS).map(|_| ask()).collect();
            first.abort();
            let mut check = 0;
            for other in others {
                check += other.await.ok().flatten().unwrap_or(0);
            }
            Figure {
                value: calls.load(Ordering::Relaxed) as f64,
                check,
                ..Figure::default()
            }
        })
    })
}

/// The version that the benchmark was built with.
#[cfg(feature = "cache-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}
