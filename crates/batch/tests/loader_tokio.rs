//! Loaders on tasks of tokio.
#![cfg(feature = "tokio")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_batch::{Gather, LoadError, Loader};
use tokio::sync::Semaphore;

/// Doubles keys below a thousand, each call with a permit.
fn doubles(permits: &Arc<Semaphore>, calls: &Arc<AtomicUsize>) -> Loader<u64, u64> {
    let (permits, calls) = (Arc::clone(permits), Arc::clone(calls));
    Loader::builder()
        .workers(1)
        .build(move |keys: Vec<u64>| {
            let (permits, calls) = (Arc::clone(&permits), Arc::clone(&calls));
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                permits.acquire().await.expect("open").forget();
                let found = keys.into_iter().filter(|key| *key < 1000);
                Ok::<HashMap<_, _>, Infallible>(found.map(|key| (key, key * 2)).collect())
            }
        })
        .unwrap()
}

fn free() -> (Arc<Semaphore>, Arc<AtomicUsize>) {
    (Arc::new(Semaphore::new(1_000_000)), Arc::default())
}

#[tokio::test]
async fn loads_of_one_tick_are_one_call() {
    let (permits, calls) = free();
    let loader = doubles(&permits, &calls);
    let loads = (0..50).map(|n| {
        let loader = loader.clone();
        tokio::spawn(async move { loader.load(n % 20).await })
    });
    for (n, load) in loads.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(load.await.unwrap().unwrap(), Some(n as u64 % 20 * 2));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let stats = loader.stats();
    assert_eq!((stats.unique_keys, stats.duplicates), (20, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_get_their_own_values_on_many_threads() {
    let (permits, calls) = free();
    let loader = doubles(&permits, &calls);
    let tasks = (0..100_u64).map(|task| {
        let loader = loader.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let key = task * 20 + n;
                let expected = (key < 1000).then_some(key * 2);
                assert_eq!(loader.load(key).await.unwrap(), expected);
            }
            let keys = [5, task, 5, 2000];
            let values = loader.load_many(keys).await;
            let values: Result<Vec<_>, _> = values.into_iter().collect();
            let expected = [Some(10), Some(task * 2), Some(10), None];
            assert_eq!(values.unwrap(), expected);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let report = loader.shutdown(Duration::from_secs(60)).await;
    assert!(report.is_complete());
    assert!(matches!(loader.load(1).await, Err(LoadError::Closed(1))));
}

#[tokio::test]
async fn one_callers_cancel_is_its_own() {
    let permits = Arc::new(Semaphore::new(0));
    let calls = Arc::default();
    let loader = doubles(&permits, &calls);
    let spawn = |key| {
        let loader = loader.clone();
        tokio::spawn(async move { loader.load(key).await })
    };
    let (running, queued) = (spawn(1), spawn(1));
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // One of two in the running batch, and one of three in the next.
    let (first, second, third) = (spawn(2), spawn(2), spawn(3));
    while loader.stats().batches.queued < 3 {
        tokio::task::yield_now().await;
    }
    running.abort();
    second.abort();
    third.abort();
    assert!(second.await.is_err() && third.await.is_err());
    permits.add_permits(10);
    assert_eq!(queued.await.unwrap().unwrap(), Some(2));
    assert_eq!(first.await.unwrap().unwrap(), Some(4));
    let stats = loader.stats();
    assert_eq!(stats.unique_keys, 2, "nobody waited for the key 3");
    assert_eq!(stats.batches.cancelled, 2);
}

#[tokio::test(start_paused = true)]
async fn a_loader_lingers_if_it_is_told_to() {
    let loader = Loader::builder()
        .gather(Gather::Linger { min_size: 3 })
        .max_wait(Duration::from_millis(50))
        .build(|keys: Vec<u64>| async move {
            Ok::<Vec<_>, Infallible>(keys.into_iter().map(Some).collect())
        })
        .unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(loader.load(1).await.unwrap(), Some(1));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let begun = tokio::time::Instant::now();
    let values = loader.load_many([1, 2, 3]).await;
    assert_eq!(values.into_iter().flatten().flatten().sum::<u64>(), 6);
    assert!(begun.elapsed() < Duration::from_millis(50));
}

/// A key that counts how many of it live.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Counted(u64, Token);

#[derive(Debug)]
struct Token(Arc<AtomicUsize>);

impl Token {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(live))
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl PartialEq for Token {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Token {}

impl std::hash::Hash for Token {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self(self.0, self.1.clone())
    }
}

#[tokio::test]
async fn ten_thousand_aborted_loads_leave_nothing_behind() {
    let live = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let loader = Loader::builder()
        .workers(2)
        .build(move |keys: Vec<Counted>| {
            let wait = Arc::clone(&wait);
            async move {
                wait.acquire().await.expect("open").forget();
                let values = keys.iter().map(|key| Some(key.1.clone()));
                Ok::<Vec<_>, Infallible>(values.collect())
            }
        })
        .unwrap();
    for round in 0..100_u64 {
        let loads = (0..100).map(|n| {
            let (loader, key) = (loader.clone(), Counted(n % 30, Token::new(&live)));
            tokio::spawn(async move { loader.load(key).await.map(drop) })
        });
        let loads: Vec<_> = loads.collect();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        if round % 3 == 0 {
            gate.add_permits(2);
        }
        for load in &loads {
            load.abort();
        }
        for load in loads {
            let _aborted = load.await;
        }
    }
    gate.add_permits(1000);
    let key = Counted(1, Token::new(&live));
    assert!(loader.load(key).await.unwrap().is_some());
    assert!(loader.shutdown(Duration::from_secs(60)).await.is_complete());
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn a_dropped_runtime_abandons_its_loads() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let permits = Arc::new(Semaphore::new(0));
    let loader = runtime.block_on(async { doubles(&permits, &Arc::default()) });
    let load = {
        let loader = loader.clone();
        std::thread::spawn(move || loader.load_blocking(1))
    };
    runtime.block_on(async {
        while loader.stats().calls == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    let abandoned = load.join().unwrap().unwrap_err();
    assert!(matches!(abandoned, LoadError::Abandoned(None)));
    assert!(loader.load_blocking(2).is_err());
}

#[test]
fn without_a_runtime_it_is_not_built() {
    let built = Loader::<u8, u8>::builder()
        .build(|keys: Vec<u8>| async move { Ok::<_, Infallible>(vec![None::<u8>; keys.len()]) });
    assert_eq!(built.unwrap_err().field(), "runtime");
}
