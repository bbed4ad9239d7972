//! The scenarios of speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_core::clock::CoarseClock;

use crate::memory::{Key, Memory, Size, Value, get_or_insert, value_of};
use crate::ours::{self, Ours};
#[cfg(feature = "cache-peers")]
use crate::peers::*;
use crate::reference::RwLockMap;
use crate::traces::zipf;
use crate::{bloom, bytes, hits, stampede};

/// Parts with a lock of their own, of all who have such.
const SHARDS: usize = 64;
/// Keys that are got.
const KEYS: usize = 100_000;
/// Drawn keys, a power of two.
const DRAWN: usize = 1 << 20;
/// Keys of the mixed scenarios, of which a tenth fits.
const MIXED: usize = 1_000_000;

/// All scenarios of caches.
pub(crate) fn suite() -> Vec<Scenario> {
    vec![
        hits::hit_ratio(),
        get_hit(),
        get_hit_string(),
        mix("cache/mix_zipf_09", 0.9),
        mix("cache/mix_zipf_10", 1.0),
        insert_evict(),
        ttl_get(),
        bytes::bytes_per_entry(),
        stampede::stampede(),
        bloom::bloom(),
    ]
}

fn get_hit() -> Scenario {
    let scenario = Scenario::time("cache/get_hit", "get a value that is there")
        .input("Zipf 0.99 over 100,000 keys, u64 to u64, room for 200,000, 64 shards; no expiry")
        .threads(&[1, 2, 4])
        .instances(1);
    let make = |rank| (rank, value_of(rank));
    let scenario = scenario
        .with(got::<Ours<u64, u64>, _, _>(
            Role::Ours,
            ours::NAME,
            ours::VERSION,
            make,
            |v| v,
        ))
        .with(got::<RwLockMap<u64, u64>, _, _>(
            Role::Limit,
            "rwlock-map",
            "std",
            make,
            |v| v,
        ));
    #[cfg(feature = "cache-peers")]
    let scenario = {
        let context = Role::Context;
        let scenario = peers(scenario, make, |v| v);
        scenario
            .with(got::<Papaya<_, _>, _, _>(
                context,
                "papaya",
                &version("papaya"),
                make,
                |v| v,
            ))
            .with(got::<DashMap<_, _>, _, _>(
                context,
                "dashmap",
                &version("dashmap"),
                make,
                |v| v,
            ))
            .with(got::<MutexLru<_, _>, _, _>(
                context,
                "mutex-lru",
                &version("lru"),
                make,
                |v| v,
            ))
    };
    scenario
}

fn get_hit_string() -> Scenario {
    let scenario = Scenario::time("cache/get_hit_string", "get a shared value under a text")
        .input("as get_hit, 30-byte String to Arc<[u8; 64]>")
        .threads(&[1, 2, 4])
        .instances(1);
    let make = |rank: u64| {
        let value = value_of(rank);
        (format!("{value:030}"), Arc::new([value as u8; 64]))
    };
    let sum = |value: Arc<[u8; 64]>| u64::from(value[7]);
    type Text = String;
    type Page = Arc<[u8; 64]>;
    let scenario = scenario
        .with(got::<Ours<Text, Page>, _, _>(
            Role::Ours,
            ours::NAME,
            ours::VERSION,
            make,
            sum,
        ))
        .with(got::<RwLockMap<Text, Page>, _, _>(
            Role::Limit,
            "rwlock-map",
            "std",
            make,
            sum,
        ));
    #[cfg(feature = "cache-peers")]
    let scenario = peers(scenario, make, sum);
    scenario
}

#[cfg(feature = "cache-peers")]
fn peers<K: Key, V: Value>(
    scenario: Scenario,
    make: fn(u64) -> (K, V),
    sum: fn(V) -> u64,
) -> Scenario {
    let peer = Role::Peer;
    let foyer = version("foyer-memory");
    scenario
        .with(got::<QuickCache<K, V>, _, _>(
            peer,
            "quick_cache",
            &version("quick_cache"),
            make,
            sum,
        ))
        .with(got::<Moka<K, V>, _, _>(
            peer,
            "moka",
            &version("moka"),
            make,
            sum,
        ))
        .with(got::<MiniMoka<K, V>, _, _>(
            peer,
            "mini-moka",
            &version("mini-moka"),
            make,
            sum,
        ))
        .with(got::<Foyer<K, V, FoyerS3>, _, _>(
            peer,
            "foyer-s3fifo",
            &foyer,
            make,
            sum,
        ))
        .with(got::<Foyer<K, V, FoyerLfu>, _, _>(
            peer,
            "foyer-lfu",
            &foyer,
            make,
            sum,
        ))
        .with(got::<tinyufo::TinyUfo<K, V>, _, _>(
            peer,
            "tinyufo",
            &version("TinyUFO"),
            make,
            sum,
        ))
}

