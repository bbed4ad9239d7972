//! Loaders on threads.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    BatchSettings, LoadCache, LoadError, Loader, LoaderBuilder, LoaderStats, Overload,
};
use proptest::prelude::*;

/// What the function was called with.
type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

/// A function that finds all but multiples of ten, and waits while it is shut.
#[derive(Clone, Default)]
struct Table {
    calls: Calls,
    door: Arc<(Mutex<bool>, Condvar)>,
}

impl Table {
    fn shut(&self) {
        *self.door.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.door.0.lock().unwrap() = false;
        self.door.1.notify_all();
    }

    fn begin(&self, keys: &[u32]) {
        self.calls.lock().unwrap().push(keys.to_vec());
        let shut = self.door.0.lock().unwrap();
        drop(self.door.1.wait_while(shut, |shut| *shut).unwrap());
    }

    fn by_key(&self) -> impl Fn(Vec<u32>) -> Result<HashMap<u32, String>, &'static str> + use<> {
        let table = self.clone();
        move |keys| {
            table.begin(&keys);
            if keys.contains(&13) {
                return Err("thirteen");
            }
            if keys.contains(&666) {
                resume_unwind(Box::new("the beast"));
            }
            let found = keys.into_iter().filter_map(|key| Some((key, found(key)?)));
            // More than was asked for is ignored.
            Ok(found.chain([(1_000_000, "extra".into())]).collect())
        }
    }

    fn calls(&self) -> Vec<Vec<u32>> {
        self.calls.lock().unwrap().clone()
    }
}

fn found(key: u32) -> Option<String> {
    (key % 10 > 0).then(|| format!("value {key}"))
}

fn one_worker(table: &Table) -> Loader<u32, String, &'static str> {
    let builder = Loader::builder().name("values").workers(1);
    builder.build_sync(table.by_key()).unwrap()
}

/// Waits until so many keys are queued, or in the running batch.
fn until<K, V, E>(loader: &Loader<K, V, E>, reached: impl Fn(&LoaderStats) -> bool) {
    while !reached(&loader.stats()) {
        thread::yield_now();
    }
}

/// A loader whose one worker is busy with the key 1 until the door opens.
fn busy(builder: LoaderBuilder<u32, String>) -> (Table, Loader<u32, String, &'static str>) {
    let table = Table::default();
    let loader = builder.workers(1).build_sync(table.by_key()).unwrap();
    table.shut();
    let own = loader.clone();
    thread::spawn(move || drop(own.load_blocking(1)));
    until(&loader, |stats| stats.calls == 1);
    (table, loader)
}

#[test]
fn each_caller_gets_the_value_of_its_key() {
    let table = Table::default();
    let loader = one_worker(&table);
    thread::scope(|scope| {
        for key in 100..120 {
            let loader = &loader;
            scope.spawn(move || assert_eq!(loader.load_blocking(key).unwrap(), found(key)));
        }
    });
    assert_eq!(loader.name(), "values");
    assert_eq!(loader.max_keys(), 100);
}

#[test]
fn equal_keys_of_a_batch_are_loaded_once() {
    let (table, loader) = busy(Loader::builder());
    let keys = [5, 7, 5, 5, 20, 7, 20];
    thread::scope(|scope| {
        let all = scope.spawn(|| loader.load_many_blocking(keys));
        let lone = scope.spawn(|| loader.load_blocking(7));
        until(&loader, |stats| stats.batches.queued == 8);
        table.open();
        let values: Vec<_> = all
            .join()
            .unwrap()
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(values, keys.map(found));
        assert_eq!(lone.join().unwrap().unwrap(), found(7));
    });
    let mut keys = table.calls()[1].clone();
    keys.sort_unstable();
    assert_eq!(keys, [5, 7, 20]);
    let stats = loader.stats();
    assert_eq!((stats.loads, stats.calls, stats.cache_hits), (9, 2, 0));
    assert_eq!((stats.unique_keys, stats.duplicates), (4, 5));
}

#[test]
fn many_keys_are_spread_over_batches_and_come_back_in_order() {
    let table = Table::default();
    let builder = Loader::builder().max_keys(7).workers(2).capacity(20);
    let loader = builder.build_sync(table.by_key()).unwrap();
    let keys: Vec<u32> = (100..200).chain(100..200).rev().collect();
    let values = loader.load_many_blocking(keys.clone());
    let values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        values,
        keys.iter().map(|&key| found(key)).collect::<Vec<_>>()
    );
    assert!(table.calls().iter().all(|keys| keys.len() <= 7));
    let calls = table.calls().len();
    assert!(loader.load_many_blocking([]).is_empty());
    assert_eq!(table.calls().len(), calls, "no keys make no call");
}

