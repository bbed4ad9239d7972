//! Many threads at once, and an end in the middle: nobody hangs, and the figures add up.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use overdrive_workstealing::{Deadline, Overload, Priority, TaskError, ThreadPool};
use support::builder;

/// Small numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

fn user(pool: &ThreadPool, seed: u64, steps: &AtomicU64) {
    let mut dice = Dice(seed);
    for n in 0..200 {
        let priority = [Priority::Low, Priority::Normal, Priority::High][dice.roll(3) as usize];
        let task = pool.task().priority(priority);
        match dice.roll(8) {
            0 => {
                let (a, b) = pool.join(|| n, || pool.join(|| n, || n));
                assert_eq!((a, b), (n, (n, n)));
            }
            1 => {
                let sum = AtomicU64::new(0);
                pool.scope(|s| {
                    for _ in 0..4 {
                        s.spawn(|s| {
                            sum.fetch_add(1, Ordering::Relaxed);
                            s.spawn(|_| {
                                sum.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
                assert_eq!(sum.into_inner(), 8);
            }
            2 => {
                if let Ok(handle) = task.submit(move || n) {
                    if handle.cancel() {
                        assert!(matches!(handle.join(), Err(TaskError::Cancelled)));
                    }
                }
            }
            3 => {
                let late = Deadline::after(Duration::from_micros(dice.roll(50)));
                match task.deadline(late).submit(move || n).map(|h| h.join()) {
                    Ok(Ok(m)) => assert_eq!(m, n),
                    Ok(Err(TaskError::DeadlineExceeded | TaskError::Abandoned)) | Err(_) => {}
                    Ok(Err(error)) => panic!("{error}"),
                }
            }
            4 => drop(task.submit(move || n).map(|handle| handle.cancel_on_drop())),
            5 => {
                let inner = pool.clone();
                let nested = move || inner.submit(move || n).ok().map(|h| h.join());
                match task.submit(nested).map(|handle| handle.join()) {
                    Ok(Ok(Some(Ok(m)))) => assert_eq!(m, n),
                    Ok(Ok(_) | Err(TaskError::Abandoned)) | Err(_) => {}
                    Ok(Err(error)) => panic!("{error}"),
                }
            }
            6 => drop(task.spawn(|| ())),
            _ => match task.submit(move || n).map(|handle| handle.join()) {
                Ok(Ok(m)) => assert_eq!(m, n),
                Ok(Err(TaskError::Abandoned)) | Err(_) => {}
                Ok(Err(error)) => panic!("{error}"),
            },
        }
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn users_of_all_kinds_and_an_end() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1");
    for round in 0..if deep { 2_000 } else { 20 } {
        let mut dice = Dice(round);
        let policies = [Overload::Wait, Overload::CallerRuns, Overload::Reject];
        let pool = builder(1 + dice.roll(3) as usize)
            .capacity(1 + dice.roll(3) as usize)
            .overload(policies[dice.roll(3) as usize])
            .build()
            .unwrap();
        let steps = AtomicU64::new(0);
        thread::scope(|threads| {
            for seed in 0..4 {
                let (pool, steps) = (&pool, &steps);
                threads.spawn(move || user(pool, round * 4 + seed, steps));
            }
            while round % 2 == 0 && steps.load(Ordering::Relaxed) < 300 {
                thread::yield_now();
            }
            match round % 4 {
                0 => drop(pool.shutdown(Duration::ZERO)),
                2 => assert!(pool.shutdown(Deadline::NEVER).is_complete()),
                _ => {}
            }
        });
        assert!(pool.shutdown(Deadline::NEVER).is_complete());
        let stats = pool.stats();
        assert_eq!(stats.spawned, stats.ended(), "{stats:?}");
        assert_eq!(stats.outstanding(), 0);
    }
}
