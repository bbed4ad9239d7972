//! Windows that move, and several limits at once.

use std::collections::VecDeque;
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{All, CheckError, Limit, Quota, RateLimiter, SlidingLog, SlidingWindow};
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_nanos(1_000);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_never_lets_more_through_in_any_window(
        asks in proptest::collection::vec((0..5_u64, 0..400_u64), 0..200),
    ) {
        let clock = ManualClock::new();
        let log = SlidingLog::with_clock(6, WINDOW, clock.clone()).unwrap();
        let mut taken: VecDeque<u64> = VecDeque::new();
        let mut now = 0;
        for (n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            now += by;
            taken.retain(|at| at + 1_000 > now);
            let fits = taken.len() as u64 + n <= 6;
            prop_assert_eq!(log.peek(n).is_ok(), fits);
            match log.check_n(n) {
                Ok(()) => taken.extend((0..n).map(|_| now)),
                Err(error) => {
                    prop_assert!(!fits);
                    // Then, and not a nanosecond before.
                    let wait = error.retry_after().unwrap().as_nanos() as u64;
                    let then = |now: u64| taken.iter().filter(|at| **at + 1_000 > now).count();
                    prop_assert!(then(now + wait) as u64 + n <= 6);
                    prop_assert!(then(now + wait - 1) as u64 + n > 6);
                }
            }
        }
    }

    #[test]
    fn a_sliding_window_keeps_its_periods_and_its_word(
        asks in proptest::collection::vec((0..5_u64, 0..700_u64), 0..200),
    ) {
        let clock = ManualClock::new();
        let window = SlidingWindow::with_clock(6, WINDOW, clock.clone()).unwrap();
        let (mut now, mut period, mut in_period) = (0, 0, 0);
        for (n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            now += by;
            if now / 1_000 != period {
                (period, in_period) = (now / 1_000, 0);
            }
            match window.check_n(n) {
                Ok(()) => {
                    in_period += n;
                    prop_assert!(in_period <= 6);
                }
                Err(error) => {
                    let wait = error.retry_after().unwrap();
                    if wait > Duration::from_nanos(1) {
                        let last = wait - Duration::from_nanos(1);
                        clock.advance(last);
                        prop_assert!(window.peek(n).is_err());
                        clock.advance(wait - last);
                        prop_assert!(window.peek(n).is_ok());
                        now += wait.as_nanos() as u64;
                    }
                }
            }
        }
    }
}

#[test]
fn a_sliding_window_counts_the_period_before_in_part() {
    let clock = ManualClock::new();
    let window = SlidingWindow::with_clock(100, WINDOW, clock.clone()).unwrap();
    clock.advance(Duration::from_nanos(500));
    assert_eq!(window.check_n(80), Ok(()));
    clock.advance(Duration::from_nanos(750));
    // A quarter into the next: three quarters of the eighty count.
    assert_eq!(window.check_n(40), Ok(()));
    assert!(window.check().is_err());
    window.refund(1);
    assert_eq!(window.check(), Ok(()));
    clock.advance(2 * WINDOW);
    assert_eq!(window.check_n(100), Ok(()));
}

#[test]
fn windows_that_make_no_sense_are_refused_by_name() {
    let log = |limit, window| {
        SlidingLog::new(limit, window)
            .map(drop)
            .map_err(|e| e.field())
    };
    assert_eq!(log(0, WINDOW), Err("limit"));
    assert_eq!(log(u64::MAX, WINDOW), Err("limit"));
    assert_eq!(log(1, Duration::ZERO), Err("window"));
    assert_eq!(log(1, Duration::MAX), Err("window"));
    let window = |limit| {
        SlidingWindow::new(limit, WINDOW)
            .map(drop)
            .map_err(|e| e.field())
    };
    assert_eq!((window(0), window(u64::MAX)), (Err("limit"), Err("limit")));
    let log = SlidingLog::new(3, WINDOW).unwrap();
    let too_many = CheckError::ExceedsBurst { asked: 4, burst: 3 };
    assert_eq!(log.check_n(4), Err(too_many));
}

fn limiter(quota: Quota, clock: &ManualClock) -> RateLimiter<ManualClock> {
    let builder = RateLimiter::builder().quota(quota).clock(clock.clone());
    builder.build().unwrap()
}

#[test]
fn all_limits_allow_it_or_none_is_charged() {
    let clock = ManualClock::new();
    let second = limiter(Quota::per_second(10), &clock);
    let hour = limiter(Quota::per_hour(25), &clock);
    let log = SlidingLog::with_clock(20, Duration::from_secs(7200), clock.clone()).unwrap();
    let calls = All::new((&second, &hour, &log));
    assert_eq!(calls.check_n(10), Ok(()));
    assert_eq!(
        calls.check().unwrap_err().retry_after,
        Duration::from_millis(100)
    );
    assert_eq!(hour.snapshot().remaining, 15);
    clock.advance(Duration::from_secs(1));
    assert_eq!(calls.check_n(10), Ok(()));
    clock.advance(Duration::from_secs(1));
    // The log says it longest, and the others keep what they have.
    let denied = calls.check().unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_secs(7198));
    assert_eq!(
        (second.snapshot().remaining, hour.snapshot().remaining),
        (10, 5)
    );
    assert_eq!(calls.check_n(11).unwrap_err().retry_after(), None);
    calls.refund(2);
    assert_eq!(calls.check_n(2), Ok(()));
    assert!(calls.check().is_err());
}

#[test]
fn two_limits_asked_by_many_threads_are_charged_alike() {
    let clock = ManualClock::new();
    let one = limiter(Quota::per_hour(500), &clock);
    let other = limiter(Quota::per_hour(300), &clock);
    let both = All::new((&one, &other));
    let allowed = std::thread::scope(|scope| {
        let ask = || (0..400).filter(|_| both.check().is_ok()).count() as u64;
        let threads = [(); 4].map(|()| scope.spawn(ask));
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<u64>()
    });
    assert!(allowed <= 300);
    assert_eq!(one.snapshot().remaining, 500 - allowed);
    assert_eq!(other.snapshot().remaining, 300 - allowed);
}

#[test]
fn a_log_never_lets_more_through_after_a_refund() {
    let clock = ManualClock::new();
    let log = SlidingLog::with_clock(2, Duration::from_secs(10), clock.clone()).unwrap();
    log.check().unwrap(); // A at 0: not used, given back later
    clock.advance(Duration::from_secs(9));
    log.check().unwrap(); // B at 9, used
    log.refund(1); // A comes back
    log.check().unwrap(); // C at 9, used
    clock.advance(Duration::from_secs(1));
    let d = log.check().is_ok(); // D at 10
    assert!(
        !d,
        "B, C and D were used within a second, two in ten seconds are allowed"
    );
}

/// A limit of a user that panics: what those before it gave is not given back.
#[test]
fn a_limit_that_panics_costs_the_others_no_tokens() {
    struct Panics;
    impl Limit for Panics {
        fn check_n(&self, _: u64) -> Result<(), CheckError> {
            panic!("mine")
        }
        fn peek(&self, _: u64) -> Result<(), CheckError> {
            Ok(())
        }
        fn refund(&self, _: u64) {}
    }
    let limiter = limiter(Quota::per_hour(5), &ManualClock::new());
    let all = All::new((&limiter, Panics));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| all.check())).is_err());
    assert_eq!(limiter.snapshot().remaining, 5);
}