#[test]
fn an_error_fails_its_batch_and_the_next_one_works() {
    let (table, loader) = busy(Loader::builder().max_keys(3));
    thread::scope(|scope| {
        let all = scope.spawn(|| loader.load_many_blocking([2, 13, 3, 4, 5]));
        until(&loader, |stats| stats.batches.queued == 5);
        table.open();
        let values = all.join().unwrap();
        for failed in &values[..3] {
            assert!(matches!(failed, Err(LoadError::Batch(error)) if **error == "thirteen"));
        }
        assert_eq!(values[3].as_ref().unwrap(), &found(4));
    });
    assert_eq!(loader.load_blocking(2).unwrap(), found(2));
}

#[test]
fn a_panic_fails_its_batch_and_the_worker_lives_on() {
    let loader = one_worker(&Table::default());
    let panicked = loader.load_blocking(666).unwrap_err();
    assert!(matches!(&panicked, LoadError::Panicked(message) if &**message == "the beast"));
    assert_eq!(loader.load_blocking(2).unwrap(), found(2));
}

#[test]
fn a_list_is_matched_by_place_and_a_wrong_length_by_nobody() {
    let lengths = Arc::new(AtomicUsize::new(0));
    let extra = Arc::clone(&lengths);
    let loader = Loader::builder()
        .workers(1)
        .build_sync(move |keys: Vec<u32>| {
            let mut values: Vec<_> = keys.into_iter().map(found).collect();
            match extra.load(Ordering::SeqCst) {
                0 => {}
                1 => values.push(None),
                _ => drop(values.pop()),
            }
            Ok::<_, Infallible>(values)
        })
        .unwrap();
    let values = loader.load_many_blocking([3, 10, 3]);
    let values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
    assert_eq!(values, [found(3), None, found(3)]);
    for (wrong, length) in [(1, 2), (2, 0)] {
        lengths.store(wrong, Ordering::SeqCst);
        let failed = loader.load_blocking(3).unwrap_err();
        let LoadError::WrongResultCount { expected: 1, got } = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(got, length);
    }
    lengths.store(0, Ordering::SeqCst);
    assert_eq!(loader.load_blocking(3).unwrap(), found(3));
}

/// A cache that is looked into.
#[derive(Default)]
struct Memory(Mutex<HashMap<u32, String>>);

impl LoadCache<u32, String> for Memory {
    fn get(&self, key: &u32) -> Option<String> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn insert(&self, key: u32, value: String) {
        self.0.lock().unwrap().insert(key, value);
    }

    fn remove(&self, key: &u32) {
        self.0.lock().unwrap().remove(key);
    }
}

#[test]
fn found_values_are_cached_and_neither_errors_nor_missing_ones() {
    let (table, memory) = (Table::default(), Arc::new(Memory::default()));
    let builder = Loader::builder().workers(1).cache(Arc::clone(&memory));
    let loader = builder.build_sync(table.by_key()).unwrap();
    for _ in 0..2 {
        assert_eq!(loader.load_blocking(5).unwrap(), found(5));
        assert_eq!(loader.load_blocking(20).unwrap(), None);
        assert!(loader.load_blocking(13).is_err());
    }
    let calls = table.calls();
    assert_eq!(calls, [vec![5], vec![20], vec![13], vec![20], vec![13]]);
    assert_eq!(memory.0.lock().unwrap().len(), 1);
    let stats = loader.stats();
    assert_eq!((stats.loads, stats.cache_hits), (6, 1));
    assert_eq!(stats.loads, stats.cache_hits + stats.batches.submitted);

    // Known and unknown ones, in order.
    let values = loader.load_many_blocking([6, 5, 6]);
    let values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
    assert_eq!(values, [found(6), found(5), found(6)]);
    assert_eq!(table.calls().last().unwrap(), &[6]);
}

