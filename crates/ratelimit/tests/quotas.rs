//! Tokens given back and reserved, quotas that change, and tokens that threads hold.

#[cfg(feature = "tokio")]
use std::{future::Future, pin::pin, task::Poll};

use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{Carry, Deadline, LeasedLimiter, Quota, RateLimiter, WaitError};
#[cfg(feature = "tokio")]
use overdrive_testkit::CountingWaker;

fn limiter(quota: Quota) -> (RateLimiter<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().quota(quota).clock(clock.clone());
    (builder.build().unwrap(), clock)
}

#[test]
fn a_bucket_and_its_refill_are_a_limiter() {
    let limiter = RateLimiter::new(100, 10).unwrap();
    assert_eq!(limiter.quota(), Quota::per_second(10).burst(100));
    assert_eq!(limiter.check_n(100), Ok(()));
    assert_eq!(RateLimiter::new(0, 10).unwrap_err().field(), "burst");
    assert_eq!(RateLimiter::new(100, 0).unwrap_err().field(), "tokens");
}

#[test]
fn what_is_given_back_can_be_taken_again_up_to_the_burst() {
    let (limiter, clock) = limiter(Quota::per_second(10).burst(20));
    limiter.check_n(20).unwrap();
    limiter.refund(5);
    assert_eq!(limiter.check_up_to(20), 5);
    clock.advance(Duration::from_secs(1));
    limiter.refund(1_000_000);
    assert_eq!(limiter.check_up_to(1_000), 20);
    limiter.refund(u64::MAX);
    assert_eq!(limiter.snapshot().remaining, 20);
    assert_eq!(limiter.stats().tokens, 45);
}

#[test]
fn a_look_ahead_takes_and_counts_nothing() {
    let (limiter, _) = limiter(Quota::per_second(10));
    for _ in 0..100 {
        assert_eq!(limiter.peek(10), Ok(()));
    }
    assert_eq!(limiter.peek(11).unwrap_err().retry_after(), None);
    limiter.check_n(10).unwrap();
    let after = limiter.peek(3).unwrap_err().retry_after();
    assert_eq!(after, Some(Duration::from_millis(300)));
    let stats = limiter.stats();
    assert_eq!((stats.allowed, stats.denied), (1, 0));
}

#[test]
fn reservations_come_one_after_the_other() {
    let (limiter, clock) = limiter(Quota::per_second(10).burst(1));
    let delay = |deadline: Deadline| limiter.reserve(1, deadline).map(|r| r.delay());
    assert_eq!(delay(Deadline::NEVER), Ok(Duration::ZERO));
    assert_eq!(delay(Deadline::NEVER), Ok(Duration::from_millis(100)));
    let soon = Deadline::after_on(&clock, Duration::from_millis(150));
    let needed = Duration::from_millis(200);
    assert_eq!(delay(soon), Err(WaitError::DeadlineExceeded { needed }));
    let third = limiter.reserve(1, Deadline::NEVER).unwrap();
    assert_eq!((third.tokens(), third.delay()), (1, needed));
    // Nothing is left for checks until all of them are earned.
    clock.advance(needed);
    assert!(limiter.check().is_err());
    third.cancel();
    assert_eq!(limiter.check(), Ok(()));
    let (asked, burst) = (2, 1);
    let refused = limiter.reserve(2, Deadline::NEVER).map(drop);
    assert_eq!(refused, Err(WaitError::ExceedsBurst { asked, burst }));
}

#[test]
fn a_quota_is_replaced_and_what_is_there_is_carried_over() {
    for (carry, remaining) in [
        (Carry::Keep, 40),
        (Carry::Proportional, 80),
        (Carry::Reset, 200),
    ] {
        let (limiter, clock) = limiter(Quota::per_second(10).burst(100));
        limiter.check_n(60).unwrap();
        let next = Quota::per_second(50).burst(200);
        limiter.set_quota(next, carry).unwrap();
        assert_eq!(limiter.snapshot().remaining, remaining, "{carry:?}");
        assert_eq!((limiter.quota(), limiter.snapshot().limit), (next, 200));
        clock.advance(Duration::from_millis(100));
        assert_eq!(limiter.snapshot().remaining, (remaining + 5).min(200));
        // To a smaller one: no more than its burst.
        limiter
            .set_quota(Quota::per_second(1).burst(3), carry)
            .unwrap();
        assert!(limiter.snapshot().remaining <= 3);
        let refused = limiter.set_quota(Quota::per_second(0), carry).unwrap_err();
        assert_eq!(refused.field(), "tokens");
        assert_eq!(limiter.quota(), Quota::per_second(1).burst(3));
    }
}

#[test]
fn a_quota_that_changes_all_the_time_gives_no_more_than_its_rates() {
    let (limiter, clock) = limiter(Quota::per_second(1_000).burst(10));
    let mut allowed = 0;
    for i in 0..10_000_u64 {
        let quota = Quota::per_second(if i % 2 == 0 { 3_000 } else { 1_000 }).burst(10);
        limiter.set_quota(quota, Carry::Keep).unwrap();
        allowed += limiter.check_up_to(100);
        clock.advance(Duration::from_millis(1));
    }
    // Ten seconds at two thousand on average; what is rounded at a change costs the caller.
    assert!((19_990..=20_010).contains(&allowed), "{allowed}");
}

