//! What a cache holds at most, at any moment, and who makes room for whom.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, ConfigError, MAX_SHARDS};

#[test]
fn four_threads_that_write_never_have_more_in_it_than_fits() {
    const MAX: u64 = 1_000;
    let steps = if std::env::var_os("OVERDRIVE_DEEP").is_some() {
        200_000
    } else {
        5_000
    };
    let cache = Cache::<u32, u64>::builder()
        .max_weight(MAX)
        .weigher(|_, weight| *weight)
        .shards(8)
        .build()
        .unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(cache.weight());
                assert!(
                    cache.stats().weight <= 2 * MAX,
                    "even summed up over some time"
                );
            }
            most
        });
        let writers: Vec<_> = (0..4)
            .map(|seed| {
                let cache = &cache;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    for _ in 0..steps {
                        // Some need more than a shard's part.
                        let weight = if rng.u8(..50) == 0 {
                            rng.u64(100..900)
                        } else {
                            rng.u64(1..20)
                        };
                        let key = rng.u32(..500);
                        match rng.u8(..10) {
                            0 => drop(cache.remove(&key)),
                            _ => assert!(cache.insert(key, weight).is_ok()),
                        }
                        assert!(cache.weight() <= MAX);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() <= MAX);
    });
    let stats = cache.stats();
    assert_eq!(stats.weight, cache.weight());
    assert!(stats.weight > 0);
}

#[test]
fn an_entry_may_be_as_heavy_as_all_that_fits() {
    let cache = Cache::<u32, u64>::builder()
        .max_weight(1_000)
        .weigher(|_, weight| *weight)
        .shards(16)
        .build()
        .unwrap();
    for key in 0..1_000 {
        cache.insert(key, 1).unwrap();
    }
    assert_eq!(
        (cache.weight(), cache.stats().evicted),
        (1_000, 0),
        "all fits, whatever the shards"
    );
    cache.insert(5_000, 600).unwrap();
    assert_eq!((cache.get(&5_000), cache.len()), (Some(600), 401));
    for key in 6_000..6_100 {
        cache.insert(key, 1).unwrap();
    }
    assert_eq!(
        cache.get(&5_000),
        Some(600),
        "the small make room for the small"
    );
    cache.insert(5_000, 1_000).unwrap();
    assert_eq!((cache.len(), cache.weight()), (1, 1_000));
    assert!(cache.insert(1, 1_001).is_err());
    assert_eq!(cache.len(), 1, "what does not fit in moves nobody out");
}

#[test]
fn a_lower_bound_holds_when_it_is_set() {
    let cache = Cache::builder()
        .max_entries(4_096)
        .shards(4)
        .build()
        .unwrap();
    for key in 0..4_096 {
        cache.insert(key, key).unwrap();
    }
    cache.set_max_weight(100).unwrap();
    assert_eq!((cache.len(), cache.max_weight()), (100, 100));
    cache.set_max_weight(1_000).unwrap();
    for key in 0..4_096 {
        cache.insert(key, key).unwrap();
        assert!(cache.len() <= 1_000);
    }
    assert_eq!(cache.len(), 1_000);
    assert!(matches!(
        cache.set_max_weight(0),
        Err(ConfigError::Zero { .. })
    ));
    assert!(cache.set_max_weight(u64::MAX).is_err());
}

#[test]
fn expired_entries_make_room_first_and_by_themselves() {
    let clock = ManualClock::new();
    let builder = Cache::builder()
        .max_entries(1_000)
        .shards(1)
        .clock(clock.clone());
    let cache = builder.ttl(Duration::from_secs(10)).build().unwrap();
    for key in 0..500 {
        cache.insert(key, ()).unwrap();
    }
    clock.advance(Duration::from_secs(10));
    for key in 500..1_000 {
        cache.insert(key, ()).unwrap();
    }
    let stats = cache.stats();
    assert_eq!(stats.evicted, 0);
    assert!(
        stats.expired > 450,
        "nearly all were come by: {}",
        stats.expired
    );
}

#[test]
fn a_clock_that_goes_back_takes_no_life() {
    #[derive(Debug)]
    struct Jumping(Mutex<u64>);
    impl overdrive_tiered_cache::Clock for Jumping {
        fn now(&self) -> overdrive_core::Timestamp {
            let mut left = self.0.lock().unwrap();
            *left = left.saturating_sub(1_000_000_000);
            overdrive_core::Timestamp::from_nanos(*left)
        }
    }
    let clock = Jumping(Mutex::new(20_000_000_000));
    let builder = Cache::builder().max_entries(10).clock(clock);
    let builder = builder.ttl(Duration::from_secs(3));
    let cache = builder
        .idle_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    cache.insert(1, 1).unwrap();
    assert!((0..30).all(|_| cache.get(&1) == Some(1)));
    assert_eq!(cache.purge_expired(), 0);
}

#[test]
fn removed_entries_leave_no_places_behind() {
    let counter = DropCounter::new();
    let cache = Cache::builder().max_entries(1_000).build().unwrap();
    for round in 0..50 {
        for key in 0..1_000 {
            cache.insert(key, counter.token()).unwrap();
        }
        for key in 0..1_000 {
            assert!(cache.remove(&key).is_some(), "{key} in round {round}");
        }
        assert_eq!((cache.len(), counter.alive()), (0, 0));
    }
    assert_eq!(cache.stats().evicted, 0);
}

#[test]
fn bad_shard_counts_and_refresh_times_are_refused() {
    let builder = || Cache::<u8, u8>::builder().max_entries(10);
    let second = Duration::from_secs(1);
    for (builder, field) in [
        (builder().shards(0), "shards"),
        (builder().shards(MAX_SHARDS + 1), "shards"),
        (builder().max_entries(1 << 30).shards(2), "max_entries"),
        (builder().refresh_after(Duration::ZERO), "refresh_after"),
        (builder().ttl(second).refresh_after(second), "refresh_after"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
    let one_for_each = builder().shards(1_000).build().unwrap();
    for key in 0..50 {
        one_for_each.insert(key, key).unwrap();
        assert!(one_for_each.len() <= 10);
    }
}

#[test]
fn a_heavy_entry_takes_what_is_free_before_others_go() {
    for shards in [1, 4] {
        let cache = Cache::builder()
            .max_weight(100)
            .shards(shards)
            .weigher(|_: &u32, weight: &u64| *weight)
            .build()
            .unwrap();
        for key in 0..50 {
            cache.insert(key, 1).unwrap();
        }
        cache.insert(100, 60).unwrap();
        assert_eq!((cache.len(), cache.weight()), (41, 100), "{shards} shards");
    }
}