#[test]
fn a_primed_value_is_not_loaded_and_a_cleared_one_is_again() {
    let table = Table::default();
    let builder = Loader::builder().workers(1).cache(Memory::default());
    let loader = builder.build_sync(table.by_key()).unwrap();
    loader.prime(5, "primed".into());
    assert_eq!(loader.load_blocking(5).unwrap().as_deref(), Some("primed"));
    loader.prime(5, "anew".into());
    assert_eq!(loader.load_blocking(5).unwrap().as_deref(), Some("anew"));
    assert!(table.calls().is_empty());
    loader.clear(&5);
    assert_eq!(loader.load_blocking(5).unwrap(), found(5));
    assert_eq!(table.calls(), [[5]]);

    // Without a cache there is nothing to prime or clear.
    let loader = one_worker(&table);
    loader.prime(5, "primed".into());
    loader.clear(&5);
    assert_eq!(loader.load_blocking(5).unwrap(), found(5));
}

#[test]
fn what_was_read_before_a_clear_is_not_cached_after_it() {
    for primed in [false, true] {
        let memory = Arc::new(Memory::default());
        let (table, loader) = busy(Loader::builder().cache(Arc::clone(&memory)));
        // The function has the key 1 in hand; somebody writes it now.
        if primed {
            loader.prime(1, "new".into());
        } else {
            loader.clear(&1);
        }
        table.open();
        until(&loader, |stats| stats.batches.completed == 1);
        let kept = memory.get(&1);
        assert_eq!(kept.as_deref(), primed.then_some("new"));
    }
}

#[test]
fn a_cache_that_panics_costs_nobody_a_value() {
    struct Broken;
    impl LoadCache<u32, String> for Broken {
        fn get(&self, _: &u32) -> Option<String> {
            None
        }

        fn insert(&self, _: u32, _: String) {
            resume_unwind(Box::new("quiet"));
        }

        fn remove(&self, _: &u32) {}
    }
    let builder = Loader::builder().workers(1).cache(Broken);
    let loader = builder.build_sync(Table::default().by_key()).unwrap();
    assert_eq!(loader.load_blocking(5).unwrap(), found(5));
    assert_eq!(loader.load_blocking(5).unwrap(), found(5));
}

#[test]
fn a_full_or_closed_loader_gives_the_key_back() {
    let builder = Loader::builder()
        .max_keys(1)
        .capacity(1)
        .overload(Overload::Reject);
    let (table, loader) = busy(builder);
    thread::scope(|scope| {
        let waits = scope.spawn(|| loader.load_blocking(2));
        until(&loader, |stats| stats.batches.queued == 1);
        let full = loader.load_blocking(3).unwrap_err();
        assert!(matches!(full, LoadError::Full(3)));
        loader.close();
        assert!(loader.is_closed());
        assert_eq!(loader.load_blocking(4).unwrap_err().into_inner(), Some(4));
        table.open();
        assert_eq!(waits.join().unwrap().unwrap(), found(2));
    });
}

#[test]
fn ends_wait_for_what_was_accepted_or_abandon_it() {
    let loader = one_worker(&Table::default());
    loader.load_blocking(1).unwrap();
    assert!(
        loader
            .shutdown_blocking(Duration::from_secs(60))
            .is_complete()
    );

    let (table, loader) = busy(Loader::builder());
    thread::scope(|scope| {
        let queued = scope.spawn(|| loader.load_blocking(2));
        until(&loader, |stats| stats.batches.queued == 1);
        let report = loader.drain_blocking(Duration::ZERO);
        assert_eq!(report.abandoned, 2);
        let abandoned = queued.join().unwrap().unwrap_err();
        assert_eq!(abandoned.into_inner(), Some(2));
    });
    table.open();
}

#[test]
fn dropping_the_last_handle_loads_what_was_accepted() {
    let (table, loader) = busy(Loader::builder());
    let own = loader.clone();
    let waits = thread::spawn(move || own.load_blocking(2));
    until(&loader, |stats| stats.batches.queued == 1);
    drop(loader);
    table.open();
    assert_eq!(waits.join().unwrap().unwrap(), found(2));
}

#[test]
fn bad_numbers_are_refused() {
    let refused = |builder: LoaderBuilder<u32, String>| {
        let refused = builder.build_sync(Table::default().by_key());
        refused.unwrap_err().field()
    };
    assert_eq!(refused(Loader::builder().max_keys(0)), "max_keys");
    assert_eq!(refused(Loader::builder().max_keys(usize::MAX)), "max_keys");
    assert_eq!(refused(Loader::builder().workers(0)), "workers");
    assert_eq!(refused(Loader::builder().capacity(1)), "capacity");
    let mut settings = BatchSettings::background();
    settings.workers = 0;
    assert_eq!(refused(Loader::builder().settings(settings)), "workers");
}

