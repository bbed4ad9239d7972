//! What the memory tier does.

use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_tiered_cache::{Cache, ConfigError, EntryOptions, MAX_MAX_ENTRIES, Rejected, Ttl};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_one_that_was_not_used_goes_first() {
    let cache = Cache::builder().max_entries(2).build().unwrap();
    cache.insert(1, "one").unwrap();
    cache.insert(2, "two").unwrap();
    assert_eq!(cache.get(&1), Some("one"));
    cache.insert(3, "three").unwrap();
    assert_eq!(
        [1, 2, 3].map(|key| cache.contains_key(&key)),
        [true, false, true]
    );
    assert_eq!((cache.len(), cache.stats().evicted), (2, 1));
}

#[test]
fn an_expired_value_is_never_returned() {
    let clock = ManualClock::new();
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let cache = builder.ttl(5 * SECOND).build().unwrap();
    cache.insert("own", 1).unwrap();
    let short = EntryOptions::new().ttl(SECOND);
    cache.insert_with("short", 2, short).unwrap();
    let forever = EntryOptions::new().ttl(Ttl::Forever);
    cache.insert_with("forever", 3, forever).unwrap();
    clock.advance(SECOND);
    assert_eq!((cache.get("own"), cache.get("short")), (Some(1), None));
    clock.advance(4 * SECOND);
    assert_eq!((cache.get("own"), cache.remove("own")), (None, None));
    assert_eq!(cache.get("forever"), Some(3));
}

#[test]
fn a_per_entry_life_works_in_a_cache_without_one() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_entries(10)
        .clock(clock.clone())
        .build()
        .unwrap();
    clock.advance(SECOND);
    cache
        .insert_with(1, 1, EntryOptions::new().ttl(SECOND))
        .unwrap();
    clock.advance(SECOND / 2);
    assert_eq!(cache.get(&1), Some(1));
    clock.advance(SECOND / 2);
    assert_eq!(cache.get(&1), None);
}

#[test]
fn idle_entries_end_and_used_ones_stay() {
    let clock = ManualClock::new();
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let cache = builder.idle_timeout(2 * SECOND).build().unwrap();
    cache.insert(1, 1).unwrap();
    cache.insert(2, 2).unwrap();
    for _ in 0..3 {
        clock.advance(SECOND);
        assert_eq!(cache.get(&1), Some(1));
    }
    assert_eq!((cache.get(&2), cache.purge_expired()), (None, 0));
}

#[test]
fn a_life_of_zero_stores_nothing_and_removes_the_old() {
    let cache = Cache::builder().max_entries(10).build().unwrap();
    cache.insert(1, "old").unwrap();
    let zero = EntryOptions::new().ttl(Duration::ZERO);
    assert_eq!(cache.insert_with(1, "new", zero).unwrap(), Some("old"));
    assert!(cache.is_empty());
}

#[test]
fn a_value_too_heavy_comes_back_and_the_old_one_is_gone() {
    let weigher = |_: &u8, value: &String| value.len() as u64;
    let cache = Cache::builder()
        .max_weight(3)
        .weigher(weigher)
        .build()
        .unwrap();
    cache.insert(1, "abc".to_owned()).unwrap();
    let error = cache.insert(1, "abcd".to_owned()).unwrap_err();
    assert!(matches!(
        error,
        Rejected::TooHeavy {
            weight: 4,
            max: 3,
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "the value weighs 4, more than the cache may (3)"
    );
    assert_eq!(error.into_inner(), (1, "abcd".to_owned()));
    assert_eq!(
        (cache.get(&1), cache.weight(), cache.stats().rejected),
        (None, 0, 1)
    );
    assert_eq!(cache.get_or_insert_with(1, || "abcde".to_owned()), "abcde");
    assert!(cache.is_empty());
}

#[test]
fn tags_remove_their_entries_and_no_others() {
    let cache = Cache::builder().max_entries(10).build().unwrap();
    let tagged = |tags: &[&str]| {
        let options = EntryOptions::new();
        tags.iter().fold(options, |options, &tag| options.tag(tag))
    };
    cache.insert_with(1, 1, tagged(&["a", "b"])).unwrap();
    cache.insert_with(2, 2, tagged(&["b", "b"])).unwrap();
    cache.insert_with(3, 3, tagged(&[])).unwrap();
    assert_eq!(cache.invalidate_tag("a"), 1);
    cache.insert(2, 22).unwrap();
    assert_eq!(cache.invalidate_tag("b"), 0, "the new value has no tag");
    assert_eq!((cache.get(&2), cache.get(&3)), (Some(22), Some(3)));
}

#[test]
fn bad_settings_are_refused() {
    let builder = || Cache::<u8, u8>::builder();
    let field = |error: Result<_, ConfigError>| error.map(|_: Cache<_, _>| ()).unwrap_err();
    let zero = Duration::ZERO;
    for (error, name) in [
        (field(builder().build()), "max_entries"),
        (field(builder().max_entries(0).build()), "max_entries"),
        (
            field(builder().max_entries(MAX_MAX_ENTRIES + 1).build()),
            "max_entries",
        ),
        (
            field(builder().max_entries(1).max_weight(1).build()),
            "max_entries",
        ),
        (field(builder().max_weight(1).build()), "weigher"),
        (
            field(builder().max_weight(0).weigher(|_, _| 1).build()),
            "max_weight",
        ),
        (
            field(builder().max_entries(1).weigher(|_, _| 1).build()),
            "weigher",
        ),
        (field(builder().max_entries(1).ttl(zero).build()), "ttl"),
        (
            field(builder().max_entries(1).idle_timeout(Duration::MAX).build()),
            "idle_timeout",
        ),
    ] {
        assert_eq!(error.field(), name, "{error}");
    }
}

#[test]
fn types_can_cross_threads_and_be_shown() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<Cache<String, Vec<u8>>>();
    check::<Rejected<String, Vec<u8>>>();
}
