//! The store of a fixed size under limiters of the crate `governor`, beside their own.
#![cfg(feature = "governor")]

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{BoundedStore, Quota, RateLimiter};
use proptest::prelude::*;

type On<S> = governor::RateLimiter<u64, S, FakeRelativeClock, NoOpMiddleware<Nanos>>;
type Bounded = On<BoundedStore<u64>>;
type Own = On<HashMapStateStore<u64>>;

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn bounded(quota: governor::Quota, capacity: usize) -> (Bounded, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    let store = BoundedStore::new(capacity).unwrap();
    (Bounded::new(quota, store, clock.clone()), clock)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_limiter_on_the_bounded_store_answers_as_on_its_own(
        interval in 1..2_000_u64,
        burst in 1..8_u32,
        asks in proptest::collection::vec((0..30_u64, 1..9_u32, 0..900_u64), 0..300),
    ) {
        let quota = governor::Quota::with_period(Duration::from_nanos(interval)).unwrap();
        let quota = quota.allow_burst(number(burst));
        let (limiter, clock) = bounded(quota, 200);
        let own = Own::new(quota, HashMapStateStore::default(), clock.clone());
        let ours_clock = ManualClock::new();
        let ours = Quota::try_from(quota).unwrap();
        let ours = overdrive_ratelimit::KeyedLimiter::<u64>::builder().quota(ours).capacity(200);
        let ours = ours.clock(ours_clock.clone()).build().unwrap();
        for (key, n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            ours_clock.advance(Duration::from_nanos(by));
            let expected = own.check_key_n(&key, number(n));
            let allowed = matches!(expected, Ok(Ok(())));
            prop_assert_eq!(limiter.check_key_n(&key, number(n)), expected);
            prop_assert_eq!(ours.check_n(&key, n.into()).is_ok(), allowed);
        }
    }
}

#[test]
fn a_flood_uses_the_places_of_idle_keys_again_and_frees_no_limited_one() {
    let quota = governor::Quota::per_second(number(1));
    let (limiter, clock) = bounded(quota, 1_000);
    for key in 0..200_000_u64 {
        assert!(limiter.check_key(&key).is_ok());
        assert!(limiter.check_key(&key).is_err());
        clock.advance(Duration::from_micros(1_500));
    }
    assert!(!limiter.is_empty());
    clock.advance(Duration::from_secs(2));
    limiter.retain_recent();
    assert!(limiter.is_empty());
    assert_eq!(limiter.into_state_store().overflowed(), 0);
}

#[test]
fn keys_without_room_share_one_state() {
    let quota = governor::Quota::per_hour(number(100));
    let (limiter, _clock) = bounded(quota, 10);
    let allowed = (0..10_000_u64).filter(|key| limiter.check_key(key).is_ok());
    let allowed = allowed.count();
    let slots = 10_000 - limiter.into_state_store().overflowed() as usize;
    assert_eq!(allowed, slots + 100);
}

#[test]
fn many_threads_share_the_bounded_store() {
    let (limiter, _clock) = bounded(governor::Quota::per_hour(number(1_000)), 100);
    let allowed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let got = (0..10_000_u64).filter(|n| limiter.check_key(&(n % 5)).is_ok());
                allowed.fetch_add(got.count(), std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    assert_eq!(allowed.into_inner(), 5_000);
}

#[test]
fn quotas_are_the_same_in_our_words() {
    let quota = governor::Quota::per_minute(number(6)).allow_burst(number(40));
    let ours = Quota::try_from(quota).unwrap();
    assert_eq!(ours, Quota::per(1, Duration::from_secs(10)).burst(40));
    assert!(RateLimiter::builder().quota(ours).build().is_ok());
    let fast = governor::Quota::per_second(number(u32::MAX));
    let nano = Duration::from_nanos(1);
    assert_eq!(Quota::try_from(fast).unwrap().period, nano);
    let year = Duration::from_secs(400 * 24 * 3600);
    let slow = governor::Quota::with_period(year).unwrap();
    assert_eq!(Quota::try_from(slow).unwrap_err().field(), "period");
    assert!(BoundedStore::<u64>::new(0).is_err());
}
