//! The tiers together: fence, faults, lives, tags, scopes.

mod support;

use std::sync::Arc;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_tiered_cache::{
    CacheError, EntryOptions, Health, Hit, InvalidateError, LoadError, RequestScope,
    SecondTierWrite, Tier, TierError, TieredCache, TieredCacheStats, Ttl,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use support::{MapTier, Mode, Texts, local, over, text, until};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

async fn load(cache: &Texts, value: &str) -> String {
    let value = value.to_owned();
    let load = || async move { Ok::<_, ()>(value) };
    cache.load(&1, load).await.unwrap().to_string()
}

async fn tier(cache: &Texts) -> Option<(String, Tier)> {
    let hit = cache.get(&1).await.unwrap();
    hit.map(|hit| (hit.value.to_string(), hit.tier))
}

fn old(cache: &Texts, options: EntryOptions) -> (JoinHandle<String>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (cache, held) = (cache.clone(), Arc::clone(&gate));
    let load = async move {
        let load = || async move {
            held.acquire().await.unwrap().forget();
            Ok::<_, ()>("old".to_owned())
        };
        let value = cache.load_with(&1, options, load).await;
        value.unwrap().to_string()
    };
    (tokio::spawn(load), gate)
}

#[tokio::test]
async fn a_load_begun_before_a_change_stores_nothing_after_it() {
    for change in ["invalidate", "insert", "tag", "clear"] {
        let second = MapTier::default();
        let cache = over(second.clone()).build().unwrap();
        let (loading, gate) = old(&cache, EntryOptions::new().tag("t"));
        until(|| cache.stats().loads == 1).await;
        match change {
            "invalidate" => cache.invalidate(&1).await.unwrap(),
            "tag" => cache.invalidate_tag("t").await.unwrap(),
            "clear" => cache.clear().await.unwrap(),
            _ => drop(cache.insert(1, "new".to_owned()).await.unwrap()),
        }
        gate.add_permits(1);
        assert_eq!(loading.await.unwrap(), "old", "its caller has its value");
        assert!(cache.drain(LONG).await.is_complete());
        let left = tier(&cache).await;
        let expected = (change == "insert").then(|| ("new".to_owned(), Tier::Memory));
        assert_eq!(left, expected, "{change}");
        assert_eq!(cache.stats().superseded, 1, "{change}");
        let fresh = over(second).build().unwrap();
        let there = tier(&fresh).await.map(|(value, _)| value);
        assert_eq!(there, expected.map(|(value, _)| value), "{change}");
    }
}

#[tokio::test]
async fn a_load_after_an_invalidation_does_not_join_one_before_it() {
    let cache = local().build().unwrap();
    let (loading, gate) = old(&cache, EntryOptions::new());
    until(|| cache.stats().loads == 1).await;
    cache.invalidate(&1).await.unwrap();
    assert_eq!(load(&cache, "new").await, "new");
    gate.add_permits(1);
    assert_eq!(loading.await.unwrap(), "old");
    assert_eq!(load(&cache, "other").await, "new");
}

#[tokio::test]
async fn a_change_elsewhere_does_not_keep_a_load_from_storing() {
    let cache = local().build().unwrap();
    let (loading, gate) = old(&cache, EntryOptions::new().tag("t"));
    until(|| cache.stats().loads == 1).await;
    cache.invalidate_tag("another").await.unwrap();
    gate.add_permits(1);
    loading.await.unwrap();
    assert_eq!(load(&cache, "new").await, "old");
}

#[tokio::test]
async fn a_promotion_begun_before_an_invalidation_stores_nothing_after_it() {
    let second = MapTier::default();
    let writer = over(second.clone()).build().unwrap();
    drop(writer.insert(1, "old".to_owned()).await.unwrap());
    let cache = over(second.clone()).build().unwrap();
    let hold = Arc::new(Semaphore::new(0));
    second.with(|state| (state.gets, state.hold) = (0, Some(Arc::clone(&hold))));
    let reading = {
        let cache = cache.clone();
        tokio::spawn(async move { tier(&cache).await })
    };
    until(|| second.with(|state| state.gets) == 1).await;
    cache.invalidate(&1).await.unwrap();
    hold.add_permits(10);
    assert_eq!(
        reading.await.unwrap(),
        Some(("old".to_owned(), Tier::Second))
    );
    assert_eq!(cache.get_local(&1), None);
    assert_eq!(tier(&cache).await, None);
}

#[tokio::test]
async fn a_hit_in_the_second_tier_is_promoted_for_what_is_left_of_its_life() {
    let second = MapTier::default();
    let clock = ManualClock::new();
    let writer = over(second.clone()).ttl(100 * SECOND).build().unwrap();
    drop(writer.insert(1, "one".to_owned()).await.unwrap());
    let reader = || over(second.clone()).ttl(100 * SECOND).clock(clock.clone());
    let (cache, short) = (
        reader().build().unwrap(),
        reader().local_ttl(SECOND).build().unwrap(),
    );
    second.with(|state| {
        state
            .map
            .values_mut()
            .for_each(|s| s.remaining = Some(3 * SECOND));
    });
    assert_eq!(tier(&cache).await, Some(("one".to_owned(), Tier::Second)));
    assert_eq!(tier(&short).await, Some(("one".to_owned(), Tier::Second)));
    assert_eq!(tier(&cache).await, Some(("one".to_owned(), Tier::Memory)));
    clock.advance(SECOND);
    assert_eq!(
        (cache.get_local(&1).is_some(), short.get_local(&1)),
        (true, None)
    );
    clock.advance(2 * SECOND);
    assert_eq!(cache.get_local(&1), None);
}

#[tokio::test]
async fn a_life_of_zero_stores_nothing_in_any_tier_and_removes_the_old() {
    let second = MapTier::default();
    let cache = over(second.clone()).build().unwrap();
    drop(cache.insert(1, "old".to_owned()).await.unwrap());
    let zero = || EntryOptions::new().ttl(Duration::ZERO);
    let written = cache
        .insert_with(1, "new".to_owned(), zero())
        .await
        .unwrap();
    assert!(!written.memory && matches!(written.second_tier, SecondTierWrite::Done));
    assert_eq!(tier(&cache).await, None);
    let loaded = cache.load_with(&1, zero(), || async { Ok::<_, ()>("new".to_owned()) });
    assert_eq!(loaded.await.unwrap().as_str(), "new");
    assert!(cache.drain(LONG).await.is_complete());
    assert_eq!(tier(&cache).await, None);
}

#[tokio::test]
async fn entries_that_live_for_ever_do() {
    let (second, clock) = (MapTier::default(), ManualClock::new());
    let build = || {
        over(second.clone())
            .ttl(Ttl::Forever)
            .stale_for(SECOND)
            .clock(clock.clone())
    };
    drop(
        build()
            .build()
            .unwrap()
            .insert(1, "one".to_owned())
            .await
            .unwrap(),
    );
    let cache = build().build().unwrap();
    assert_eq!(tier(&cache).await, Some(("one".to_owned(), Tier::Second)));
    clock.advance(Duration::MAX);
    assert_eq!(tier(&cache).await, Some(("one".to_owned(), Tier::Memory)));
}

#[tokio::test]
async fn jitter_shortens_lives_by_no_more_than_its_part() {
    let second = MapTier::default();
    let cache = over(second.clone())
        .ttl(100 * SECOND)
        .jitter(0.5)
        .seed(1)
        .build()
        .unwrap();
    for key in 0..50 {
        drop(cache.insert(key, String::new()).await.unwrap());
    }
    let lives: Vec<_> =
        second.with(|state| state.map.values().map(|s| s.remaining.unwrap()).collect());
    assert!(
        lives
            .iter()
            .all(|life| (50 * SECOND..=100 * SECOND).contains(life))
    );
    assert!(
        lives
            .iter()
            .max()
            .unwrap()
            .saturating_sub(*lives.iter().min().unwrap())
            > 20 * SECOND
    );
}

#[tokio::test]
async fn a_stale_value_stands_in_for_a_failed_load_and_not_after_an_invalidation() {
    let clock = ManualClock::new();
    let second = MapTier::default();
    let build = || {
        over(second.clone())
            .ttl(SECOND)
            .stale_for(10 * SECOND)
            .clock(clock.clone())
    };
    let cache = build().build().unwrap();
    drop(cache.insert(1, "old".to_owned()).await.unwrap());
    assert_eq!(
        second.with(|s| s.map.values().next().unwrap().remaining),
        Some(11 * SECOND)
    );
    clock.advance(5 * SECOND);
    second.with(|state| {
        state
            .map
            .values_mut()
            .for_each(|s| s.remaining = Some(6 * SECOND));
    });
    assert_eq!(tier(&cache).await, None, "a get gives nothing stale");
    let fails = || async { Err::<String, _>("no") };
    let panics = || async { panic!("no") };
    let other = build().build().unwrap();
    for cache in [&cache, &other] {
        assert_eq!(cache.load(&1, fails).await.unwrap().as_str(), "old");
        let panicked: Result<_, LoadError<()>> = cache.load(&1, panics).await;
        assert_eq!(panicked.unwrap().as_str(), "old");
        assert_eq!(cache.stats().stale, 2);
    }
    cache.invalidate(&1).await.unwrap();
    assert!(matches!(
        cache.load(&1, fails).await,
        Err(LoadError::Load(_))
    ));
    clock.advance(6 * SECOND);
    let gone: Result<_, LoadError<&str>> = local().build().unwrap().load(&1, fails).await;
    assert!(gone.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_second_tier_that_is_away_is_no_miss_and_nothing_hangs() {
    for mode in [Mode::Down, Mode::Hangs] {
        let second = MapTier::default();
        let limit = Duration::from_millis(100);
        let cache = over(second.clone())
            .second_tier_timeout(limit)
            .build()
            .unwrap();
        second.set_mode(mode);
        let start = tokio::time::Instant::now();
        assert!(matches!(
            cache.get(&1).await,
            Err(CacheError::Unavailable(_))
        ));
        assert_eq!(load(&cache, "one").await, "one");
        assert!(start.elapsed() < 3 * limit, "{mode:?}");
        assert_eq!(load(&cache, "two").await, "one", "it is in memory");
        assert_eq!(cache.health(), Health::Degraded);
        let written = cache.insert(1, "three".to_owned()).await.unwrap();
        assert!(written.memory);
        assert!(matches!(written.second_tier, SecondTierWrite::Failed(_)));
        assert_eq!(load(&cache, "four").await, "three");
        let error = cache.invalidate(&1).await.unwrap_err();
        assert!(matches!(error, InvalidateError::NotPropagated { .. }));
        assert_eq!(cache.get_local(&1), None, "in memory it is done");
        assert!(cache.invalidate_tag("t").await.is_err() && cache.clear().await.is_err());
        let stats = cache.stats();
        assert_eq!((stats.second_unavailable, stats.second_misses), (2, 0));
        assert!(
            start.elapsed() < 10 * limit,
            "{mode:?}: {:?}",
            start.elapsed()
        );
        second.set_mode(Mode::Up);
        assert_eq!(tier(&cache).await, None);
        assert_eq!(cache.health(), Health::Healthy);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_miss() {
    let second = MapTier::default();
    let cache = over(second.clone()).build().unwrap();
    drop(cache.insert(1, "one".to_owned()).await.unwrap());
    let fresh = || over(second.clone()).build().unwrap();
    assert!(tier(&fresh()).await.is_some());
    let newer = local()
        .second_tier(second.clone())
        .codec(text(2))
        .build()
        .unwrap();
    assert_eq!(tier(&newer).await, None, "another schema");
    assert_eq!(newer.stats().second_unreadable, 1);
    assert_eq!(load(&newer, "two").await, "two");
    second.with(|state| state.map.values_mut().for_each(|s| s.bytes.truncate(5)));
    let garbled = fresh();
    assert_eq!(tier(&garbled).await, None);
    let stats = garbled.stats();
    assert_eq!((stats.second_unreadable, stats.second_misses), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_written_is_reported_and_the_old_is_removed() {
    let second = MapTier::default();
    let cache = over(second.clone()).max_value_bytes(20).build().unwrap();
    for bad in ["unspeakable".to_owned(), "x".repeat(21)] {
        drop(cache.insert(1, "old".to_owned()).await.unwrap());
        let written = cache.insert(1, bad).await.unwrap();
        let SecondTierWrite::Failed(error) = written.second_tier else {
            panic!("{written:?}");
        };
        let expected = matches!(
            error,
            TierError::Encode(_) | TierError::TooLarge { len: 21, max: 20 }
        );
        assert!(written.memory && expected, "{error:?}");
        assert!(second.with(|state| state.map.is_empty()));
    }
}

#[tokio::test]
async fn tags_and_clears_reach_the_second_tier() {
    let second = MapTier::default();
    let build = || over(second.clone()).build().unwrap();
    let cache = build();
    let tagged = EntryOptions::new().tag("t").tag("u");
    drop(
        cache
            .insert_with(1, "one".to_owned(), tagged.clone())
            .await
            .unwrap(),
    );
    assert!(tier(&build()).await.is_some());
    build().invalidate_tag("another").await.unwrap();
    assert!(tier(&build()).await.is_some());
    build().invalidate_tag("u").await.unwrap();
    let other = build();
    assert_eq!(tier(&other).await, None);
    assert_eq!(other.stats().second_invalidated, 1);
    assert_eq!(
        tier(&cache).await.unwrap().1,
        Tier::Memory,
        "until its end there"
    );
    drop(
        cache
            .insert_with(1, "two".to_owned(), tagged.clone())
            .await
            .unwrap(),
    );
    let reader = build();
    assert!(tier(&reader).await.is_some());
    reader.invalidate_tag("t").await.unwrap();
    assert_eq!(reader.get_local(&1), None, "a promoted entry has its tags");
    drop(
        cache
            .insert_with(1, "three".to_owned(), tagged)
            .await
            .unwrap(),
    );
    build().clear().await.unwrap();
    assert_eq!(tier(&build()).await, None);
    second.with(|state| state.tags.clear());
    assert_eq!(tier(&build()).await, None, "lost versions are a miss");
}

#[tokio::test]
async fn many_keys_come_in_their_order() {
    let second = MapTier::default();
    drop(
        over(second.clone())
            .build()
            .unwrap()
            .insert(1, "one".to_owned())
            .await
            .unwrap(),
    );
    let cache = over(second.clone()).build().unwrap();
    drop(cache.insert(2, "two".to_owned()).await.unwrap());
    let tiers = |results: Vec<Result<Option<Hit<String>>, _>>| -> Vec<Option<Tier>> {
        let tiers = results
            .into_iter()
            .map(|result: Result<_, CacheError>| result.unwrap().map(|hit: Hit<String>| hit.tier));
        tiers.collect()
    };
    let found = tiers(cache.get_many(&[1, 2, 3]).await);
    assert_eq!(found, [Some(Tier::Second), Some(Tier::Memory), None]);
    second.set_mode(Mode::Down);
    let found = cache.get_many(&[2, 3]).await;
    assert!(found[0].as_ref().is_ok_and(Option::is_some) && found[1].is_err());
}

#[tokio::test]
async fn a_request_sees_its_own_changes_and_no_others() {
    let second = MapTier::default();
    let cache = over(second.clone()).build().unwrap();
    let request = cache.request_scope();
    drop(request.insert(1, "mine".to_owned()).await.unwrap());
    drop(cache.insert(1, "theirs".to_owned()).await.unwrap());
    let hit = request.get(&1).await.unwrap().unwrap();
    assert_eq!((hit.value.as_str(), hit.tier), ("mine", Tier::Request));
    second.set_mode(Mode::Down);
    assert!(request.invalidate(&1).await.is_err());
    assert_eq!(
        request.get(&1).await.unwrap(),
        None,
        "even if it is not propagated"
    );
    let load = || async { Ok::<_, ()>("loaded".to_owned()) };
    assert_eq!(request.load(&1, load).await.unwrap().as_str(), "loaded");
    assert_eq!(request.get(&1).await.unwrap().unwrap().tier, Tier::Request);
    assert_eq!(
        cache.request_scope().get(&1).await.unwrap().unwrap().tier,
        Tier::Memory
    );
}

#[tokio::test]
async fn a_closed_cache_refuses_lookups_and_still_invalidates() {
    let cache = local().build().unwrap();
    drop(cache.insert(1, "one".to_owned()).await.unwrap());
    cache.close();
    assert!(matches!(cache.get(&1).await, Err(CacheError::Closed)));
    assert_eq!(cache.health(), Health::Unhealthy);
    cache.invalidate(&1).await.unwrap();
    assert_eq!(cache.get_local(&1), None);
}

#[test]
fn bad_settings_are_refused() {
    let field = |builder: overdrive_tiered_cache::TieredCacheBuilder<u64, String>| {
        builder.build().unwrap_err().field()
    };
    assert_eq!(field(TieredCache::builder()), "max_entries");
    assert_eq!(field(local().ttl(Duration::ZERO)), "ttl");
    assert_eq!(
        field(local().ttl(SECOND).local_ttl(2 * SECOND)),
        "local_ttl"
    );
    assert_eq!(field(local().jitter(1.5)), "jitter");
    assert_eq!(field(local().jitter(f64::NAN)), "jitter");
    assert_eq!(field(local().second_tier(MapTier::default())), "codec");
    assert_eq!(field(local().codec(text(1))), "second_tier");
    assert_eq!(
        field(local().second_tier_timeout(Duration::ZERO)),
        "second_tier_timeout"
    );
    assert_eq!(field(local().max_value_bytes(0)), "max_value_bytes");
}

#[test]
fn types_can_cross_threads_and_be_shown() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<TieredCache<u64, String>>();
    check::<RequestScope<u64, String>>();
    check::<TieredCacheStats>();
    check::<LoadError<String>>();
}
