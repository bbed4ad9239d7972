//! What is out of date is neither stored nor given, at whichever wait it comes to be so.

mod support;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_tiered_cache::{
    EntryOptions, InvalidateError, LoadError, SecondTierWrite, Tier, TieredCache,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use support::{MapTier, Texts, local, over, until};

const SECOND: Duration = Duration::from_secs(1);
const CHANGES: [(&str, &str); 3] = [("key", "remove"), ("tag", "bump"), ("all", "bump")];

fn tagged() -> EntryOptions {
    EntryOptions::new().tag("t")
}

async fn change(cache: &Texts, what: &str) -> Result<(), InvalidateError> {
    match what {
        "key" => cache.invalidate(&1).await,
        "tag" => cache.invalidate_tag("t").await,
        _ => cache.clear().await,
    }
}

/// A second tier with "old" at 1.
async fn filled() -> MapTier {
    let second = MapTier::default();
    let writer = over(second.clone()).build().unwrap();
    let written = writer.insert_with(1, "old".to_owned(), tagged()).await;
    assert!(written.unwrap().memory);
    second
}

async fn found(cache: &Texts) -> Option<String> {
    let hit = cache.get(&1).await.unwrap();
    hit.map(|hit| hit.value.to_string())
}

async fn abort<T>(task: JoinHandle<T>) {
    task.abort();
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
}

type Failed = Result<Arc<String>, LoadError<()>>;

/// A load that fails once it is let.
async fn failing(cache: &Texts) -> (JoinHandle<Failed>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (loading, held, before) = (cache.clone(), Arc::clone(&gate), cache.stats().loads);
    let load = async move {
        let load = || async move {
            held.acquire().await.unwrap().forget();
            Err(())
        };
        loading.load_with(&1, tagged(), load).await
    };
    let load = tokio::spawn(load);
    until(|| cache.stats().loads > before).await;
    (load, gate)
}

#[tokio::test]
async fn an_invalidation_that_is_dropped_leaves_nothing_old_in_memory() {
    for (what, call) in CHANGES {
        let second = filled().await;
        let cache = over(second.clone()).build().unwrap();
        second.stop(call);
        let changing = {
            let cache = cache.clone();
            tokio::spawn(async move { change(&cache, what).await })
        };
        until(|| second.calls(call) == 1).await;
        assert_eq!(found(&cache).await.as_deref(), Some("old"), "{what}");
        abort(changing).await;
        assert_eq!(cache.get_local(&1), None, "{what}");
    }
}

#[tokio::test]
async fn an_insertion_that_is_dropped_leaves_nothing_older_in_memory() {
    let (second, clock) = (filled().await, ManualClock::new());
    let cache = over(second.clone()).clock(clock.clone()).build().unwrap();
    second.stop("set");
    let inserting = {
        let (cache, short) = (cache.clone(), EntryOptions::new().ttl(SECOND));
        tokio::spawn(async move { cache.insert_with(1, "new".to_owned(), short).await })
    };
    until(|| second.calls("set") == 2).await;
    assert_eq!(found(&cache).await.as_deref(), Some("new"));
    clock.advance(SECOND);
    assert_eq!(found(&cache).await.as_deref(), Some("old"));
    abort(inserting).await;
    assert_eq!(cache.get_local(&1), None);
}

#[tokio::test]
async fn an_insertion_begun_before_the_invalidation_of_its_tag_stores_nothing_after_it() {
    for what in ["tag", "all"] {
        let second = MapTier::default();
        let cache = over(second.clone()).build().unwrap();
        let stop = second.stop("versions");
        let inserting = {
            let cache = cache.clone();
            let insert = async move { cache.insert_with(1, "old".to_owned(), tagged()).await };
            tokio::spawn(insert)
        };
        until(|| second.calls("versions") == 1).await;
        change(&cache, what).await.unwrap();
        stop.add_permits(100);
        let written = inserting.await.unwrap().unwrap();
        assert!(!written.memory, "{what}");
        assert!(matches!(written.second_tier, SecondTierWrite::Done));
        assert_eq!(cache.get_local(&1), None, "{what}");
        let other = over(second.clone()).build().unwrap();
        assert_eq!(found(&other).await, None, "{what}");
    }
}

/// One that has "old" at 1 in memory, and one that has it in the second tier only; out of date by
/// 4 s, with 6 s to go.
async fn outdated(clock: &ManualClock) -> [Texts; 2] {
    let second = MapTier::default();
    let build = || {
        let builder = over(second.clone()).ttl(SECOND).stale_for(10 * SECOND);
        builder.clock(clock.clone()).build().unwrap()
    };
    let (near, far) = (build(), build());
    let written = near.insert_with(1, "old".to_owned(), tagged()).await;
    assert!(written.unwrap().memory);
    clock.advance(5 * SECOND);
    second.with(|state| {
        let entries = state.map.values_mut();
        entries.for_each(|stored| stored.remaining = Some(6 * SECOND));
    });
    [near, far]
}

#[tokio::test]
async fn what_is_invalidated_while_a_load_fails_does_not_stand_in_for_it() {
    for (what, _) in CHANGES {
        for i in 0..2 {
            let clock = ManualClock::new();
            let cache = outdated(&clock).await[i].clone();
            let (load, gate) = failing(&cache).await;
            change(&cache, what).await.unwrap();
            gate.add_permits(1);
            let failed = load.await.unwrap();
            assert!(matches!(failed, Err(LoadError::Load(_))), "{what} {i}");
        }
    }
}

#[tokio::test]
async fn what_is_too_old_once_a_load_has_failed_does_not_stand_in_for_it() {
    let clock = ManualClock::new();
    for (i, cache) in outdated(&clock).await.into_iter().enumerate() {
        let (load, gate) = failing(&cache).await;
        clock.advance(6 * SECOND);
        gate.add_permits(1);
        assert!(load.await.unwrap().is_err(), "{i}");
    }
}

#[tokio::test]
async fn nothing_older_than_its_own_stale_for_is_used_whatever_others_keep() {
    let second = MapTier::default();
    let build = |stale: Duration| {
        let builder = over(second.clone()).ttl(SECOND).stale_for(stale);
        builder.build().unwrap()
    };
    let written = build(10 * SECOND).insert(1, "old".to_owned()).await;
    assert!(written.unwrap().memory);
    second.with(|state| {
        let entries = state.map.values_mut();
        entries.for_each(|stored| stored.remaining = Some(6 * SECOND));
    });
    for (stale, stands_in) in [(0, false), (3, false), (5, true)] {
        let cache = build(stale * SECOND);
        let (load, gate) = failing(&cache).await;
        gate.add_permits(1);
        assert_eq!(load.await.unwrap().is_ok(), stands_in, "{stale}");
    }
}

#[tokio::test]
async fn the_time_that_a_read_takes_is_part_of_the_life_of_what_it_finds() {
    for wait in [2, 3] {
        let (second, clock) = (filled().await, ManualClock::new());
        second.with(|state| {
            let entries = state.map.values_mut();
            entries.for_each(|stored| stored.remaining = Some(3 * SECOND));
        });
        let cache = over(second.clone()).clock(clock.clone()).build().unwrap();
        let hold = Arc::new(Semaphore::new(0));
        second.with(|state| (state.gets, state.hold) = (0, Some(Arc::clone(&hold))));
        let reading = {
            let cache = cache.clone();
            tokio::spawn(async move { found(&cache).await })
        };
        until(|| second.with(|state| state.gets) == 1).await;
        clock.advance(wait * SECOND);
        hold.add_permits(1);
        assert_eq!(reading.await.unwrap().is_some(), wait < 3);
        clock.advance(SECOND);
        assert_eq!(cache.get_local(&1), None);
    }
}

#[tokio::test]
async fn lives_at_both_ends_survive_jitter() {
    let second = MapTier::default();
    let build = |part| over(second.clone()).jitter(part).build().unwrap();
    let options = |ttl| EntryOptions::new().ttl(ttl);
    let (long, short) = (options(Duration::MAX), options(Duration::from_nanos(1)));
    let cache = build(f64::MIN_POSITIVE);
    let written = cache.insert_with(1, String::new(), long).await.unwrap();
    assert!(written.memory && found(&cache).await.is_some());
    for key in 2..20 {
        let cache = build(1.0);
        let written = cache.insert_with(key, String::new(), short.clone()).await;
        assert!(written.unwrap().memory);
    }
    assert_eq!(second.calls("remove"), 0);
}

#[tokio::test]
async fn a_read_under_way_does_not_undo_what_the_request_itself_does() {
    let second = filled().await;
    let cache = over(second.clone()).build().unwrap();
    let request = Arc::new(cache.request_scope());
    let hold = Arc::new(Semaphore::new(0));
    second.with(|state| (state.gets, state.hold) = (0, Some(Arc::clone(&hold))));
    let reading = {
        let request = Arc::clone(&request);
        tokio::spawn(async move { request.get(&1).await })
    };
    until(|| second.with(|state| state.gets) == 1).await;
    request.invalidate(&1).await.unwrap();
    hold.add_permits(100);
    assert!(reading.await.unwrap().is_ok());
    assert_eq!(request.get(&1).await.unwrap(), None);
}

#[tokio::test]
async fn a_request_whose_insertion_was_dropped_sees_what_is_in_the_tiers() {
    let second = filled().await;
    let cache = over(second.clone()).build().unwrap();
    let request = Arc::new(cache.request_scope());
    assert_eq!(
        request.get(&1).await.unwrap().unwrap().value.as_str(),
        "old"
    );
    second.stop("set");
    let inserting = {
        let request = Arc::clone(&request);
        tokio::spawn(async move { request.insert(1, "new".to_owned()).await })
    };
    until(|| second.calls("set") == 2).await;
    abort(inserting).await;
    let hit = request.get(&1).await.unwrap().unwrap();
    assert_eq!((hit.value.as_str(), hit.tier), ("new", Tier::Memory));
}

#[tokio::test]
async fn a_load_that_comes_with_the_close_does_not_begin() {
    /// Closes the cache in the middle of a load.
    #[derive(PartialEq, Eq, Hash)]
    struct Closing;
    static CACHE: OnceLock<TieredCache<Closing, u8>> = OnceLock::new();
    impl Clone for Closing {
        fn clone(&self) -> Self {
            CACHE.get().unwrap().close();
            Self
        }
    }
    let cache = CACHE.get_or_init(|| TieredCache::builder().max_entries(1).build().unwrap());
    let loaded = cache.load(&Closing, || async { Ok::<_, ()>(1) }).await;
    assert!(matches!(loaded, Err(LoadError::Closed)), "{loaded:?}");
    assert_eq!((cache.stats().loads, cache.stats().loading), (0, 0));
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_key_costs_no_load() {
    static ARMED: AtomicBool = AtomicBool::new(false);
    #[derive(Clone, PartialEq, Eq)]
    struct Fragile;
    impl Hash for Fragile {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            assert!(!ARMED.swap(false, Ordering::SeqCst), "drop");
        }
    }
    let cache = TieredCache::<Fragile, u8>::builder();
    let cache = cache.max_entries(1).build().unwrap();
    let load = || async {
        ARMED.store(true, Ordering::SeqCst);
        Ok::<_, ()>(1)
    };
    let loaded = cache.load(&Fragile, load).await;
    assert_eq!(*loaded.unwrap(), 1);
    assert!(cache.drain(60 * SECOND).await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_waits_for_itself_ends_with_its_time() {
    let cache = local().loader_timeout(SECOND).build().unwrap();
    let inner = cache.clone();
    let load = || async move {
        let load = || async { Ok::<_, ()>("inner".to_owned()) };
        inner.load(&1, load).await.map(|value| value.to_string())
    };
    let waited = cache.load(&1, load).await;
    assert!(matches!(waited, Err(LoadError::TimedOut { .. })));
    assert_eq!(cache.stats().loading, 0);
}

#[tokio::test(start_paused = true)]
async fn the_reads_before_a_load_have_one_limit_together() {
    let second = MapTier::default();
    let limit = Duration::from_millis(100);
    let cache = over(second.clone()).second_tier_timeout(limit);
    let cache = cache.build().unwrap();
    let hold = Arc::new(Semaphore::new(0));
    second.with(|state| state.hold = Some(Arc::clone(&hold)));
    second.stop("versions");
    let start = tokio::time::Instant::now();
    let loading = {
        let cache = cache.clone();
        let load = || async { Ok::<_, ()>("new".to_owned()) };
        tokio::spawn(async move { cache.load(&1, load).await })
    };
    until(|| second.with(|state| state.gets) == 1).await;
    tokio::time::advance(limit * 9 / 10).await;
    hold.add_permits(1);
    assert!(loading.await.unwrap().is_ok());
    assert!(start.elapsed() < limit * 3 / 2, "{:?}", start.elapsed());
}
