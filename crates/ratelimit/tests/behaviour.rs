//! What limiters promise, on a clock that is moved by hand.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{
    AcquireError, CheckError, ConcurrencyLimit, ConfigError, Deadline, ExactKeyedLimiter, OnFull,
    Quota, RateLimiter, TryAcquireError, WaitError,
};
use overdrive_testkit::CountingWaker;

fn limiter(quota: Quota) -> (RateLimiter<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder()
        .quota(quota)
        .clock(clock.clone())
        .build();
    (limiter.unwrap(), clock)
}

#[test]
fn a_burst_is_there_at_once_and_then_the_rate() {
    let (limiter, clock) = limiter(Quota::per_second(10).burst(100));
    let allowed = |n: usize| (0..n).filter(|_| limiter.check().is_ok()).count();
    assert_eq!(allowed(1000), 100);
    clock.advance(Duration::from_secs(1));
    assert_eq!(allowed(1000), 10);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(allowed(1000), 100);
}

#[test]
fn a_denial_says_exactly_when_to_come_back() {
    let (limiter, clock) = limiter(Quota::per_minute(7).burst(2));
    assert_eq!(limiter.check_n(2), Ok(()));
    let denied = limiter.check().unwrap_err();
    clock.advance(denied.retry_after - Duration::from_nanos(1));
    assert!(limiter.check().is_err());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(limiter.check(), Ok(()));
}

#[test]
fn more_than_the_burst_is_never_allowed_and_nothing_is_taken() {
    let (limiter, clock) = limiter(Quota::per_second(5));
    clock.advance(Duration::from_secs(3600));
    let refused = limiter.check_n(6).unwrap_err();
    assert_eq!(refused, CheckError::ExceedsBurst { asked: 6, burst: 5 });
    assert_eq!(refused.retry_after(), None);
    assert_eq!(limiter.check_n(u64::MAX).unwrap_err().retry_after(), None);
    assert_eq!(limiter.check_n(5), Ok(()));
}

#[test]
fn nothing_is_always_allowed() {
    let (limiter, _) = limiter(Quota::per_hour(1));
    assert_eq!(limiter.check_n(1), Ok(()));
    assert_eq!(limiter.check_n(0), Ok(()));
    assert_eq!(limiter.wait_n_blocking(0, Deadline::NEVER), Ok(()));
    assert_eq!(limiter.check_up_to(0), 0);
}

#[test]
fn a_flow_takes_what_is_there() {
    let (limiter, clock) = limiter(Quota::per_second(1000).burst(64));
    assert_eq!(limiter.check_up_to(50), 50);
    assert_eq!(limiter.check_up_to(50), 14);
    assert_eq!(limiter.check_up_to(50), 0);
    clock.advance(Duration::from_millis(3));
    assert_eq!(limiter.check_up_to(u64::MAX), 3);
    assert_eq!(limiter.stats().tokens, 67);
}

#[test]
fn a_snapshot_takes_nothing_and_a_check_agrees_with_it() {
    let (limiter, clock) = limiter(Quota::per_second(2).burst(3));
    for _ in 0..9 {
        assert_eq!(limiter.snapshot().remaining, 3);
    }
    assert_eq!(limiter.check_n(3), Ok(()));
    let seen = limiter.snapshot();
    assert_eq!((seen.limit, seen.remaining), (3, 0));
    assert_eq!(seen.retry_after, Duration::from_millis(500));
    assert_eq!(seen.reset_after, Duration::from_millis(1500));
    clock.advance(seen.reset_after);
    assert_eq!(limiter.snapshot().remaining, 3);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let field = |error: ConfigError| error.field();
    let quota = Quota::per_second(1);
    let of = |quota| {
        RateLimiter::builder()
            .quota(quota)
            .build()
            .map(drop)
            .map_err(field)
    };
    assert_eq!(of(Quota::per_second(0)), Err("tokens"));
    assert_eq!(of(quota.burst(0)), Err("burst"));
    assert_eq!(of(Quota::per(1, Duration::ZERO)), Err("period"));
    assert_eq!(of(Quota::per(1, Duration::MAX)), Err("period"));
    let keyed = |capacity| {
        ExactKeyedLimiter::<u8>::builder()
            .quota(quota)
            .capacity(capacity)
            .build()
    };
    assert_eq!(keyed(0).map(drop).map_err(field), Err("capacity"));
    assert_eq!(keyed(usize::MAX).map(drop).map_err(field), Err("capacity"));
    let permits = |limit| ConcurrencyLimit::builder().limit(limit).build().map(drop);
    assert_eq!(permits(0).map_err(field), Err("limit"));
    assert_eq!(permits(usize::MAX).map_err(field), Err("limit"));
}

