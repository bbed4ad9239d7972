//! Everything at once, with an end: a hang is a failure.
#![cfg(feature = "tokio")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_batch::{Batcher, Gather, Overload, Priority};
use tokio::sync::Semaphore;

fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn hammer(gather: Gather, overload: Overload, threads: usize, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap();
    let wrong = Arc::new(AtomicU64::new(0));
    let ended = runtime.block_on(async {
        let pool = Arc::new(Semaphore::new(2));
        let acquire = move || {
            let pool = Arc::clone(&pool);
            async move { pool.acquire_owned().await.map_err(|_| "closed") }
        };
        let batcher = Batcher::builder()
            .max_size(5)
            .capacity(8)
            .workers(3)
            .max_wait(Duration::from_millis(2))
            .gather(gather)
            .overload(overload)
            .max_weight(9, |n: &u64| (*n % 4) as usize)
            .isolate(6)
            .build_with(acquire, |lease, items: Vec<u64>| async move {
                if items.iter().sum::<u64>() % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                assert!(items.len() < 6 && items.iter().map(|n| n % 4).sum::<u64>() < 10);
                if items.iter().any(|n| n % 13 == 0) {
                    return Err("thirteen");
                }
                drop(lease);
                Ok(items.iter().map(|n| n * 2).collect())
            })
            .unwrap();
        let tasks: Vec<_> = (1..17_u64)
            .map(|task| {
                let (batcher, wrong) = (batcher.clone(), Arc::clone(&wrong));
                tokio::spawn(async move {
                    let mut seed = seed * 1000 + task * 7919;
                    for n in 0..1500 {
                        let n = n * 16 + task;
                        let what = next(&mut seed) % 12;
                        let submit = batcher.submit(n).priority(
                            [Priority::High, Priority::Normal, Priority::Low][what as usize % 3],
                        );
                        match what {
                            0 => {
                                let _ = tokio::time::timeout(Duration::from_micros(200), submit).await;
                            }
                            1 => {
                                let _ = submit.deadline(Duration::from_micros(300)).await;
                            }
                            2 => {
                                if let Ok(ticket) = batcher.try_submit(n) {
                                    if seed % 2 == 0 { ticket.detach() } else { drop(ticket) }
                                }
                            }
                            3 => {
                                tokio::select! { biased; _ = submit => {}, () = tokio::task::yield_now() => {} }
                            }
                            4 => {
                                batcher.flush().await;
                            }
                            5 => {
                                let items: Vec<_> = (n..n + 7).collect();
                                for (n, end) in (n..).zip(batcher.submit_all(items).await) {
                                    if end.is_ok_and(|end| end != n * 2) {
                                        wrong.fetch_add(1, Ordering::SeqCst);
                                    }
                                }
                            }
                            6 => {
                                let coming = batcher.announce();
                                tokio::task::yield_now().await;
                                if seed % 2 == 0 {
                                    let _ = coming.submit(n).await;
                                }
                            }
                            _ => {
                                if submit.await.is_ok_and(|end| end != n * 2) {
                                    wrong.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            if tokio::time::timeout(Duration::from_secs(30), task).await.is_err() {
                return Err(batcher.stats());
            }
        }
        let report = batcher.shutdown(Duration::from_secs(5)).await;
        assert!(report.is_complete());
        Ok(batcher.stats())
    });
    runtime.shutdown_background();
    let stats = ended.unwrap_or_else(|stats| panic!("it hangs: {stats:?}"));
    assert_eq!((stats.queued, stats.waiting, stats.running), (0, 0, 0));
    assert_eq!(wrong.load(Ordering::SeqCst), 0);
}

#[test]
fn nobody_hangs_and_nobody_gets_anothers_result() {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
    }));
    let gathers = [
        Gather::Tick,
        Gather::Immediate,
        Gather::Adaptive,
        Gather::Announced,
        Gather::Linger { min_size: 3 },
    ];
    for (seed, gather) in (1..).zip(gathers.repeat(
        if std::env::var_os("OVERDRIVE_DEEP").is_some() {
            20
        } else {
            1
        },
    )) {
        for overload in [Overload::Wait, Overload::Reject, Overload::ShedOldest] {
            hammer(gather, overload, 1 + seed as usize % 3, seed);
        }
    }
}

#[test]
fn a_wide_map_loses_no_wake() {
    use std::num::NonZeroUsize;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for width in [1, 2, 62, 63, 64, 65, 567, 568, 5000] {
            let width = NonZeroUsize::new(width).unwrap();
            let map = overdrive_batch::map_ordered(0..6000_u64, width, |n| async move {
                match n % 5 {
                    0 => tokio::spawn(async move { n }).await.unwrap(),
                    1 => {
                        tokio::task::yield_now().await;
                        n
                    }
                    2 => {
                        let (send, receive) = tokio::sync::oneshot::channel();
                        tokio::spawn(async move {
                            tokio::task::yield_now().await;
                            send.send(n).unwrap();
                        });
                        receive.await.unwrap()
                    }
                    _ => n,
                }
            });
            let results = tokio::time::timeout(Duration::from_secs(20), map).await;
            assert!(
                results.expect("it hangs").into_iter().eq(0..6000),
                "{width}"
            );
        }
    });
}
