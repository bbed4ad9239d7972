//! The user's code panics wherever it runs, and the cache stays whole.

#[path = "support/figures.rs"]
mod figures;

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, Cause};

use crate::figures::consistent;

fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Everything still works, and the figures agree.
fn check(cache: &Cache<u32, u32, impl BuildHasher>) {
    for key in 1_000..1_100 {
        cache.insert(key, key).unwrap();
        assert_eq!(cache.get(&key), Some(key));
        assert_eq!(cache.get_or_insert_with(key, || 0), key);
    }
    assert_eq!(cache.iter().count(), cache.len());
    consistent(cache);
    cache.clear();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn a_listener_that_panics_costs_its_call_alone() {
    let calls = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&calls);
    let listener = move |_: &u32, _: &u32, _| {
        heard.fetch_add(1, Ordering::Relaxed);
        panic!("listener")
    };
    let cache = Cache::builder()
        .max_entries(10)
        .listener(listener)
        .build()
        .unwrap();
    for key in 0..20 {
        cache.insert(key, key).unwrap();
    }
    assert_eq!(cache.insert(19, 5).unwrap(), Some(19));
    assert_eq!(cache.remove(&19), Some((19, 5)));
    assert_eq!(calls.load(Ordering::Relaxed), 12);
    check(&cache);
}

#[test]
fn a_listener_may_use_the_cache_and_hears_the_cause() {
    type Late = Arc<Mutex<Option<Cache<u32, u32>>>>;
    let (late, causes) = (Late::default(), Arc::new(Mutex::new(Vec::new())));
    let (own, heard) = (Arc::clone(&late), Arc::clone(&causes));
    let listener = move |key: &u32, value: &u32, cause| {
        let cache = own.lock().unwrap().clone().unwrap();
        assert!(cache.len() <= 2);
        heard.lock().unwrap().push((*key, *value, cause));
    };
    let cache = Cache::builder()
        .max_entries(2)
        .listener(listener)
        .build()
        .unwrap();
    *late.lock().unwrap() = Some(cache.clone());
    cache.insert(1, 1).unwrap();
    cache.insert(1, 2).unwrap();
    cache.remove(&1);
    cache.insert(2, 2).unwrap();
    assert_eq!(cache.retain(|_, _| false), 1);
    let zero = overdrive_tiered_cache::EntryOptions::new().ttl(std::time::Duration::ZERO);
    cache.insert(3, 3).unwrap();
    cache.insert_with(3, 4, zero).unwrap();
    let expected = [
        (1, 1, Cause::Replaced),
        (1, 2, Cause::Removed),
        (2, 2, Cause::Removed),
        (3, 3, Cause::Removed),
    ];
    assert_eq!(*causes.lock().unwrap(), expected);
    (0..3).for_each(|key| drop(cache.insert(key, key)));
    assert_eq!(causes.lock().unwrap()[4].2, Cause::Evicted);
    *late.lock().unwrap() = None;
}

#[test]
fn a_hasher_that_panics_changes_nothing() {
    #[derive(Clone)]
    struct Failing(Arc<AtomicBool>);
    impl BuildHasher for Failing {
        type Hasher = DefaultHasher;
        fn build_hasher(&self) -> DefaultHasher {
            assert!(!self.0.load(Ordering::Relaxed), "hasher");
            DefaultHasher::new()
        }
    }
    let fails = Arc::new(AtomicBool::new(false));
    let hasher = Failing(Arc::clone(&fails));
    let cache = Cache::builder()
        .max_entries(10)
        .hasher(hasher)
        .build()
        .unwrap();
    cache.insert(1_u32, 1_u32).unwrap();
    fails.store(true, Ordering::Relaxed);
    assert!(panics(|| cache.insert(2, 2)));
    assert!(panics(|| cache.get(&1)));
    assert!(panics(|| cache.get_or_insert_with(3, || 3)));
    assert!(panics(|| cache.remove(&1)));
    fails.store(false, Ordering::Relaxed);
    assert_eq!((cache.get(&1), cache.len()), (Some(1), 1));
    check(&cache);
}

