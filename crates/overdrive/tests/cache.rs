//! The re-export of the cache crate works from outside.

use std::time::Duration;

use overdrive::cache::{
    Cache, CacheSettings, CacheStats, Cause, ConfigError, EntryOptions, Lookup, Rejected, Reserve,
    Ttl,
};

#[test]
fn a_cache_through_the_facade() -> Result<(), ConfigError> {
    let cache: Cache<String, u32> = Cache::builder().settings(CacheSettings::web()).build()?;
    let stored: Result<Option<u32>, Rejected<String, u32>> = cache.insert("a".to_owned(), 1);
    assert!(matches!(stored, Ok(None)));
    let options = EntryOptions::new().ttl(Ttl::After(Duration::ZERO));
    assert!(matches!(
        cache.insert_with("a".to_owned(), 2, options),
        Ok(Some(1))
    ));
    assert_eq!(cache.get_or_insert_with("a".to_owned(), || 3), 3);
    let stats: CacheStats = cache.stats();
    assert_eq!(stats.entries, 1);
    assert_eq!(cache.lookup("a"), Lookup::Fresh(3));
    assert!(matches!(cache.reserve("b".to_owned()), Reserve::Vacant(_)));
    assert_ne!(Cause::Evicted, Cause::Expired);
    Ok(())
}
