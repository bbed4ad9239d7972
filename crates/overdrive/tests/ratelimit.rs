//! The re-export of the rate limit crate works from outside.

use overdrive::ratelimit::{
    ConcurrencyLimit, ConfigError, Denied, KeyedLimiter, Permit, Quota, RateLimiter,
};

#[test]
fn limits_through_the_facade() -> Result<(), ConfigError> {
    let quota = Quota::per_hour(1);
    let limiter = RateLimiter::builder().quota(quota).build()?;
    assert_eq!(limiter.check(), Ok(()));
    let denied: Result<(), Denied> = limiter.check();
    assert!(denied.is_err());
    let keyed: KeyedLimiter<String> = KeyedLimiter::<String>::builder().quota(quota).build()?;
    assert_eq!(keyed.check("somebody"), Ok(()));
    let limit = ConcurrencyLimit::builder().limit(1).build()?;
    let permit: Result<Permit<'_>, _> = limit.try_acquire();
    assert!(permit.is_ok() && limit.try_acquire().is_err());
    Ok(())
}
