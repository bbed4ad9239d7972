//! One maker per key, whatever happens to those who wait, blocking or not.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_tiered_cache::{Cache, Lookup, Reserve};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};

const CALLERS: usize = 1_000;

fn cache() -> Cache<u8, usize> {
    Cache::builder().max_entries(4).build().unwrap()
}

#[derive(Clone)]
struct Maker {
    calls: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Maker {
    fn held() -> Self {
        Self {
            calls: Arc::default(),
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    async fn make(self) -> usize {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        call
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn ask(&self, cache: &Cache<u8, usize>) -> JoinHandle<usize> {
        let (cache, maker) = (cache.clone(), self.clone());
        tokio::spawn(async move {
            maker.asked.fetch_add(1, Ordering::SeqCst);
            cache.get_or_insert_async(1, || maker.clone().make()).await
        })
    }

    /// All have asked, and one makes it.
    async fn crowd(&self, cache: &Cache<u8, usize>, n: usize) -> Vec<JoinHandle<usize>> {
        let first = self.ask(cache);
        until(|| self.calls() == 1).await;
        let others = (1..n).map(|_| self.ask(cache));
        let callers = std::iter::once(first).chain(others).collect();
        until(|| self.asked.load(Ordering::SeqCst) == n).await;
        callers
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_thousand_callers_are_one_call() {
    let (cache, maker) = (cache(), Maker::held());
    let callers = maker.crowd(&cache, CALLERS).await;
    maker.gate.add_permits(CALLERS);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 0);
    }
    assert_eq!((maker.calls(), cache.get(&1)), (1, Some(0)));
}

#[tokio::test]
async fn when_the_first_goes_away_one_other_takes_over() {
    let (cache, maker) = (cache(), Maker::held());
    let mut callers = maker.crowd(&cache, CALLERS).await;
    for n in 2..5 {
        // Whoever makes it now is among the callers: each leaves in its turn.
        let calls = maker.calls();
        while maker.calls() == calls {
            callers.remove(0).abort();
            for _ in 0..10 {
                yield_now().await;
            }
        }
        assert_eq!(maker.calls(), n, "no storm");
    }
    maker.gate.add_permits(CALLERS);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 3);
    }
    assert_eq!(maker.calls(), 4);
}

#[tokio::test]
async fn a_panic_goes_to_its_own_caller_and_one_other_takes_over() {
    let (cache, maker, gate) = (cache(), Maker::held(), Arc::new(Semaphore::new(0)));
    let (asked, held) = (cache.clone(), Arc::clone(&gate));
    let first = tokio::spawn(async move {
        let make = || async {
            held.acquire().await.unwrap().forget();
            panic!("the maker")
        };
        asked.get_or_insert_async(1, make).await
    });
    until(|| matches!(cache.reserve(1), Reserve::Busy(_))).await;
    let others: Vec<_> = (0..10).map(|_| maker.ask(&cache)).collect();
    until(|| maker.asked.load(Ordering::SeqCst) == 10).await;
    gate.add_permits(1);
    assert!(first.await.unwrap_err().is_panic());
    maker.gate.add_permits(10);
    for other in others {
        assert_eq!(other.await.unwrap(), 0);
    }
    assert_eq!(maker.calls(), 1);
}

#[tokio::test]
async fn an_error_goes_to_its_own_caller_and_nothing_is_stored() {
    let cache = cache();
    let fails = cache.try_get_or_insert_async(1, || async { Err("no") });
    assert_eq!(fails.await, Err("no"));
    assert!(cache.is_empty());
    let made = cache.try_get_or_insert_async(1, || async { Ok::<_, Infallible>(2) });
    assert_eq!(made.await, Ok(2));
}

#[tokio::test]
async fn a_future_that_is_dropped_before_it_is_polled_did_nothing() {
    let cache = cache();
    drop(cache.get_or_insert_async(1, pending));
    assert_eq!(cache.get_or_insert_async(1, || async { 1 }).await, 1);
}

#[tokio::test]
async fn threads_and_tasks_wait_for_each_other() {
    let cache = cache();
    let Reserve::Vacant(mine) = cache.reserve(1) else {
        panic!("there is none")
    };
    let asked = cache.clone();
    let thread = thread::spawn(move || asked.get_or_insert_with(1, || 9));
    let Reserve::Busy(task) = cache.reserve(1) else {
        panic!("it is being made")
    };
    let Reserve::Busy(blocking) = cache.reserve(1) else {
        panic!("it is being made")
    };
    assert_eq!(mine.key(), Some(&1));
    assert_eq!(mine.insert(7), 7);
    assert_eq!((task.await, blocking.wait_blocking()), (Some(7), Some(7)));
    assert_eq!(thread.join().unwrap(), 7);
}

#[tokio::test]
async fn a_reservation_that_is_dropped_lets_the_next_one_try() {
    let cache = cache();
    let Reserve::Vacant(mine) = cache.reserve(1) else {
        panic!("there is none")
    };
    let Reserve::Busy(pending) = cache.reserve(1) else {
        panic!("it is being made")
    };
    drop(mine);
    assert_eq!(pending.await, None);
    assert!(matches!(cache.reserve(1), Reserve::Vacant(_)));
}

#[tokio::test]
async fn a_reservation_outlives_the_handles_of_its_cache() {
    let reserved = cache().reserve(1);
    let Reserve::Vacant(mine) = reserved else {
        panic!("there is none")
    };
    assert_eq!(mine.insert(1), 1);
}

#[tokio::test]
async fn a_stale_value_is_made_anew_by_one_while_the_others_get_it() {
    let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
    let builder = Cache::builder().max_entries(4).clock(clock.clone());
    let builder = builder.ttl(10 * second).refresh_after(2 * second);
    let cache: Cache<u8, usize> = builder.build().unwrap();
    cache.insert(1, 1).unwrap();
    assert_eq!(cache.lookup(&1), Lookup::Fresh(1));
    clock.advance(2 * second);
    assert_eq!(
        (cache.lookup(&1), cache.get(&1)),
        (Lookup::Stale(1), Some(1))
    );
    let Reserve::Vacant(mine) = cache.reserve(1) else {
        panic!("a new one is wanted")
    };
    assert_eq!(cache.get_or_insert_with(1, || 9), 1);
    assert_eq!(cache.get_or_insert_async(1, || async { 9 }).await, 1);
    mine.insert(2);
    assert_eq!(cache.lookup(&1), Lookup::Fresh(2));
    clock.advance(2 * second);
    assert_eq!(cache.try_get_or_insert_with(1, || Err(())), Err(()));
    assert_eq!(
        cache.get(&1),
        Some(2),
        "the old one stays until its life ends"
    );
    clock.advance(8 * second);
    assert_eq!(cache.lookup(&1), Lookup::Missing);
}

#[test]
fn futures_can_go_to_other_threads() {
    fn check<T: Send>(_: T) {}
    fn future(cache: &Cache<u8, usize>) -> impl Future<Output = usize> + Send {
        cache.get_or_insert_async(1, || async { 1 })
    }
    check(future(&cache()));
    check(cache().reserve(1));
}
