//! No wake is lost under cancels, refunds, changes and drains.
#![cfg(feature = "tokio")]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_ratelimit::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waits_all_end() {
    let limiter = RateLimiter::builder()
        .quota(Quota::per_second(200_000).burst(4))
        .build()
        .unwrap();
    let mut tasks = Vec::new();
    for t in 0..16_u64 {
        let limiter = limiter.clone();
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(t);
            for _ in 0..4_000 {
                let n = random.u64(1..4);
                match random.u8(0..8) {
                    0 => {
                        let _ = tokio::time::timeout(
                            Duration::from_micros(random.u64(0..300)),
                            limiter.wait_n(n),
                        )
                        .await;
                    }
                    1 => limiter.refund(1),
                    2 => {
                        let rate = random.u64(100_000..400_000);
                        let _ = limiter.set_quota(
                            Quota::per_second(rate).burst(random.u64(4..8)),
                            Carry::Proportional,
                        );
                    }
                    3 => {
                        let _ = limiter.check_n(n);
                    }
                    4 => {
                        let _ = limiter
                            .reserve(n, Duration::from_millis(1))
                            .map(|r| r.cancel());
                    }
                    _ => limiter.wait_n(n).await.unwrap(),
                }
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(40), task)
            .await
            .expect("a wake was lost")
            .unwrap();
    }
    assert_eq!(limiter.stats().waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn permits_all_end() {
    let limit = ConcurrencyLimit::builder()
        .limit(70)
        .shed(Shedding::default())
        .build()
        .unwrap();
    let (out, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for t in 0..200_u64 {
        let (limit, out, most) = (limit.clone(), Arc::clone(&out), Arc::clone(&most));
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(t);
            for _ in 0..2_000 {
                let priority =
                    [Priority::High, Priority::Normal, Priority::Low][random.usize(0..3)];
                let got = match random.u8(0..6) {
                    0 => limit.try_acquire().ok(),
                    1 => limit
                        .acquire_timeout(Duration::from_micros(random.u64(0..500)))
                        .await
                        .ok(),
                    2 => {
                        let _ = limit.set_limit(random.usize(60..71));
                        None
                    }
                    3 => {
                        let _ = limit.drain(Duration::ZERO).await;
                        None
                    }
                    4 => {
                        drop(
                            tokio::time::timeout(
                                Duration::ZERO,
                                limit.acquire().priority(priority),
                            )
                            .await,
                        );
                        None
                    }
                    _ => limit.acquire().priority(priority).await.ok(),
                };
                if got.is_some() {
                    most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    if random.bool() {
                        tokio::task::yield_now().await;
                    }
                    out.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .expect("a wake was lost")
            .unwrap();
    }
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    assert!(most.load(Ordering::SeqCst) <= 70);
}
