//! What it does when the user's code panics, fails, or comes at the wrong moment.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use overdrive_testkit::{DropCounter, Gate};
use overdrive_tiered_cache::Cache;

fn cache<V>() -> Cache<u8, V> {
    Cache::builder().max_entries(4).build().unwrap()
}

fn caught<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).map(|_| ()).unwrap_err();
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap()
}

#[test]
fn of_many_who_ask_one_makes_the_value() {
    let (cache, gate, calls) = (cache(), Gate::new(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let value = cache.get_or_insert_with(1, || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    gate.pass();
                    7
                });
                assert_eq!(value, 7);
            });
        }
        gate.wait_for(1);
        gate.open();
    });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_goes_to_its_own_caller_and_the_next_one_tries() {
    let (cache, gate) = (cache(), Gate::new());
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            caught(|| {
                cache.get_or_insert_with(1, || {
                    gate.pass();
                    panic!("first")
                })
            })
        });
        gate.wait_for(1);
        let second = scope.spawn(|| cache.get_or_insert_with(1, || 2));
        gate.open();
        assert_eq!(
            (first.join().unwrap().as_str(), second.join().unwrap()),
            ("first", 2)
        );
    });
    assert_eq!(cache.get(&1), Some(2));
}

#[test]
fn an_error_goes_to_its_own_caller_and_nothing_is_stored() {
    let cache = cache::<u8>();
    assert_eq!(cache.try_get_or_insert_with(1, || Err("no")), Err("no"));
    assert!(cache.is_empty());
    assert_eq!(cache.try_get_or_insert_with(1, || Ok::<_, ()>(1)), Ok(1));
}

#[test]
fn asking_for_the_key_that_is_being_made_panics_instead_of_waiting_for_ever() {
    let cache = cache();
    let text = caught(|| cache.get_or_insert_with(1, || cache.get_or_insert_with(1, || 2)));
    assert!(text.contains("this thread"), "{text}");
    let other = cache.get_or_insert_with(1, || cache.get_or_insert_with(2, || 2) + 1);
    assert_eq!(other, 3);
}

#[test]
fn what_came_while_the_value_was_made_wins() {
    type Change = fn(&Cache<u8, u8>);
    let changes: [(Change, Option<u8>); 3] = [
        (|cache| assert_eq!(cache.remove(&1), None), None),
        (|cache| cache.clear(), None),
        (|cache| drop(cache.insert(1, 9)), Some(9)),
    ];
    for (change, left) in changes {
        let cache = cache();
        let made = cache.get_or_insert_with(1, || {
            change(&cache);
            1
        });
        assert_eq!((made, cache.get(&1)), (1, left));
    }
}

#[test]
fn who_asks_after_a_removal_does_not_get_what_was_begun_before_it() {
    let (cache, gate) = (cache(), Gate::new());
    thread::scope(|scope| {
        let old = scope.spawn(|| {
            cache.get_or_insert_with(1, || {
                gate.pass();
                "old"
            })
        });
        gate.wait_for(1);
        assert_eq!(cache.remove(&1), None);
        assert_eq!(cache.get_or_insert_with(1, || "new"), "new");
        gate.open();
        assert_eq!(old.join().unwrap(), "old");
    });
    assert_eq!(cache.get(&1), Some("new"));
}

#[test]
fn a_panic_in_the_drop_of_a_value_costs_nothing_else() {
    let (cache, counter) = (cache(), DropCounter::new());
    for key in 0..6 {
        drop(cache.insert(key, counter.panicking()));
    }
    assert_eq!((counter.alive(), cache.len()), (4, 4));
    cache.clear();
    assert_eq!(counter.alive(), 0);
    for key in 0..3 {
        drop(cache.insert(key, counter.panicking()));
    }
    drop(cache);
    assert_eq!(counter.alive(), 0, "nor does it at the end of the cache");
}

#[test]
fn the_drop_of_a_value_may_use_the_cache() {
    struct Reinsert(Cache<u8, Option<Box<Self>>>);
    impl Drop for Reinsert {
        fn drop(&mut self) {
            drop(self.0.insert(100, None));
        }
    }
    impl Clone for Reinsert {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }
    let cache = cache();
    drop(cache.insert(1, Some(Box::new(Reinsert(cache.clone())))));
    cache.clear();
    assert!(cache.contains_key(&100));
    cache.clear();
}

#[test]
fn a_weigher_that_panics_changes_nothing() {
    let weigher = |_: &u8, value: &u8| if *value == 9 { panic!("weigher") } else { 1 };
    let cache = Cache::builder()
        .max_weight(2)
        .weigher(weigher)
        .build()
        .unwrap();
    cache.insert(1, 1).unwrap();
    assert_eq!(caught(|| cache.insert(1, 9)), "weigher");
    assert_eq!(caught(|| cache.get_or_insert_with(2, || 9)), "weigher");
    assert_eq!(
        (cache.get(&1), cache.get_or_insert_with(2, || 2)),
        (Some(1), 2)
    );
}

#[test]
fn a_clone_that_panics_changes_nothing() {
    #[derive(Debug)]
    struct Fragile(AtomicUsize);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "clone");
            Self(AtomicUsize::new(1))
        }
    }
    let cache = cache();
    cache.insert(1, Fragile(AtomicUsize::new(0))).unwrap();
    assert_eq!(caught(|| cache.get(&1)), "clone");
    assert!(cache.get(&1).is_some());
}

#[test]
fn a_panic_in_the_drop_of_a_key_keeps_nobody_waiting() {
    /// The copy in the table panics when it is dropped, once.
    struct Fragile {
        copy: bool,
        armed: Arc<AtomicBool>,
        compared: Arc<AtomicUsize>,
    }
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            Self {
                copy: true,
                armed: Arc::clone(&self.armed),
                compared: Arc::clone(&self.compared),
            }
        }
    }
    impl Hash for Fragile {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Fragile {
        fn eq(&self, _: &Self) -> bool {
            self.compared.fetch_add(1, Ordering::SeqCst);
            true
        }
    }
    impl Eq for Fragile {}
    impl Drop for Fragile {
        fn drop(&mut self) {
            let panics = self.copy && self.armed.swap(false, Ordering::SeqCst);
            assert!(!panics, "drop");
        }
    }
    let cache = Cache::builder().max_entries(1).build().unwrap();
    let (armed, compared) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let key = || Fragile {
        copy: false,
        armed: Arc::clone(&armed),
        compared: Arc::clone(&compared),
    };
    let gate = Gate::new();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            cache.try_get_or_insert_with(key(), || {
                gate.pass();
                Err("first")
            })
        });
        gate.wait_for(1);
        let second = scope.spawn(|| cache.try_get_or_insert_with(key(), || Ok::<_, ()>(2)));
        // It has found the first one, and will not leave the lock without it.
        while compared.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        // Nor without its copy of the key, which is not the one to panic.
        assert!(!cache.contains_key(&key()));
        while Arc::strong_count(&armed) > 4 {
            thread::yield_now();
        }
        armed.store(true, Ordering::SeqCst);
        gate.open();
        assert_eq!(first.join().unwrap(), Err("first"));
        assert_eq!(second.join().unwrap(), Ok(2));
    });
    assert_eq!(cache.len(), 1);
}
