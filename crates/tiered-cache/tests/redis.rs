//! Over a real Redis.

mod support;

use std::time::Duration;

use overdrive_testkit::{Proxy, RedisServer};
use overdrive_tiered_cache::{
    CacheError, EntryOptions, InvalidateError, RedisSettings, RedisTier, Remote, SecondTierWrite,
    Tier, TieredCacheBuilder,
};
use tokio::time::timeout;

use support::{Texts, over};

/// No test waits that long, unless it hangs.
const LONG: Duration = Duration::from_secs(30);

fn tier_at(url: String, namespace: &str) -> RedisTier {
    let mut settings = RedisSettings::web();
    settings.url = url;
    settings.retries = 0;
    settings.breaker_open_for = Duration::from_millis(1);
    RedisTier::new(Remote::lazy(settings).unwrap(), namespace).unwrap()
}

fn builder(url: String) -> TieredCacheBuilder<u64, String> {
    over(tier_at(url, "test")).second_tier_timeout(Duration::from_secs(10))
}

/// Gives up soon.
fn hasty(url: String) -> Texts {
    let builder = over(tier_at(url, "test"));
    builder
        .second_tier_timeout(Duration::from_millis(100))
        .build()
        .unwrap()
}

async fn seen(cache: &Texts, key: u64) -> Option<(String, Tier)> {
    let hit = cache.get(&key).await.unwrap();
    hit.map(|hit| (hit.value.to_string(), hit.tier))
}

#[tokio::test]
async fn two_processes_share_values_tags_and_clears() {
    let server = RedisServer::start().unwrap();
    let build = || builder(server.url()).build().unwrap();
    let (one, two) = (build(), build());
    let tagged = || EntryOptions::new().tag("users");
    let written = one
        .insert_with(1, "ada".to_owned(), tagged())
        .await
        .unwrap();
    assert!(
        matches!(written.second_tier, SecondTierWrite::Done),
        "{written:?}"
    );
    assert_eq!(seen(&two, 1).await, Some(("ada".to_owned(), Tier::Second)));
    assert_eq!(seen(&two, 1).await, Some(("ada".to_owned(), Tier::Memory)));
    one.invalidate_tag("users").await.unwrap();
    assert_eq!(seen(&build(), 1).await, None);
    let loaded = two.invalidate(&1).await;
    loaded.unwrap();
    let load = || async { Ok::<_, ()>("bob".to_owned()) };
    two.load_with(&1, tagged(), load).await.unwrap();
    assert!(two.drain(LONG).await.is_complete());
    assert_eq!(
        seen(&build(), 1).await,
        Some(("bob".to_owned(), Tier::Second))
    );
    two.invalidate(&1).await.unwrap();
    assert_eq!(seen(&build(), 1).await, None);
    drop(one.insert(2, "eve".to_owned()).await.unwrap());
    two.clear().await.unwrap();
    assert_eq!(seen(&build(), 2).await, None);
    let other = over(tier_at(server.url(), "another")).build().unwrap();
    drop(one.insert(2, "eve".to_owned()).await.unwrap());
    assert_eq!(seen(&other, 2).await, None, "a namespace of its own");
}

#[tokio::test]
async fn the_life_of_an_entry_is_the_servers_too() {
    let server = RedisServer::start().unwrap();
    let build = || builder(server.url()).ttl(Duration::from_secs(100));
    let build = || build().stale_for(Duration::from_secs(50));
    let cache = build().build().unwrap();
    drop(cache.insert(1, "one".to_owned()).await.unwrap());
    let key = "nextevent:v2:test:k:1";
    let left = server.command(&["PTTL", key]).unwrap();
    let overdrive_testkit::Reply::Integer(left) = left else {
        panic!("{left:?}");
    };
    assert!((100_000..=150_000).contains(&left), "{left}");
    server.command(&["PEXPIRE", key, "49000"]).unwrap();
    let reader = build().build().unwrap();
    assert_eq!(seen(&reader, 1).await, None, "stale");
    let fails = || async { Err::<String, ()>(()) };
    assert_eq!(reader.load(&1, fails).await.unwrap().as_str(), "one");
}

