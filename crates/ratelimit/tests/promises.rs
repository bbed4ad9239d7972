//! Promises that are easily broken: what is given back, and how long a wait may take.

use std::sync::Arc;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{Carry, Deadline, Quota, RateLimiter, TimeBudget, WaitError};

fn limiter(quota: Quota) -> (RateLimiter<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    (
        RateLimiter::builder()
            .quota(quota)
            .clock(clock.clone())
            .build()
            .unwrap(),
        clock,
    )
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// golang/go#56924, #69419: what was reserved after the one cancelled keeps its moment AND its
/// tokens are given out anew.
#[test]
fn a_cancelled_reservation_does_not_double_the_burst() {
    let (limiter, clock) = limiter(Quota::per_second(1).burst(5));
    let first = limiter.reserve(5, Deadline::NEVER).unwrap();
    let second = limiter.reserve(5, Deadline::NEVER).unwrap();
    assert_eq!(second.delay(), secs(5));
    first.cancel();
    clock.advance(secs(5));
    // Nothing was used so far. Now the five of the second are, and as many more.
    assert!(second.delay().is_zero());
    let more = limiter.check_up_to(100);
    assert!(5 + more <= 5, "{} tokens at one moment, burst 5", 5 + more);
}

/// A real thread: the same, blocked for good.
#[test]
fn a_blocked_thread_comes_back_by_its_deadline() {
    let limiter = Arc::new(
        RateLimiter::builder()
            .quota(Quota::per_second(10).burst(1))
            .build()
            .unwrap(),
    );
    limiter.check().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let other = Arc::clone(&limiter);
    std::thread::spawn(move || send.send(other.wait_timeout_blocking(Duration::from_millis(300))));
    while limiter.stats().waiting == 0 {
        std::thread::yield_now();
    }
    limiter
        .set_quota(Quota::per_hour(1).burst(1), Carry::Keep)
        .unwrap();
    let answer = receive.recv_timeout(secs(3));
    assert!(
        answer.is_ok(),
        "300 ms were asked for, ten times that passed"
    );
}

fn budget() -> TimeBudget {
    TimeBudget::new(secs(2), secs(5)).unwrap()
}

#[test]
fn a_time_budget_bounds_waits_and_reservations() {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().quota(Quota::per_second(1).burst(1));
    let limiter = builder.time_budget(budget()).clock(clock.clone());
    let limiter = limiter.build().unwrap();
    for _ in 0..3 {
        let _taken = limiter.reserve(1, Deadline::NEVER).unwrap();
    }
    let needed = secs(3);
    let refused = Err(WaitError::DeadlineExceeded { needed });
    assert_eq!(limiter.wait_blocking(), refused, "two seconds by default");
    let asked = Deadline::after_on(&clock, secs(3));
    let reserved = limiter.reserve(1, asked).unwrap();
    assert_eq!(reserved.delay(), secs(3), "more if it is asked for");
    for n in 4..=5 {
        let asked = Deadline::after_on(&clock, secs(60));
        assert_eq!(limiter.reserve(1, asked).unwrap().delay(), secs(n));
    }
    let asked = Deadline::after_on(&clock, secs(60));
    let refused = limiter.wait_n_blocking(1, asked);
    assert!(refused.is_err(), "and five at most");
}

#[test]
fn a_reservation_gives_back_what_nobody_relied_on() {
    let (limiter, clock) = limiter(Quota::per_second(1).burst(5));
    let first = limiter.reserve(4, Deadline::NEVER).unwrap();
    let second = limiter.reserve(3, Deadline::NEVER).unwrap();
    assert_eq!(second.delay(), secs(2));
    // Three of the four have been relied on.
    assert_eq!(first.cancel(), 1);
    // And the last of all is as if it had not been.
    assert_eq!(second.cancel(), 3);
    assert_eq!(limiter.snapshot().remaining, 2);
    clock.advance(secs(10));
    let ahead = limiter.reserve(5, Deadline::NEVER).unwrap();
    let later = limiter.reserve(2, Deadline::NEVER).unwrap();
    limiter.refund(5);
    assert_eq!(limiter.snapshot().retry_after, secs(3), "nothing came back");
    limiter
        .set_quota(Quota::per_second(2), Carry::Keep)
        .unwrap();
    assert_eq!((ahead.cancel(), later.cancel()), (0, 0));
}

#[cfg(feature = "tokio")]
mod futures {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use overdrive_ratelimit::{AcquireError, AdaptiveLimit, ConcurrencyLimit, Wait};

    use super::*;

    #[test]
    fn a_refund_makes_for_a_full_burst_at_most() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let (limiter, clock) = limiter(Quota::per_second(1000).burst(1));
        for _ in 0..100 {
            let _taken = limiter.reserve(1, Deadline::NEVER).unwrap();
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (0..20).map(|_| Box::pin(limiter.wait())).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        clock.advance(Duration::from_millis(50));
        limiter.refund(100);
        let mut is_ready = |wait: &mut Pin<Box<Wait<'_, ManualClock>>>| {
            wait.as_mut().poll(&mut context).is_ready()
        };
        let got = waits
            .iter_mut()
            .filter_map(|wait| is_ready(wait).then_some(()))
            .count();
        assert!(got <= 1, "{got} at one moment of a burst of 1");
    }

    #[test]
    fn a_wait_does_not_outlast_its_deadline_when_the_quota_changes() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let (limiter, clock) = limiter(Quota::per_second(1).burst(1));
        limiter.check().unwrap();
        let mut wait = pin!(limiter.wait_timeout(secs(2)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        limiter
            .set_quota(Quota::per(1, secs(365 * 86400)), Carry::Keep)
            .unwrap();
        clock.advance(secs(3600));
        assert!(
            wait.as_mut().poll(&mut context).is_ready(),
            "two seconds were asked for, an hour passed"
        );
    }

    #[test]
    fn a_wait_does_not_outlast_its_deadline_behind_one_that_is_not_polled() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let (limiter, clock) = limiter(Quota::per_second(1).burst(1));
        limiter.check().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut stuck = pin!(limiter.wait());
        assert!(stuck.as_mut().poll(&mut context).is_pending());
        let mut wait = pin!(limiter.wait_timeout(secs(3)));
        assert!(wait.as_mut().poll(&mut context).is_pending());
        clock.advance(secs(3600));
        let late = wait.as_mut().poll(&mut context).is_pending();
        let denied = limiter.check();
        assert!(
            !late,
            "an hour past its deadline; and a check says {denied:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_budget_ends_waits_for_permits() {
        let limit = ConcurrencyLimit::builder().limit(1).time_budget(budget());
        let limit = limit.build().unwrap();
        let held = limit.acquire().await.unwrap();
        let start = tokio::time::Instant::now();
        let late = limit.acquire().await;
        assert_eq!(late.unwrap_err(), AcquireError::TimedOut);
        let asked = limit.acquire().deadline(secs(60)).await;
        assert_eq!(asked.unwrap_err(), AcquireError::TimedOut);
        let took = start.elapsed();
        assert!(took > secs(6) && took <= secs(8), "{took:?}");
        drop(held);
        assert!(limit.acquire().await.is_ok());
        let adaptive = AdaptiveLimit::builder().range(1, 1).max_waiters(9);
        let adaptive = adaptive.time_budget(budget()).build().unwrap();
        let _held = adaptive.acquire().await.unwrap();
        let late = adaptive.acquire().await;
        assert_eq!(late.unwrap_err(), AcquireError::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_permit_within_a_time_ends_then() {
        let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
        let _held = limit.try_acquire().unwrap();
        let late = limit.acquire().share("a").within(secs(3)).await;
        assert_eq!(late.unwrap_err(), AcquireError::TimedOut);
        assert_eq!(limit.stats().waiting, 0);
        let soon = Duration::from_millis(1);
        let late = limit.acquire().deadline(soon).blocking();
        assert_eq!(late.unwrap_err(), AcquireError::TimedOut);
    }
}