/// The checksum is that of the values, which the keys determine.
fn got<C: Memory<K, V>, K: Key, V: Value>(
    role: Role,
    name: &str,
    version: &str,
    make: impl Fn(u64) -> (K, V) + Copy + Send + Sync + 'static,
    sum: impl Fn(V) -> u64 + Copy + Send + Sync + 'static,
) -> Contender {
    Contender::time(role, name, version, move |setup| {
        got_from(
            C::new(Size::in_shards(2 * KEYS, SHARDS)),
            setup.seed,
            make,
            sum,
        )
    })
}

fn got_from<C: Memory<K, V>, K: Key, V: Value>(
    cache: C,
    seed: u64,
    make: impl Fn(u64) -> (K, V),
    sum: impl Fn(V) -> u64 + Copy + Send + Sync + 'static,
) -> impl Fn(usize) -> Box<dyn FnMut(u64) -> u64> + Send + Sync + 'static {
    let cache: &'static C = Box::leak(Box::new(cache));
    let keys: Vec<K> = (0..KEYS as u64).map(|rank| make(rank).0).collect();
    for rank in 0..KEYS as u64 {
        let (key, value) = make(rank);
        cache.insert(key, value);
    }
    cache.settle();
    let (keys, drawn): (Arc<[K]>, Arc<[u64]>) = (keys.into(), zipf(seed, KEYS, 0.99, DRAWN).into());
    move |thread| {
        let (keys, drawn) = (Arc::clone(&keys), Arc::clone(&drawn));
        let mut at = thread * DRAWN / 8;
        Box::new(move |ops| {
            (0..ops).fold(0_u64, |total, _| {
                at = (at + 1) % DRAWN;
                let value = cache.get(&keys[drawn[at] as usize]);
                total.wrapping_add(value.map_or(0, sum))
            })
        })
    }
}

fn mix(id: &str, exponent: f64) -> Scenario {
    let about = "get a value, or make and insert it";
    let scenario = Scenario::time(id, about)
        .input("Zipf over 1,000,000 u64 keys, room for 100,000, 64 shards; no expiry")
        .threads(&[1, 2, 4])
        .instances(1);
    let scenario = scenario.with(mixed::<Ours<_, _>>(
        Role::Ours,
        ours::NAME,
        ours::VERSION,
        exponent,
    ));
    #[cfg(feature = "cache-peers")]
    let scenario = {
        let (peer, foyer) = (Role::Peer, version("foyer-memory"));
        let of = version;
        scenario
            .with(mixed::<QuickCache<_, _>>(
                peer,
                "quick_cache",
                &of("quick_cache"),
                exponent,
            ))
            .with(mixed::<Moka<_, _>>(peer, "moka", &of("moka"), exponent))
            .with(mixed::<MiniMoka<_, _>>(
                peer,
                "mini-moka",
                &of("mini-moka"),
                exponent,
            ))
            .with(mixed::<Foyer<_, _, FoyerS3>>(
                peer,
                "foyer-s3fifo",
                &foyer,
                exponent,
            ))
            .with(mixed::<tinyufo::TinyUfo<_, _>>(
                peer,
                "tinyufo",
                &of("TinyUFO"),
                exponent,
            ))
            .with(mixed::<Scc<_, _>>(
                Role::Context,
                "scc",
                &of("scc"),
                exponent,
            ))
            .with(mixed::<MutexLru<_, _>>(
                Role::Context,
                "mutex-lru",
                &of("lru"),
                exponent,
            ))
            .with(wrong_stretto())
    };
    scenario
}

/// Not run, so not a dependency: 0.9.0, seen with 120 % of its capacity after its own `wait`.
#[cfg(feature = "cache-peers")]
pub(crate) fn wrong_stretto() -> Contender {
    let reason = "holds more than its capacity, 20 % after `wait`, and drops insertions under load";
    Contender::known_wrong("stretto", "0.9.0", reason)
}

/// The checksum is that of the values returned or made, whatever was kept.
fn mixed<C: Memory<u64, u64>>(role: Role, name: &str, version: &str, exponent: f64) -> Contender {
    Contender::time(role, name, version, move |setup| {
        let cache: &'static C = Box::leak(Box::new(C::new(Size::in_shards(MIXED / 10, SHARDS))));
        let drawn: Arc<[u64]> = zipf(setup.seed, MIXED, exponent, DRAWN).into();
        for &key in drawn.iter() {
            get_or_insert(cache, key);
        }
        cache.settle();
        move |thread| {
            let drawn = Arc::clone(&drawn);
            let mut at = thread * DRAWN / 8;
            move |ops| {
                (0..ops).fold(0_u64, |sum, _| {
                    at = (at + 1) % DRAWN;
                    sum.wrapping_add(get_or_insert(cache, drawn[at]))
                })
            }
        }
    })
}

