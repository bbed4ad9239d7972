//! User code that does what it should not, wherever it runs.

#[path = "support/figures.rs"]
mod figures;

use std::future::Future;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use overdrive_core::Timestamp;
use overdrive_core::clock::ManualClock;
use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, Clock, Lookup, Reserve};

use crate::figures::consistent;

fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_comparison_that_panics_at_any_moment_loses_no_weight() {
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
    let ops: [(&str, Op); 9] = [
        ("insert new", |cache| _ = cache.insert(Key(100), 2)),
        ("insert old", |cache| _ = cache.insert(Key(1), 3)),
        ("heavy", |cache| _ = cache.insert(Key(100), 8)),
        ("too heavy", |cache| _ = cache.insert(Key(1), 80)),
        ("make", |cache| _ = cache.get_or_insert_with(Key(100), || 2)),
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
fn a_clock_is_asked_outside_of_the_locks() {
    #[derive(Clone, Default)]
    struct Nosy(Arc<Mutex<Option<Cache<u32, u32>>>>);
    impl std::fmt::Debug for Nosy {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Nosy")
        }
    }
    impl Clock for Nosy {
        fn now(&self) -> Timestamp {
            let len = self.0.lock().unwrap().as_ref().map_or(0, Cache::len);
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
    *clock.0.lock().unwrap() = Some(cache.clone());
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
    let held = clock.0.lock().unwrap().take();
    drop(held);
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
fn wakers_that_panic_or_come_back_cost_nobody_else() {
    struct Hostile(Cache<u8, u8>, AtomicUsize);
    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            assert_eq!(self.0.get_or_insert_with(1, || 9), 2);
            self.0.remove(&5);
            panic!("waker")
        }
    }
    let cache = Cache::builder().max_entries(4).build().unwrap();
    let Reserve::Vacant(mine) = cache.reserve(1) else {
        panic!("there is none")
    };
    let hostile = Arc::new(Hostile(cache.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&hostile));
    let mut context = Context::from_waker(&waker);
    let mut first = [(); 2].map(|()| match cache.reserve(1) {
        Reserve::Busy(pending) => pending,
        _ => panic!("it is being made"),
    });
    let [one, other] = &mut first;
    assert!(pin!(one).poll(&mut context).is_pending());
    assert!(pin!(other).poll(&mut context).is_pending());
    assert_eq!(mine.insert(2), 2);
    assert_eq!(hostile.1.load(Ordering::Relaxed), 2);
    for pending in &mut first {
        assert_eq!(pin!(pending).poll(&mut context), Poll::Ready(Some(2)));
    }
}

#[test]
fn copies_that_cannot_be_finished_are_dropped_outside_of_the_locks() {
    struct Fragile(Cache<u8, Option<Box<Self>>>, Arc<AtomicI64>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.1.fetch_sub(1, Ordering::Relaxed) > 0, "clone");
            Self(self.0.clone(), Arc::clone(&self.1))
        }
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            drop(self.0.insert(100, None));
        }
    }
    let cache = Cache::builder().max_entries(10).build().unwrap();
    let left = Arc::new(AtomicI64::new(3));
    for key in 0..5 {
        let value = Fragile(cache.clone(), Arc::clone(&left));
        drop(cache.insert(key, Some(Box::new(value))));
    }
    assert!(panics(|| cache.retain(|_, _| true)));
    left.store(3, Ordering::Relaxed);
    assert!(panics(|| cache.iter().count()));
    assert_eq!(cache.len(), 6);
    cache.clear();
    cache.clear();
}
