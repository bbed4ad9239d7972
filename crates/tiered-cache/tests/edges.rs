//! Inputs and moments that nobody plans for.

#[path = "support/figures.rs"]
mod figures;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_tiered_cache::{Cache, EntryOptions, Lookup, Reserve, Ttl};

use crate::figures::consistent;

#[derive(Clone, Default)]
struct Constant;
impl BuildHasher for Constant {
    type Hasher = Seven;
    fn build_hasher(&self) -> Seven {
        Seven
    }
}
struct Seven;
impl Hasher for Seven {
    fn finish(&self) -> u64 {
        7
    }
    fn write(&mut self, _: &[u8]) {}
}

#[test]
fn an_update_that_needs_more_room_makes_it() {
    for shards in [1, 4] {
        let cache = Cache::builder()
            .max_weight(64)
            .weigher(|_: &u32, weight: &u64| *weight)
            .shards(shards)
            .build()
            .unwrap();
        for key in 0..64 {
            cache.insert(key, 1).unwrap();
        }
        assert_eq!(cache.weight(), 64);
        assert_eq!(cache.update(&7, |weight| *weight = 9), Some(()));
        assert_eq!(cache.get(&7), Some(9));
        consistent(&cache);
        assert_eq!(cache.update(&7, |weight| *weight = 60), Some(()));
        assert_eq!(cache.get(&7), Some(60));
        consistent(&cache);
        assert_eq!(cache.update(&7, |weight| *weight = 64), Some(()));
        assert_eq!((cache.get(&7), cache.len()), (Some(64), 1));
        assert_eq!(cache.update(&7, |weight| *weight = 65), Some(()));
        assert_eq!(cache.get(&7), None);
        consistent(&cache);
    }
}

#[test]
fn an_update_keeps_tags_and_life_when_it_makes_room() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_weight(4)
        .weigher(|_: &u32, weight: &u64| *weight)
        .clock(clock.clone())
        .build()
        .unwrap();
    let second = Duration::from_secs(1);
    let options = || EntryOptions::new().ttl(10 * second).tag("t");
    for key in 0..4 {
        cache.insert_with(key, 1, options()).unwrap();
    }
    cache.update(&3, |weight| *weight = 3);
    assert_eq!(cache.get(&3), Some(3));
    clock.advance(9 * second);
    assert_eq!(cache.get(&3), Some(3));
    let tagged = cache.len();
    assert_eq!(cache.invalidate_tag("t"), tagged);
    consistent(&cache);
}

#[test]
fn retain_removes_what_has_the_hash_of_what_came_meanwhile() {
    let cache = Cache::builder()
        .max_entries(100)
        .hasher(Constant)
        .build()
        .unwrap();
    for key in 0..10 {
        cache.insert(key, 0).unwrap();
    }
    let mut next = 50;
    let removed = cache.retain(|_, _| {
        next += 1;
        cache.insert(next, 1).unwrap();
        false
    });
    assert_eq!((removed, cache.len()), (10, 10));
    assert!((0..10).all(|key| !cache.contains_key(&key)));
    consistent(&cache);
}

#[test]
fn who_kept_a_wait_for_its_own_value_gets_it_once_it_is_made() {
    let cache = Cache::builder().max_entries(4).build().unwrap();
    let mut waits = None;
    let made = cache.get_or_insert_with(1, || {
        let Reserve::Busy(pending) = cache.reserve(1) else {
            panic!("it is being made")
        };
        waits = Some(pending);
        2
    });
    assert_eq!((made, waits.unwrap().wait_blocking()), (2, Some(2)));
}

#[test]
fn a_value_made_before_its_tag_was_invalidated_is_not_stored() {
    let cache = Cache::builder().max_entries(100).shards(4).build().unwrap();
    let tagged = |tag: &str| EntryOptions::new().tag("other").tag(tag);
    for (key, tag, is_stored) in [(1, "a", false), (2, "b", true)] {
        let Reserve::Vacant(mine) = cache.reserve(key) else {
            panic!("there is none")
        };
        let Reserve::Busy(waits) = cache.reserve(key) else {
            panic!("it is being made")
        };
        let last_turns = cache.invalidate_tag("a");
        assert_eq!((last_turns, cache.invalidate_tag("a")), (key - 1, 0));
        assert_eq!(mine.insert_with(key, tagged(tag)), key);
        assert_eq!(
            waits.wait_blocking(),
            Some(key),
            "who waits gets it all the same"
        );
        assert_eq!(cache.get(&key).is_some(), is_stored);
        let Reserve::Vacant(mine) = cache.reserve(10 + key) else {
            panic!("there is none")
        };
        mine.insert_with(key, tagged("a"));
        assert!(cache.contains_key(&(10 + key)), "it was begun after");
    }
    assert_eq!(cache.invalidate_tag("other"), 2);
    consistent(&cache);
}

