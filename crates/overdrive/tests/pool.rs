//! The re-export of the pool crate works from outside.

use overdrive::pool::{ConfigError, Keep, OwnedPooled, Pool, PoolStats, Pooled, StaticPool};

static WORDS: StaticPool<String> = StaticPool::new("words", String::new, |word| {
    word.clear();
    Keep::Yes
});

#[test]
fn a_pool_through_the_facade() -> Result<(), ConfigError> {
    let pool: Pool<Vec<u8>> = Pool::builder().factory(Vec::new).build()?;
    let borrowed: Pooled<'_, Vec<u8>> = pool.get();
    let owned: OwnedPooled<Vec<u8>> = pool.get_owned();
    drop((borrowed, owned));
    let stats: PoolStats = pool.stats();
    assert_eq!(stats.idle(), 2);
    WORDS.get().push('x');
    assert!(WORDS.get().is_empty());
    Ok(())
}