fn insert_evict() -> Scenario {
    let scenario = Scenario::time("cache/insert_evict", "store a new value in a full cache")
        .input("u64 keys that never come again, room for 100,000, 64 shards; no expiry")
        .threads(&[1, 2, 4])
        .instances(1);
    let scenario = scenario.with(inserted::<Ours<_, _>>(
        Role::Ours,
        ours::NAME,
        ours::VERSION,
    ));
    #[cfg(feature = "cache-peers")]
    let scenario = {
        let (peer, foyer, of) = (Role::Peer, version("foyer-memory"), version);
        scenario
            .with(inserted::<QuickCache<_, _>>(
                peer,
                "quick_cache",
                &of("quick_cache"),
            ))
            .with(inserted::<Moka<_, _>>(peer, "moka", &of("moka")))
            .with(inserted::<MiniMoka<_, _>>(
                peer,
                "mini-moka",
                &of("mini-moka"),
            ))
            .with(inserted::<Foyer<_, _, FoyerS3>>(
                peer,
                "foyer-s3fifo",
                &foyer,
            ))
            .with(inserted::<tinyufo::TinyUfo<_, _>>(
                peer,
                "tinyufo",
                &of("TinyUFO"),
            ))
            .with(inserted::<Scc<_, _>>(Role::Context, "scc", &of("scc")))
            .with(inserted::<MutexLru<_, _>>(
                Role::Context,
                "mutex-lru",
                &of("lru"),
            ))
    };
    scenario
}

/// The checksum is the number of insertions.
fn inserted<C: Memory<u64, u64>>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, move |_| {
        let cache: &'static C = Box::leak(Box::new(C::new(Size::in_shards(MIXED / 10, SHARDS))));
        let next: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        for key in 0..3 * MIXED as u64 / 10 {
            cache.insert(key, value_of(key));
        }
        cache.settle();
        move |_| {
            // Another range for each thread.
            let mut key = (1 + next.fetch_add(1, Ordering::Relaxed)) << 40;
            move |ops| {
                for _ in 0..ops {
                    key += 1;
                    cache.insert(key, value_of(key));
                }
                ops
            }
        }
    })
}

fn ttl_get() -> Scenario {
    let hour = Duration::from_secs(3_600);
    let scenario = Scenario::time("cache/ttl_get", "get a value that is there and will expire")
        .input("as get_hit, each entry with a life of an hour; ours on a clock of 1 ms resolution")
        .instances(1);
    let builder = || ours::builder(Size::in_shards(2 * KEYS, SHARDS));
    let coarse = move || match CoarseClock::new(Duration::from_millis(1)) {
        Ok(clock) => ours::build(builder().ttl(hour).clock(clock)),
        Err(error) => panic!("no clock: {error}"),
    };
    let precise = move || ours::build(builder().ttl(hour));
    let (context, own) = (Role::Context, ours::VERSION);
    let scenario = scenario
        .with(expiring(Role::Ours, ours::NAME, own, coarse))
        .with(expiring(context, "precise-clock", own, precise))
        .with(expiring(context, "no-ttl", own, move || {
            ours::build(builder())
        }));
    #[cfg(feature = "cache-peers")]
    let scenario = {
        let moka = move || {
            let cache = moka::sync::Cache::<u64, u64>::builder().max_capacity(2 * KEYS as u64);
            cache
                .time_to_live(hour)
                .build_with_hasher(crate::memory::Hasher::default())
        };
        let mini_moka = move || {
            let cache = mini_moka::sync::Cache::<u64, u64>::builder().max_capacity(2 * KEYS as u64);
            cache
                .time_to_live(hour)
                .build_with_hasher(crate::memory::Hasher::default())
        };
        scenario
            .with(expiring(Role::Peer, "moka", &version("moka"), moka))
            .with(expiring(
                Role::Peer,
                "mini-moka",
                &version("mini-moka"),
                mini_moka,
            ))
    };
    scenario
}

fn expiring<C: Memory<u64, u64>>(
    role: Role,
    name: &str,
    version: &str,
    make: impl Fn() -> C + 'static,
) -> Contender {
    Contender::time(role, name, version, move |setup| {
        got_from(
            make(),
            setup.seed,
            |rank| (rank, value_of(rank)),
            |value| value,
        )
    })
}