#[test]
fn loaders_are_shared() {
    fn is_shared<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}
    let loader = one_worker(&Table::default());
    is_shared(&loader);
    assert!(format!("{loader:?}").contains("values"));
}

#[test]
fn many_threads_at_once_lose_nothing() {
    let table = Table::default();
    let builder = Loader::builder()
        .max_keys(16)
        .workers(3)
        .cache(Memory::default());
    let loader = builder.build_sync(table.by_key()).unwrap();
    thread::scope(|scope| {
        for thread in 0..8_u32 {
            let loader = &loader;
            scope.spawn(move || {
                for n in 0..300 {
                    let key = 100 + (n * 7 + thread) % 50;
                    assert_eq!(loader.load_blocking(key).unwrap(), found(key));
                    if n % 20 == thread {
                        loader.clear(&key);
                    }
                }
            });
        }
    });
    let stats = loader.stats();
    assert_eq!(stats.loads, 2400);
    assert_eq!(stats.loads, stats.cache_hits + stats.batches.completed);
    assert_eq!(
        stats.batches.completed,
        stats.unique_keys + stats.duplicates
    );
    assert_eq!(stats.calls, stats.batches.batches);
}

fn cases() -> u32 {
    if std::env::var_os("OVERDRIVE_DEEP").is_some() {
        5_000
    } else {
        60
    }
}

#[derive(Clone, Debug)]
enum Act {
    Load(Vec<u32>),
    Prime(u32),
    Clear(u32),
    /// The database's value of a key changes, and the key is cleared.
    Write(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec(0..15_u32, 0..20).prop_map(Act::Load),
        1 => (0..15_u32).prop_map(Act::Prime),
        1 => (0..15_u32).prop_map(Act::Clear),
        2 => (0..15_u32).prop_map(Act::Write),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_answers_as_a_table_and_a_map_would(
        acts in prop::collection::vec(act(), 0..30),
        max_keys in 1..10_usize,
    ) {
        let database: Arc<Mutex<BTreeMap<u32, u64>>> =
            Arc::new(Mutex::new((0..10).map(|key| (key, 0)).collect()));
        struct Map(Mutex<HashMap<u32, u64>>);
        impl LoadCache<u32, u64> for Map {
            fn get(&self, key: &u32) -> Option<u64> {
                self.0.lock().unwrap().get(key).copied()
            }

            fn insert(&self, key: u32, value: u64) {
                self.0.lock().unwrap().insert(key, value);
            }

            fn remove(&self, key: &u32) {
                self.0.lock().unwrap().remove(key);
            }
        }
        let (table, asked) = (Arc::clone(&database), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let loader = Loader::builder()
            .max_keys(max_keys)
            .workers(2)
            .cache(Map(Mutex::default()))
            .build_sync(move |keys: Vec<u32>| {
                count.fetch_add(keys.len(), Ordering::SeqCst);
                let mut once = keys.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), keys.len(), "each key once");
                let table = table.lock().unwrap();
                let found = keys.into_iter().filter_map(|key| Some((key, *table.get(&key)?)));
                Ok::<HashMap<_, _>, Infallible>(found.collect())
            })
            .unwrap();
        let mut cached: HashMap<u32, u64> = HashMap::new();
        for (time, act) in acts.into_iter().enumerate() {
            let time = time as u64 + 1;
            match act {
                Act::Load(keys) => {
                    let before = asked.load(Ordering::SeqCst);
                    let mut misses = 0;
                    let model: Vec<_> = keys
                        .iter()
                        .map(|key| {
                            let known = cached.get(key).copied();
                            misses += usize::from(known.is_none());
                            known.or_else(|| database.lock().unwrap().get(key).copied())
                        })
                        .collect();
                    let values = loader.load_many_blocking(keys.clone());
                    let values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
                    prop_assert_eq!(&values, &model);
                    prop_assert!(asked.load(Ordering::SeqCst) - before <= misses);
                    for (key, value) in keys.iter().zip(values) {
                        if let Some(value) = value {
                            cached.insert(*key, value);
                        }
                    }
                }
                Act::Prime(key) => {
                    loader.prime(key, 1000 + time);
                    cached.insert(key, 1000 + time);
                }
                Act::Clear(key) => {
                    loader.clear(&key);
                    cached.remove(&key);
                }
                Act::Write(key) => {
                    database.lock().unwrap().insert(key, time);
                    loader.clear(&key);
                    cached.remove(&key);
                }
            }
        }
    }
}