#[tokio::test]
async fn what_others_put_there_is_a_miss() {
    let server = RedisServer::start().unwrap();
    let cache = builder(server.url()).build().unwrap();
    server
        .command(&["SET", "nextevent:v2:test:k:1", "garbage"])
        .unwrap();
    server
        .command(&["SET", "nextevent:v2:test:t:all", "garbage"])
        .unwrap();
    assert_eq!(seen(&cache, 1).await, None);
    assert_eq!(cache.stats().second_unreadable, 1);
    server
        .command(&["LPUSH", "nextevent:v2:test:k:2", "list"])
        .unwrap();
    assert!(matches!(
        cache.get(&2).await,
        Err(CacheError::Unavailable(_))
    ));
}

#[tokio::test]
async fn evicted_tags_and_a_restarted_server_are_misses() {
    let mut server = RedisServer::start().unwrap();
    let build = || builder(server.url()).build().unwrap();
    let cache = build();
    let tagged = EntryOptions::new().tag("t");
    drop(
        cache
            .insert_with(1, "one".to_owned(), tagged)
            .await
            .unwrap(),
    );
    server
        .command(&["DEL", "nextevent:v2:test:t:tag%3At"])
        .unwrap();
    assert_eq!(seen(&build(), 1).await, None);
    let fresh = build();
    server.restart().unwrap();
    assert_eq!(timeout(LONG, seen(&fresh, 1)).await.unwrap(), None);
    assert!(seen(&cache, 1).await.is_some(), "memory has it");
}

async fn works_without_it(cache: &Texts, key: u64) {
    let work = async {
        assert_eq!(seen(cache, 1).await.unwrap().1, Tier::Memory);
        assert!(matches!(
            cache.get(&key).await,
            Err(CacheError::Unavailable(_))
        ));
        let load = || async { Ok::<_, ()>("loaded".to_owned()) };
        assert_eq!(cache.load(&key, load).await.unwrap().as_str(), "loaded");
        let written = cache.insert(key, "new".to_owned()).await.unwrap();
        assert!(written.memory && matches!(written.second_tier, SecondTierWrite::Failed(_)));
        let error = cache.invalidate(&key).await.unwrap_err();
        assert!(matches!(error, InvalidateError::NotPropagated { .. }));
        assert!(cache.invalidate_tag("t").await.is_err());
        assert!(cache.drain(LONG).await.is_complete());
    };
    timeout(LONG, work).await.expect("nothing hangs");
}

#[tokio::test]
async fn a_killed_or_paused_server_is_done_without() {
    let mut server = RedisServer::start().unwrap();
    let cache = hasty(server.url());
    // The first call dials, which may take longer than a hasty cache waits.
    while cache.get(&1).await.is_err() {}
    drop(cache.insert(1, "one".to_owned()).await.unwrap());
    server.pause().unwrap();
    works_without_it(&cache, 2).await;
    server.resume().unwrap();
    let back = async { while cache.get(&2).await.is_err() {} };
    timeout(LONG, back).await.expect("it comes back");
    server.kill();
    works_without_it(&cache, 3).await;
    server.restart().unwrap();
    let back = async { while cache.get(&3).await.is_err() {} };
    timeout(LONG, back).await.expect("it comes back");
}

#[tokio::test]
async fn a_cut_connection_is_done_without() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let cache = builder(format!("redis://{}", proxy.addr()))
        .build()
        .unwrap();
    drop(cache.insert(1, "one".to_owned()).await.unwrap());
    proxy.cut();
    works_without_it(&cache, 2).await;
    proxy.heal();
    let back = async { while cache.get(&2).await.is_err() {} };
    timeout(LONG, back).await.expect("it comes back");
}
