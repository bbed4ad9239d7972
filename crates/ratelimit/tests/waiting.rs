//! Waiting for tokens, in tokio's simulated time.
#![cfg(feature = "tokio")]

use std::time::Duration;

use overdrive_ratelimit::{
    AcquireError, ConcurrencyLimit, Deadline, Quota, RateLimiter, WaitError,
};
use overdrive_testkit::TokioClock;
use tokio::time::Instant;

type Limiter = RateLimiter<TokioClock>;

async fn limiter(quota: Quota) -> Limiter {
    let builder = RateLimiter::builder()
        .quota(quota)
        .clock(TokioClock::new().await);
    builder.build().unwrap()
}

/// Until `n` of them wait.
async fn waiting(limiter: &Limiter, n: usize) {
    while limiter.stats().waiting < n {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_and_at_the_rate() {
    let limiter = limiter(Quota::per_second(1000).burst(1)).await;
    let start = Instant::now();
    let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
    for i in 0..500 {
        let (limiter, done) = (limiter.clone(), done.clone());
        tokio::spawn(async move {
            limiter.wait().await.unwrap();
            done.send((i, start.elapsed())).unwrap();
        });
        tokio::task::yield_now().await;
    }
    for expected in 0..500 {
        let (i, at) = order.recv().await.unwrap();
        assert_eq!(i, expected);
        let due = Duration::from_millis(expected);
        assert!(
            at >= due && at <= due + Duration::from_millis(2),
            "{i}: {at:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn timers_in_milliseconds_lose_no_throughput() {
    // Twenty tokens between two ticks of the timer, and no burst to make up for it.
    let limiter = limiter(Quota::per_second(20_000).burst(1)).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..2000)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.wait().await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(99), "{took:?}");
    assert!(took <= Duration::from_millis(103), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_who_gives_up_has_taken_nothing() {
    let limiter = limiter(Quota::per_second(1)).await;
    limiter.wait().await.unwrap();
    let second = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait().await }
    });
    waiting(&limiter, 1).await;
    let third = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait().await }
    });
    waiting(&limiter, 2).await;
    let start = Instant::now();
    second.abort();
    assert!(second.await.is_err());
    third.await.unwrap().unwrap();
    // It came in the place of the one before it.
    assert!(
        start.elapsed() <= Duration::from_millis(1002),
        "{:?}",
        start.elapsed()
    );
    let stats = limiter.stats();
    assert_eq!(
        (stats.allowed, stats.abandoned_waits, stats.waiting),
        (2, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_be_late_fails_at_once() {
    let limiter = limiter(Quota::per_second(1)).await;
    limiter.wait().await.unwrap();
    let start = Instant::now();
    let refused = limiter.wait_timeout(Duration::from_millis(900)).await;
    assert!(matches!(refused, Err(WaitError::DeadlineExceeded { .. })));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        limiter.wait_timeout(Duration::from_millis(1001)).await,
        Ok(())
    );
    // Those who wait before count.
    let behind = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait().await }
    });
    waiting(&limiter, 1).await;
    let deadline = Deadline::after_on(&TokioClock::new().await, Duration::from_secs(9));
    let _in_time = limiter.wait().deadline(deadline);
    let late = limiter.wait_timeout(Duration::from_millis(1500)).await;
    assert!(matches!(late, Err(WaitError::DeadlineExceeded { .. })));
    behind.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_check_does_not_take_what_others_wait_for() {
    let limiter = limiter(Quota::per_second(10).burst(2)).await;
    limiter.check_n(2).unwrap();
    let waits = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait_n(2).await }
    });
    waiting(&limiter, 1).await;
    assert_eq!(
        limiter.check().unwrap_err().retry_after,
        Duration::from_millis(300)
    );
    assert_eq!(limiter.snapshot().remaining, 0);
    tokio::time::advance(Duration::from_millis(150)).await;
    // One token is there, and belongs to the one who waits for two.
    assert!(limiter.check().is_err());
    assert_eq!(limiter.check_up_to(5), 0);
    waits.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_executor_does_not_earn_a_second_burst() {
    let limiter = limiter(Quota::per_second(1000).burst(1)).await;
    limiter.check().unwrap();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                limiter.wait().await.unwrap();
                Instant::now()
            })
        })
        .collect();
    waiting(&limiter, 1000).await;
    let stalled = Duration::from_millis(500);
    tokio::time::advance(stalled).await;
    let resumed = Instant::now();
    let mut at_once = 0;
    for task in tasks {
        let at = task.await.unwrap();
        at_once += usize::from(at < resumed + Duration::from_millis(1));
    }
    // Five milliseconds of slack are worth five tokens, not five hundred.
    assert!(at_once <= 8, "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let builder = RateLimiter::builder()
        .quota(Quota::per_hour(1))
        .max_waiters(1);
    let limiter = builder.clock(TokioClock::new().await).build().unwrap();
    limiter.check().unwrap();
    let waits = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait().await }
    });
    waiting(&limiter, 1).await;
    let refused = limiter.wait().await.unwrap_err();
    assert_eq!(refused, WaitError::QueueFull { max_waiters: 1 });
    waits.abort();
    assert!(waits.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_who_looks_in_vain_slows_nobody_down() {
    let limiter = limiter(Quota::per_second(20_000).burst(1)).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                limiter.wait().await.unwrap();
            })
        })
        .collect();
    waiting(&limiter, 199).await;
    while limiter.stats().waiting > 0 {
        // Between two ticks of the timer, and before those who wait have looked.
        assert_eq!(limiter.check_up_to(1), 0);
        assert_eq!(limiter.check_n(0), Ok(()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let took = start.elapsed();
    assert!(took <= Duration::from_millis(14), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_does_not_come_in_time_is_not_waited_for() {
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let permit = limit.acquire_timeout(Duration::ZERO).await.unwrap();
    let start = Instant::now();
    let late = limit.acquire_timeout(Duration::from_secs(3)).await;
    assert_eq!(late.unwrap_err(), AcquireError::TimedOut);
    assert!(start.elapsed() >= Duration::from_secs(3));
    let report = limit.drain(Duration::from_secs(2)).await;
    assert_eq!((report.finished, report.abandoned), (0, 1));
    drop(permit);
    assert!(limit.drain(Deadline::NEVER).await.is_complete());
    let stats = limit.stats();
    assert_eq!(
        (stats.refused, stats.abandoned_waits, stats.waiting),
        (1, 0, 0)
    );
}