#[test]
fn a_blocking_wait_that_would_be_late_fails_at_once() {
    let (limiter, clock) = limiter(Quota::per_hour(1));
    assert_eq!(limiter.check(), Ok(()));
    let refused = limiter.wait_timeout_blocking(Duration::from_secs(1));
    assert!(matches!(refused, Err(WaitError::DeadlineExceeded { .. })));
    let soon = Deadline::after_on(&clock, Duration::from_secs(1));
    let refused = limiter.wait_n_blocking(1, soon).unwrap_err();
    let needed = Duration::from_secs(3600);
    assert_eq!(refused, WaitError::DeadlineExceeded { needed });
    assert_eq!(limiter.stats().refused_waits, 2);
    let too_many = limiter.wait_n_blocking(2, Deadline::NEVER).unwrap_err();
    assert_eq!(too_many, WaitError::ExceedsBurst { asked: 2, burst: 1 });
}

#[test]
fn nobody_waits_where_nobody_may() {
    let limiter = RateLimiter::builder()
        .quota(Quota::per_hour(1))
        .max_waiters(0)
        .build();
    let limiter = limiter.unwrap();
    assert_eq!(limiter.wait_blocking(), Ok(()));
    let refused = limiter.wait_blocking().unwrap_err();
    assert_eq!(refused, WaitError::QueueFull { max_waiters: 0 });
}

#[test]
fn threads_that_wait_all_get_their_tokens() {
    let limiter = RateLimiter::builder()
        .quota(Quota::per_second(20_000).burst(1))
        .build();
    let limiter = limiter.unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| limiter.wait_blocking().unwrap()));
        }
    });
    let stats = limiter.stats();
    assert_eq!((stats.allowed, stats.waiting), (160, 0));
}

#[test]
fn each_key_has_its_own_quota() {
    let limiter = ExactKeyedLimiter::<String>::builder()
        .quota(Quota::per_hour(2))
        .build();
    let limiter = limiter.unwrap();
    assert_eq!(limiter.check_n("a", 2), Ok(()));
    assert!(limiter.check("a").is_err());
    assert_eq!(limiter.check("b"), Ok(()));
    assert_eq!(limiter.snapshot("b").remaining, 1);
    assert_eq!(limiter.snapshot("never seen").remaining, 2);
    assert!(limiter.reset("a"));
    assert!(!limiter.reset("a"));
    assert_eq!(limiter.check_n("a", 2), Ok(()));
}

fn keyed(
    on_full: OnFull,
) -> (
    ExactKeyedLimiter<u32, std::hash::RandomState, ManualClock>,
    ManualClock,
) {
    let clock = ManualClock::new();
    let builder = ExactKeyedLimiter::<u32>::builder()
        .quota(Quota::per_second(1))
        .capacity(4);
    let limiter = builder.on_full(on_full).clock(clock.clone()).build();
    (limiter.unwrap(), clock)
}

#[test]
fn a_flood_of_keys_never_frees_a_limited_one() {
    let (limiter, clock) = keyed(OnFull::ShareOverflow);
    for key in 0..4 {
        assert_eq!(limiter.check(&key), Ok(()));
    }
    // All room is taken by keys that owe something: the flood shares one token.
    let through = (100..1100).filter(|key| limiter.check(key).is_ok()).count();
    assert_eq!(through, 1);
    assert!((0..4).all(|key| limiter.check(&key).is_err()));
    let stats = limiter.stats();
    assert_eq!((stats.keys, stats.overflowed), (4, 1000));
    // Once they owe nothing they make room.
    clock.advance(Duration::from_secs(1));
    assert_eq!(limiter.check(&2000), Ok(()));
    assert!(limiter.stats().reclaimed > 0);
    assert!(limiter.stats().keys <= 4);
}