#[test]
fn checks_while_the_quota_changes_are_by_one_or_the_other() {
    let (limiter, clock) = limiter(Quota::per_second(1_000).burst(5));
    let allowed = std::thread::scope(|scope| {
        let ask = || (0..20_000).filter(|_| limiter.check().is_ok()).count();
        let threads = [(); 3].map(|()| scope.spawn(ask));
        for i in 0..1_000 {
            let quota = Quota::per_second(1_000).burst(5 + i % 3);
            limiter.set_quota(quota, Carry::Keep).unwrap();
            clock.advance(Duration::from_micros(100));
        }
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<usize>()
    });
    assert!(allowed <= 5 + 100, "{allowed}");
    assert_eq!(limiter.stats().allowed, allowed as u64);
    assert_eq!(limiter.stats().denied, 60_000 - allowed as u64);
}

#[cfg(feature = "tokio")]
#[test]
fn those_who_wait_hear_of_a_refund_and_of_another_quota() {
    let (limiter, _) = limiter(Quota::per_hour(2));
    limiter.check_n(2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let (first, second) = (CountingWaker::new(), CountingWaker::new());
    let mut one = pin!(limiter.wait());
    let mut two = pin!(limiter.wait_n(2));
    assert!(one.as_mut().poll(&mut first.context()).is_pending());
    assert!(two.as_mut().poll(&mut second.context()).is_pending());
    // What is kept for them is neither checked away nor reserved.
    limiter.refund(1);
    assert!(limiter.check().is_err());
    assert!(limiter.reserve(1, Deadline::NEVER).is_err());
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    assert_eq!(one.as_mut().poll(&mut first.context()), Poll::Ready(Ok(())));
    assert_eq!(second.wakes(), 1);
    assert!(two.as_mut().poll(&mut second.context()).is_pending());
    limiter.set_quota(Quota::per_hour(1), Carry::Keep).unwrap();
    assert_eq!(second.wakes(), 2);
    let (asked, burst) = (2, 1);
    let refused = Err(WaitError::ExceedsBurst { asked, burst });
    assert_eq!(
        two.as_mut().poll(&mut second.context()),
        Poll::Ready(refused)
    );
    let stats = limiter.stats();
    assert_eq!(
        (stats.waiting, stats.refused_waits, stats.refunded),
        (0, 2, 1)
    );
}

fn leased(quota: Quota, batch: u64, threads: usize) -> (LeasedLimiter<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().quota(quota).clock(clock.clone());
    let leased = builder.leased(batch).threads(threads).build();
    (leased.unwrap(), clock)
}

#[test]
fn threads_with_leases_share_one_quota() {
    let (leased, clock) = leased(Quota::per_second(1_000).burst(400), 10, 20);
    let allowed = std::thread::scope(|scope| {
        let ask = || (0..2_000).filter(|_| leased.check().is_ok()).count();
        let threads = [(); 8].map(|()| scope.spawn(ask));
        for _ in 0..100 {
            clock.advance(Duration::from_millis(1));
            std::thread::yield_now();
        }
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<usize>()
    });
    // What the threads left over lies with their numbers.
    assert!(allowed <= 400 + 100, "{allowed}");
    assert!(allowed >= 200, "{allowed}");
    let stats = leased.stats();
    assert_eq!(
        (stats.allowed, stats.tokens),
        (allowed as u64, allowed as u64)
    );
    assert_eq!(stats.denied, 16_000 - allowed as u64);
}

#[test]
fn a_lease_that_runs_out_is_denied_with_the_time_to_retry() {
    let (leased, clock) = leased(Quota::per_second(10).burst(8), 2, 2);
    let allowed = (0..100).filter(|_| leased.check().is_ok()).count();
    // A burst of eight, less two for each of two threads.
    assert_eq!(allowed, 4);
    let denied = leased.check().unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_millis(100));
    clock.advance(denied.retry_after);
    assert_eq!(leased.check(), Ok(()));
    assert!(leased.check_n(5).unwrap_err().retry_after().is_none());
    assert_eq!(leased.check_n(0), Ok(()));
}

#[test]
fn a_quota_that_is_set_beneath_leases_leaves_room_for_them() {
    let (leased, clock) = leased(Quota::per_second(10).burst(8), 2, 2);
    let small = leased
        .limiter()
        .set_quota(Quota::per_second(10).burst(7), Carry::Keep);
    assert_eq!(small.unwrap_err().field(), "burst");
    let next = Quota::per_second(10).burst(20);
    leased.limiter().set_quota(next, Carry::Reset).unwrap();
    assert_eq!(leased.quota(), next);
    clock.advance(Duration::from_secs(60));
    let allowed = (0..100).filter(|_| leased.check().is_ok()).count();
    assert_eq!(allowed, 16);
}

#[test]
fn leases_that_make_no_sense_are_refused_by_name() {
    let build = |batch, threads| {
        let builder = RateLimiter::builder().quota(Quota::per_second(100));
        let built = builder.leased(batch).threads(threads).build();
        built.map(drop).map_err(|error| error.field())
    };
    assert_eq!(build(25, 2), Ok(()));
    assert_eq!(build(26, 2), Err("batch"));
    assert_eq!(build(0, 2), Err("batch"));
    assert_eq!(build(1, 0), Err("threads"));
    assert_eq!(build(1, usize::MAX), Err("threads"));
    assert_eq!(build(u64::MAX, 1), Err("batch"));
}