#[test]
fn weights_may_be_anything() {
    let cache = Cache::builder()
        .max_weight(u64::MAX)
        .weigher(|_: &u32, weight: &u64| *weight)
        .shards(4)
        .build()
        .unwrap();
    for key in 0..100 {
        let weight = [0, 1, u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1][key as usize % 5];
        cache.insert(key, weight).unwrap();
        assert_eq!(cache.get(&key), Some(weight));
        consistent(&cache);
    }
    cache.set_max_weight(1).unwrap();
    assert!(cache.weight() <= 1);
    consistent(&cache);

    // Another answer each time.
    let turn = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&turn);
    let weigher = move |_: &u32, _: &u64| own.fetch_add(3, Ordering::Relaxed) % 17;
    let builder = Cache::builder().max_weight(100).weigher(weigher);
    let cache = builder.shards(2).build().unwrap();
    for key in 0..1_000 {
        cache.insert(key % 70, 0).unwrap();
        cache.update(&(key % 31), |value| *value += 1);
        consistent(&cache);
    }
}

#[test]
fn lives_may_be_of_any_length() {
    let clock = ManualClock::new();
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let cache = builder.build().unwrap();
    let put = |key, ttl: Duration| {
        let options = EntryOptions::new().ttl(ttl);
        cache.insert_with(key, key, options).unwrap();
    };
    put(1, Duration::MAX);
    put(2, Duration::from_nanos(1));
    put(3, Duration::from_secs(u64::MAX));
    let forever = EntryOptions::new().ttl(Ttl::Forever);
    cache.insert_with(4, 4, forever).unwrap();
    assert_eq!(cache.get(&1), Some(1));
    assert_eq!(cache.get(&2), None, "shorter than a step of time");
    clock.advance(Duration::from_secs(1 << 30));
    assert_eq!((cache.get(&1), cache.get(&3)), (Some(1), Some(3)));
    assert_eq!(cache.get(&4), Some(4));
    put(5, Duration::from_secs(1));
    put(5, Duration::ZERO);
    assert_eq!(cache.lookup(&5), Lookup::Missing);
    consistent(&cache);
}

#[test]
fn keys_of_one_hash_are_all_there() {
    let builder = Cache::builder().max_entries(2_000).shards(4);
    let cache = builder.hasher(Constant).build().unwrap();
    for key in 0..3_000 {
        cache.insert(key, key).unwrap();
        assert!(cache.len() <= 2_000);
    }
    assert_eq!(cache.len(), 2_000);
    assert_eq!(
        (0..3_000)
            .filter(|key| cache.get(key) == Some(*key))
            .count(),
        2_000
    );
    assert_eq!(
        cache.retain(|key, _| key % 2 == 0),
        (0..0).count() + 2_000 - cache.len()
    );
    consistent(&cache);
}

#[test]
fn what_expires_while_a_condition_is_asked_is_not_removed_by_it() {
    let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let cache = builder.ttl(2 * second).build().unwrap();
    cache.insert(1, 1).unwrap();
    let removed = cache.remove_if(&1, |_| {
        clock.advance(2 * second);
        true
    });
    assert_eq!((removed, cache.stats().expired), (None, 1));
    cache.insert(1, 1).unwrap();
    assert_eq!(cache.update(&1, |_| clock.advance(2 * second)), None);
}

#[test]
fn four_writers_and_one_who_moves_the_bound_keep_it() {
    let cache = Cache::builder()
        .max_weight(1_000)
        .weigher(|_: &u32, weight: &u64| *weight)
        .shards(8)
        .build()
        .unwrap();
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (cache, ended) = (&cache, &ended);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..5_000 {
                    let (key, weight) = (rng.u32(..400), rng.u64(1..120));
                    match rng.u8(..8) {
                        0 => drop(cache.remove(&key)),
                        1 => drop(cache.update(&key, |value| *value = weight)),
                        2 => drop(cache.get_or_insert_with(key, || weight)),
                        3 => drop(cache.remove_if(&key, |value| value % 2 == 0)),
                        _ => drop(cache.insert(key, weight)),
                    }
                    assert!(cache.weight() <= 1_000);
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut rng = fastrand::Rng::with_seed(9);
        while ended.load(Ordering::Relaxed) < 4 {
            let max = rng.u64(1..=1_000);
            cache.set_max_weight(max).unwrap();
            assert!(cache.weight() <= max);
        }
    });
    consistent(&cache);
    cache.clear();
    assert_eq!(cache.weight(), 0);
}

#[test]
fn handles_go_to_other_threads() {
    use overdrive_tiered_cache::{CacheBuilder, Iter, Pending, Rejected, Reservation};
    fn both<T: Send + Sync>() {}
    both::<Cache<String, String>>();
    both::<CacheBuilder<String, String>>();
    both::<Iter<'_, String, String>>();
    both::<Pending<String>>();
    both::<Reservation<String, String>>();
    both::<Rejected<String, String>>();
}
