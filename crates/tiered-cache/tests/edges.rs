//! Inputs and moments that nobody plans for.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use overdrive_core::Timestamp;
use overdrive_core::clock::ManualClock;
use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, Clock, EntryOptions, Lookup, Reserve, Ttl};

fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

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

fn consistent<K: Hash + Eq + Clone, V: Clone>(cache: &Cache<K, V, impl BuildHasher>) {
    let stats = cache.stats();
    let left = stats.replaced + stats.evicted + stats.expired + stats.removed;
    assert_eq!(stats.inserted, stats.entries as u64 + left);
    assert_eq!(cache.weight(), stats.weight);
    assert!(cache.weight() <= cache.max_weight());
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
        cache.insert(7, 60).unwrap();
        assert_eq!(cache.update(&7, |weight| *weight = 61), Some(()));
        assert_eq!(cache.get(&7), Some(61));
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
        .shards(1)
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
fn a_comparison_that_panics_during_a_change_loses_no_weight() {
    static LEFT: AtomicI64 = AtomicI64::new(i64::MAX);
    #[derive(Clone, Debug)]
    struct Key(u32);
    impl Hash for Key {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            assert!(LEFT.fetch_sub(1, Ordering::Relaxed) > 0, "eq");
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    type Op = fn(&Cache<Key, u64>);
    let ops: [(&str, Op); 4] = [
        ("update", |cache| _ = cache.update(&Key(2), |w| *w += 1)),
        ("remove", |cache| _ = cache.remove(&Key(2))),
        ("remove_if", |cache| _ = cache.remove_if(&Key(2), |_| true)),
        ("retain", |cache| _ = cache.retain(|key, _| key.0 > 3)),
    ];
    for shards in [1, 3] {
        for (name, op) in ops {
            for n in 0..60 {
                LEFT.store(i64::MAX, Ordering::Relaxed);
                let builder = Cache::builder().max_weight(10).shards(shards);
                let builder = builder.weigher(|_: &Key, weight: &u64| *weight);
                let cache = builder.build().unwrap();
                (0..10).for_each(|key| drop(cache.insert(Key(key), 1)));
                let Reserve::Vacant(mine) = cache.reserve(Key(200)) else {
                    panic!("there is none")
                };
                LEFT.store(n, Ordering::Relaxed);
                let _ = panics(|| op(&cache));
                LEFT.store(i64::MAX, Ordering::Relaxed);
                let (weight, taken) = (cache.stats().weight, cache.weight());
                assert_eq!(weight, taken, "{name}, {shards} shards, panic at {n}");
                drop(mine);
                consistent(&cache);
            }
        }
    }
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
fn a_clock_is_asked_outside_of_the_locks() {
    #[derive(Clone, Default)]
    struct Nosy(Arc<OnceLock<Cache<u32, u32>>>);
    impl std::fmt::Debug for Nosy {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Nosy")
        }
    }
    impl Clock for Nosy {
        fn now(&self) -> Timestamp {
            let len = self.0.get().map_or(0, Cache::len);
            Timestamp::from_nanos(1 << 30 | len as u64)
        }
    }
    let clock = Nosy::default();
    let builder = Cache::builder().max_entries(4).clock(clock.clone());
    let builder = builder
        .ttl(Duration::from_secs(9))
        .idle_timeout(Duration::from_secs(5));
    let cache = builder
        .refresh_after(Duration::from_secs(1))
        .build()
        .unwrap();
    let _ = clock.0.set(cache.clone());
    (0..6).for_each(|key| drop(cache.insert(key, key)));
    cache.update(&5, |value| *value += 1);
    cache.remove_if(&5, |_| false);
    cache.retain(|_, _| true);
    cache.get_or_insert_with(9, || 9);
    assert_eq!(cache.iter().count(), cache.len());
    assert_eq!((cache.get(&5), cache.purge_expired()), (Some(6), 0));
    cache.remove(&9);
    cache.set_max_weight(2).unwrap();
    assert_eq!((cache.len(), cache.invalidate_tag("t")), (2, 0));
    // The two hold each other.
    cache.clear();
}

#[test]
fn a_hasher_that_never_answers_twice_alike_breaks_no_bound() {
    #[derive(Default)]
    struct Dice(AtomicU64);
    impl BuildHasher for Dice {
        type Hasher = DefaultHasher;
        fn build_hasher(&self) -> DefaultHasher {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.0.fetch_add(1, Ordering::Relaxed));
            hasher
        }
    }
    let builder = Cache::builder().max_entries(100).shards(4);
    let cache = builder.hasher(Dice::default()).build().unwrap();
    for key in 0..5_000_u32 {
        cache.insert(key % 20, key).unwrap();
        cache.remove(&(key % 7));
        cache.get_or_insert_with(key % 5, || key);
        cache.update(&(key % 3), |value| *value += 1);
        assert!(cache.len() <= 100);
    }
    consistent(&cache);
    cache.retain(|_, _| false);
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn keys_that_are_never_equal_break_no_bound() {
    #[derive(Clone)]
    struct Liar;
    impl Hash for Liar {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Liar {
        fn eq(&self, _: &Self) -> bool {
            false
        }
    }
    impl Eq for Liar {}
    let counter = DropCounter::new();
    let cache = Cache::builder().max_entries(50).build().unwrap();
    for _ in 0..200 {
        cache.insert(Liar, counter.token()).unwrap();
        let _ = cache.get_or_insert_with(Liar, || counter.token());
        assert!(cache.get(&Liar).is_none() && cache.remove(&Liar).is_none());
        assert!(cache.len() <= 50);
    }
    consistent(&cache);
    drop(cache);
    assert_eq!(counter.alive(), 0);
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
fn the_drop_of_the_value_that_is_replaced_costs_neither_maker_nor_waiters() {
    let (clock, counter, second) = (
        ManualClock::new(),
        DropCounter::new(),
        Duration::from_secs(1),
    );
    let builder = Cache::builder().max_entries(4).clock(clock.clone());
    let cache = builder.refresh_after(second).build().unwrap();
    cache.insert(1, Arc::new(counter.panicking())).unwrap();
    clock.advance(second);
    let Reserve::Vacant(mine) = cache.reserve(1) else {
        panic!("a new one is wanted")
    };
    let new = Arc::new(counter.panicking());
    assert!(!panics(|| mine.insert(Arc::clone(&new))));
    assert!(matches!(cache.lookup(&1), Lookup::Fresh(_)));
    cache.clear();
    assert!(panics(|| drop(new)), "only here it is dropped");
}

#[test]
fn a_listener_keeps_nobody_waiting_for_the_value() {
    let (told, waits) = mpsc::channel();
    let waits = Mutex::new(waits);
    let builder = Cache::builder().max_entries(1);
    // It goes on once the waiter has its value.
    let builder = builder.listener(move |_, _, _| waits.lock().unwrap().recv().unwrap());
    let cache = builder.build().unwrap();
    cache.insert(1, 1).unwrap();
    let Reserve::Vacant(mine) = cache.reserve(2) else {
        panic!("there is none")
    };
    let Reserve::Busy(pending) = cache.reserve(2) else {
        panic!("it is being made")
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(pending.wait_blocking(), Some(2));
            told.send(()).unwrap();
        });
        assert_eq!(mine.insert(2), 2);
    });
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
