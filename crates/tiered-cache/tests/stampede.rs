//! One loader per key, whatever happens to those who wait.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_tiered_cache::{Deadline, LoadError};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use support::{MapTier, Texts, local, over, until};

const CALLERS: usize = 1_000;
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Loader {
    calls: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

#[derive(Debug, PartialEq)]
struct Broken;

type Loaded = Result<Arc<String>, LoadError<Broken>>;

impl Loader {
    fn held() -> Self {
        Self {
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    fn open(&self) {
        self.gate.add_permits(100_000);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn run(self) -> Result<String, Broken> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        Ok(format!("value {call}"))
    }

    fn ask(&self, cache: &Texts, key: u64) -> JoinHandle<Loaded> {
        let (cache, loader) = (cache.clone(), self.clone());
        tokio::spawn(async move { cache.load(&key, || loader.run()).await })
    }
}

/// All callers wait for the one load that has begun.
async fn crowd(cache: &Texts, loader: &Loader, n: usize) -> Vec<JoinHandle<Loaded>> {
    let callers: Vec<_> = (0..n).map(|_| loader.ask(cache, 1)).collect();
    until(|| cache.stats().joined as usize == n - 1 && loader.calls() == 1).await;
    callers
}

async fn all(callers: Vec<JoinHandle<Loaded>>) -> Vec<Loaded> {
    let mut results = Vec::new();
    for caller in callers {
        results.push(caller.await.unwrap());
    }
    results
}

#[tokio::test]
async fn a_thousand_callers_are_one_load() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let callers = crowd(&cache, &loader, CALLERS).await;
    loader.open();
    assert!(
        all(callers)
            .await
            .iter()
            .all(|r| **r.as_ref().unwrap() == "value 0")
    );
    assert_eq!((loader.calls(), cache.stats().loads), (1, 1));
}

#[tokio::test]
async fn the_first_caller_may_leave() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let mut callers = crowd(&cache, &loader, CALLERS).await;
    let first = callers.remove(0);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    loader.open();
    assert!(all(callers).await.iter().all(Result::is_ok));
    assert_eq!(loader.calls(), 1);
}

#[tokio::test]
async fn all_callers_may_leave_and_the_value_is_stored() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    for caller in crowd(&cache, &loader, 3).await {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    loader.open();
    assert!(cache.drain(LONG).await.is_complete());
    assert_eq!(cache.get_local(&1).unwrap().as_str(), "value 0");
}

#[tokio::test]
async fn a_panic_goes_to_all_who_wait_and_starts_no_other_load() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let panics = {
        let (cache, loader) = (cache.clone(), loader.clone());
        tokio::spawn(async move {
            let load = || async move {
                loader.run().await?;
                panic!("the loader")
            };
            cache.load(&1, load).await
        })
    };
    until(|| loader.calls() == 1).await;
    let callers: Vec<_> = (1..CALLERS).map(|_| loader.ask(&cache, 1)).collect();
    until(|| cache.stats().joined as usize == CALLERS - 1).await;
    loader.open();
    let mut results = all(callers).await;
    results.push(panics.await.unwrap());
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(LoadError::Panicked)))
    );
    assert_eq!((loader.calls(), cache.stats().load_panics), (1, 1));
    assert!(
        loader.ask(&cache, 1).await.unwrap().is_ok(),
        "the next one loads"
    );
}