#[test]
fn keys_without_room_can_be_denied() {
    let (limiter, clock) = keyed(OnFull::Deny);
    for key in 0..4 {
        assert_eq!(limiter.check(&key), Ok(()));
    }
    let denied = limiter.check(&9).unwrap_err();
    clock.advance(denied.retry_after);
    assert_eq!(limiter.check(&9), Ok(()));
}

#[test]
fn room_that_was_made_by_hand_is_found_again() {
    let clock = ManualClock::new();
    let builder = ExactKeyedLimiter::<u32>::builder()
        .quota(Quota::per_hour(60))
        .capacity(2);
    let builder = builder.on_full(OnFull::Deny).clock(clock.clone());
    let limiter = builder.build().unwrap();
    assert_eq!(limiter.check_n(&1, 60), Ok(()));
    assert_eq!(limiter.check_n(&2, 60), Ok(()));
    // Nobody owes less than an hour.
    assert!(limiter.check(&3).is_err());
    assert!(limiter.reset(&2));
    assert_eq!(limiter.check(&3), Ok(()));
    // This one owes a minute, after which its room is free.
    let denied = limiter.check(&4).unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_secs(60));
    clock.advance(denied.retry_after);
    assert_eq!(limiter.check(&4), Ok(()));
}

#[test]
fn no_tokens_of_a_key_are_always_there_and_take_no_room() {
    let (limiter, _) = keyed(OnFull::Deny);
    for key in 0..9 {
        assert_eq!(limiter.check_n(&key, 0), Ok(()));
    }
    assert_eq!(limiter.stats().keys, 0);
    for key in 0..4 {
        assert_eq!(limiter.check(&key), Ok(()));
    }
    assert_eq!(limiter.check_n(&9, 0), Ok(()));
    assert_eq!(limiter.stats().overflowed, 0);
}

#[test]
fn absurd_queues_are_refused() {
    let field = |error: ConfigError| error.field();
    let limiter = RateLimiter::builder()
        .quota(Quota::per_second(1))
        .max_waiters(usize::MAX);
    assert_eq!(limiter.build().map(drop).map_err(field), Err("max_waiters"));
    let limit = ConcurrencyLimit::builder().limit(1).max_waiters(usize::MAX);
    assert_eq!(limit.build().map(drop).map_err(field), Err("max_waiters"));
}

#[test]
fn a_wait_for_a_permit_that_is_too_long_is_refused_and_not_given_up() {
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let _held = limit.try_acquire().unwrap();
    let late = limit.acquire_timeout_blocking(Duration::ZERO).unwrap_err();
    assert_eq!(late, AcquireError::TimedOut);
    let stats = limit.stats();
    assert_eq!(
        (stats.refused, stats.abandoned_waits, stats.waiting),
        (1, 0, 0)
    );
}

/// Panics instead of waking.
struct Refuses;