#[test]
fn keys_that_panic_when_compared_change_nothing() {
    static FAILS: AtomicBool = AtomicBool::new(false);
    #[derive(Clone, Debug)]
    struct Key(u32);
    impl Hash for Key {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            assert!(!FAILS.load(Ordering::Relaxed), "eq");
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    let counter = DropCounter::new();
    let cache = Cache::builder().max_entries(100).build().unwrap();
    for key in 0..60 {
        cache.insert(Key(key), counter.token()).unwrap();
    }
    FAILS.store(true, Ordering::Relaxed);
    assert!(panics(|| cache.insert(Key(60), counter.token())));
    assert!(panics(|| cache.get(&Key(1))));
    assert!(panics(|| cache.remove(&Key(1))));
    assert!(panics(|| cache.update(&Key(1), |_| ())));
    assert!(panics(|| cache.reserve(Key(1))));
    FAILS.store(false, Ordering::Relaxed);
    assert_eq!((cache.len(), counter.alive()), (60, 60));
    assert!((0..60).all(|key| cache.remove(&Key(key)).is_some()));
    assert_eq!((cache.weight(), counter.alive()), (0, 0));
}

#[test]
fn changes_that_panic_change_nothing() {
    let cache = Cache::builder().max_entries(10).build().unwrap();
    cache.insert(1_u32, 1_u32).unwrap();
    assert!(panics(|| cache.update(&1, |value| {
        *value = 2;
        panic!("update")
    })));
    assert!(panics(|| cache.remove_if(&1, |_| panic!("condition"))));
    assert!(panics(|| cache.retain(|_, _| panic!("keep"))));
    assert_eq!(cache.get(&1), Some(1));
    check(&cache);
}

#[test]
fn a_change_sees_what_was_stored_while_it_was_asked() {
    let cache = Cache::builder().max_entries(10).build().unwrap();
    cache.insert(1_u32, 1_u32).unwrap();
    let mut seen = Vec::new();
    let result = cache.update(&1, |value| {
        seen.push(*value);
        if seen.len() == 1 {
            cache.insert(1, 10).unwrap();
        }
        *value += 1;
        *value
    });
    assert_eq!(
        (result, cache.get(&1), seen),
        (Some(11), Some(11), vec![1, 10])
    );
    let mut asked = 0;
    let removed = cache.remove_if(&1, |value| {
        asked += 1;
        if asked == 1 {
            cache.insert(1, 20).unwrap();
        }
        *value == 11
    });
    assert_eq!((removed, asked, cache.get(&1)), (None, 2, Some(20)));
    let kept = cache.retain(|_, _| {
        cache.insert(1, 30).unwrap();
        false
    });
    assert_eq!(
        (kept, cache.get(&1)),
        (0, Some(30)),
        "what is replaced meanwhile stays"
    );
    assert_eq!(cache.update(&2, |_| ()), None);
    assert_eq!(cache.remove_if(&2, |_| true), None);
}

#[test]
fn an_updated_value_keeps_its_life() {
    use overdrive_core::clock::ManualClock;
    use std::time::Duration;

    let clock = ManualClock::new();
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let cache = builder.ttl(Duration::from_secs(10)).build().unwrap();
    cache.insert("a", 1).unwrap();
    clock.advance(Duration::from_secs(9));
    cache.update("a", |value| *value = 2);
    assert_eq!(cache.get("a"), Some(2));
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.get("a"), None);
}

#[test]
fn a_listener_has_the_room_that_was_just_given_up() {
    type Late = Arc<Mutex<Option<Cache<u32, u64>>>>;
    let late = Late::default();
    let own = Arc::clone(&late);
    let listener = move |key: &u32, _: &u64, _| {
        if *key == 1 {
            let cache = own.lock().unwrap().clone().unwrap();
            cache.insert(2, 9).unwrap();
        }
    };
    let cache = Cache::builder()
        .max_weight(10)
        .shards(1)
        .weigher(|_, weight: &u64| *weight)
        .listener(listener)
        .build()
        .unwrap();
    *late.lock().unwrap() = Some(cache.clone());

    // One that is replaced by a lighter one.
    cache.insert(1, 10).unwrap();
    assert_eq!(cache.insert(1, 1).unwrap(), Some(10));
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), Some(9)));
    // One that gives way to a value without a life.
    let zero = overdrive_tiered_cache::EntryOptions::new().ttl(std::time::Duration::ZERO);
    assert_eq!(cache.insert_with(1, 5, zero).unwrap(), Some(1));
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(9)));
    *late.lock().unwrap() = None;
}