#[tokio::test]
async fn an_error_goes_to_all_who_wait_and_is_not_remembered() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let fails = {
        let (cache, loader) = (cache.clone(), loader.clone());
        let load = || async move { loader.run().await.and(Err(Broken)) };
        tokio::spawn(async move { cache.load(&1, load).await })
    };
    until(|| loader.calls() == 1).await;
    let callers: Vec<_> = (1..CALLERS).map(|_| loader.ask(&cache, 1)).collect();
    until(|| cache.stats().joined as usize == CALLERS - 1).await;
    loader.open();
    let mut results = all(callers).await;
    results.push(fails.await.unwrap());
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(LoadError::Load(e)) if **e == Broken))
    );
    assert_eq!((loader.calls(), cache.stats().load_errors), (1, 1));
    assert!(loader.ask(&cache, 1).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_plain_get_takes_no_loaders_place() {
    let tier = MapTier::default();
    let hold = Arc::new(Semaphore::new(0));
    tier.with(|state| state.hold = Some(Arc::clone(&hold)));
    let (cache, loader) = (over(tier.clone()).build().unwrap(), Loader::held());
    let get = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(&1).await })
    };
    until(|| tier.with(|state| state.gets) == 1).await;
    tier.with(|state| state.hold = None);
    let callers = crowd(&cache, &loader, CALLERS).await;
    loader.open();
    assert!(all(callers).await.iter().all(Result::is_ok));
    hold.add_permits(1);
    assert!(get.await.unwrap().unwrap().is_none());
    assert_eq!(loader.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_keys_and_many_tasks_are_twenty_loads() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let mut callers = Vec::new();
    for n in 0..20 * 100_u64 {
        callers.push(loader.ask(&cache, n % 20));
        if n % 10 == 0 {
            assert!(cache.get(&(n % 20)).await.unwrap().is_none());
        }
    }
    until(|| cache.stats().joined == 20 * 99 && loader.calls() == 20).await;
    loader.open();
    assert!(all(callers).await.iter().all(Result::is_ok));
    assert_eq!(loader.calls(), 20);
}

#[tokio::test]
async fn callers_with_another_error_type_load_for_themselves() {
    let (cache, gate) = (local().build().unwrap(), Arc::new(Semaphore::new(0)));
    let fails = {
        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
        let load = || async move {
            gate.acquire().await.unwrap().forget();
            Err::<String, u8>(7)
        };
        tokio::spawn(async move { cache.load(&1, load).await })
    };
    until(|| cache.stats().loads == 1).await;
    let loader = Loader::held();
    let other = loader.ask(&cache, 1);
    until(|| cache.stats().joined == 1).await;
    loader.open();
    gate.add_permits(1);
    assert!(matches!(fails.await.unwrap(), Err(LoadError::Load(error)) if *error == 7));
    assert!(other.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_takes_too_long_is_dropped() {
    let limit = Duration::from_secs(3);
    let cache = local().loader_timeout(limit).build().unwrap();
    let loader = Loader::held();
    let held = loader.clone();
    let error = cache.load(&1, || held.run()).await.unwrap_err();
    assert!(matches!(error, LoadError::TimedOut { after } if after == limit));
    assert_eq!(Arc::strong_count(&loader.calls), 1);
}

#[tokio::test]
async fn a_shutdown_waits_for_loads_and_starts_none() {
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let callers = crowd(&cache, &loader, 2).await;
    let report = cache.shutdown(Duration::ZERO).await;
    assert_eq!((report.finished, report.abandoned), (0, 1));
    let refused = loader.ask(&cache, 2).await.unwrap();
    assert!(matches!(refused, Err(LoadError::Closed)));
    let refused = cache.insert(3, "three".to_owned()).await.unwrap_err();
    assert_eq!(refused.into_inner(), (3, "three".to_owned()));
    loader.open();
    let report = cache.drain(Deadline::NEVER).await;
    assert!(report.is_complete());
    assert!(all(callers).await.iter().all(Result::is_ok));
}

#[test]
fn a_runtime_that_ends_lets_go_of_those_who_wait() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let (cache, loader) = (local().build().unwrap(), Loader::held());
    let ask = |runtime: &tokio::runtime::Runtime| {
        let _entered = runtime.enter();
        loader.ask(&cache, 1)
    };
    drop(ask(&first));
    while loader.calls() == 0 {
        std::thread::yield_now();
    }
    let waits = ask(&second);
    while cache.stats().joined == 0 {
        std::thread::yield_now();
    }
    drop(first);
    let lost = second.block_on(waits).unwrap();
    assert!(matches!(lost, Err(LoadError::Abandoned)));
    loader.open();
    assert!(second.block_on(ask(&second)).unwrap().is_ok());
}