impl Wake for Refuses {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_waiting() {
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let held = limit.try_acquire().unwrap();
    let refuses = Waker::from(Arc::new(Refuses));
    let counting = CountingWaker::new();
    let mut refusing = Context::from_waker(&refuses);
    let mut first = Box::pin(limit.acquire());
    let mut second = Box::pin(limit.acquire());
    let mut third = Box::pin(limit.acquire());
    assert!(first.as_mut().poll(&mut refusing).is_pending());
    assert!(second.as_mut().poll(&mut refusing).is_pending());
    assert!(third.as_mut().poll(&mut counting.context()).is_pending());
    drop(held);
    assert!(first.as_mut().poll(&mut refusing).is_ready());
    limit.close();
    assert_eq!(counting.wakes(), 1);
    // Ready once.
    let again = AssertUnwindSafe(|| first.as_mut().poll(&mut refusing).is_ready());
    assert!(catch_unwind(again).is_err());
}

#[test]
fn permits_are_bounded_and_come_back() {
    let limit = ConcurrencyLimit::builder().limit(3).build().unwrap();
    let held: Vec<_> = (0..3).map(|_| limit.try_acquire().unwrap()).collect();
    assert_eq!(limit.try_acquire().unwrap_err(), TryAcquireError::Full);
    assert_eq!(limit.in_flight(), 3);
    let owned = held.into_iter().map(|permit| permit.into_owned());
    drop(owned.collect::<Vec<_>>());
    let stats = limit.stats();
    assert_eq!((stats.acquired, stats.released, stats.refused), (3, 3, 1));
    assert_eq!(limit.in_flight(), 0);
}

#[test]
fn a_blocked_thread_gets_the_permit_that_comes_back() {
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let permit = limit.try_acquire().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| limit.acquire_blocking().map(drop));
        while limit.stats().waiting == 0 {
            std::thread::yield_now();
        }
        drop(permit);
        assert_eq!(blocked.join().unwrap(), Ok(()));
    });
    assert_eq!(limit.stats().waited, 1);
}

#[test]
fn a_drain_ends_with_the_last_permit_and_says_what_is_out() {
    let limit = ConcurrencyLimit::builder().limit(2).build().unwrap();
    assert!(limit.drain_blocking(Deadline::NEVER).is_complete());
    let permits = [limit.try_acquire().unwrap(), limit.try_acquire().unwrap()];
    let report = limit.drain_blocking(Duration::ZERO);
    assert_eq!((report.finished, report.abandoned), (0, 2));
    std::thread::scope(|scope| {
        let drains = [(); 2].map(|()| scope.spawn(|| limit.drain_blocking(Deadline::NEVER)));
        drop(permits);
        for drain in drains {
            assert!(drain.join().unwrap().is_complete());
        }
    });
}

#[test]
fn what_is_required_is_asked_for() {
    let field =
        |error: ConfigError| matches!(error, ConfigError::Missing { .. }).then(|| error.field());
    let limiter = RateLimiter::builder().build().map(drop).map_err(field);
    assert_eq!(limiter, Err(Some("quota")));
    let keyed = ExactKeyedLimiter::<u8>::builder()
        .build()
        .map(drop)
        .map_err(field);
    assert_eq!(keyed, Err(Some("quota")));
    let limit = ConcurrencyLimit::builder().build().map(drop).map_err(field);
    assert_eq!(limit, Err(Some("limit")));
}

#[test]
fn the_parts_can_be_shared_and_sent() {
    fn check<T: Send + Sync>() {}
    check::<RateLimiter>();
    check::<ExactKeyedLimiter<String>>();
    check::<overdrive_ratelimit::KeyedLimiter<str>>();
    check::<overdrive_ratelimit::LeasedLimiter>();
    check::<overdrive_ratelimit::Reservation<'_>>();
    check::<overdrive_ratelimit::AdaptiveLimit>();
    check::<overdrive_ratelimit::AdaptivePermit>();
    check::<overdrive_ratelimit::All<(RateLimiter, overdrive_ratelimit::SlidingLog)>>();
    check::<overdrive_ratelimit::SlidingWindow>();
    check::<overdrive_ratelimit::TscClock>();
    check::<overdrive_ratelimit::LimitPolicy>();
    check::<ConcurrencyLimit>();
    check::<overdrive_ratelimit::OwnedPermit>();
    check::<overdrive_ratelimit::Permit<'_>>();
    check::<overdrive_ratelimit::Acquire<'_>>();
}

#[cfg(feature = "serde")]
#[test]
fn a_quota_survives_a_configuration_file() {
    let quota = Quota::per_minute(90).burst(7);
    let text = serde_json::to_string(&quota).unwrap();
    assert_eq!(serde_json::from_str::<Quota>(&text).unwrap(), quota);
}
