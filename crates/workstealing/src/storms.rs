//! Random schedules of the whole pool.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_shuttle" cargo test -p overdrive-workstealing --lib --release shuttle
//! ```
//!
//! A schedule in which somebody waits for ever is a failure. `OVERDRIVE_DEEP=1` runs many more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use overdrive_core::{Deadline, Priority};
use shuttle::thread;

use crate::{Overload, TaskError, ThreadPool, join};

fn storm(body: impl Fn() + Send + Sync + 'static) {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1");
    let runs = if deep { 20_000 } else { 300 };
    shuttle::check_random(body, runs);
}

fn pool(workers: usize, capacity: usize) -> ThreadPool {
    let builder = ThreadPool::builder().workers(workers).capacity(capacity);
    builder.overload(Overload::Wait).build().unwrap()
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = join(|| fib(n - 1), || fib(n - 2));
    a + b
}

fn end(pool: &ThreadPool) {
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
    let stats = pool.stats();
    assert_eq!(stats.spawned, stats.ended(), "{stats:?}");
}

#[test]
fn shuttle_joins_of_several_threads() {
    storm(|| {
        let pool = pool(2, 8);
        let other = pool.clone();
        let guest = thread::spawn(move || other.install(|| fib(5)));
        let task = pool.submit(|| fib(5)).unwrap();
        assert_eq!(task.join().unwrap(), 5);
        assert_eq!(guest.join().unwrap(), 5);
        end(&pool);
    });
}

#[test]
fn shuttle_tasks_of_all_priorities_and_a_small_queue() {
    storm(|| {
        let pool = pool(2, 2);
        let ran = Arc::new(AtomicU32::new(0));
        let spawners: Vec<_> = [Priority::High, Priority::Normal, Priority::Low]
            .into_iter()
            .map(|priority| {
                let (pool, ran) = (pool.clone(), Arc::clone(&ran));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let (inner, ran) = (pool.clone(), Arc::clone(&ran));
                        let task = move || {
                            let ran2 = Arc::clone(&ran);
                            ran.fetch_add(1, Ordering::Relaxed);
                            let more = move || {
                                ran2.fetch_add(1, Ordering::Relaxed);
                            };
                            inner.spawn(more).unwrap();
                        };
                        pool.task().priority(priority).spawn(task).unwrap();
                    }
                })
            })
            .collect();
        for spawner in spawners {
            spawner.join().unwrap();
        }
        assert!(pool.wait_idle(Deadline::NEVER));
        assert_eq!(ran.load(Ordering::Relaxed), 12);
        end(&pool);
    });
}

#[test]
fn shuttle_handles_cancels_and_an_end() {
    storm(|| {
        let pool = pool(1, 4);
        let tasks: Vec<_> = (0..3).map(|n| pool.submit(move || n).unwrap()).collect();
        let other = pool.clone();
        let ender = thread::spawn(move || {
            let _ = other.shutdown(Deadline::at(overdrive_core::Timestamp::ZERO));
        });
        for (n, task) in tasks.into_iter().enumerate() {
            let cancelled = n == 1 && task.cancel();
            match task.join() {
                Ok(value) => assert!(!cancelled && value == n),
                Err(TaskError::Cancelled) => assert!(cancelled),
                Err(TaskError::Abandoned) => assert!(!cancelled),
                Err(error) => panic!("{error}"),
            }
        }
        ender.join().unwrap();
        end(&pool);
    });
}

#[test]
fn shuttle_scopes_with_parts_of_parts() {
    storm(|| {
        let pool = pool(2, 2);
        let ran = AtomicU32::new(0);
        pool.scope(|s| {
            for _ in 0..3 {
                s.spawn(|s| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    s.spawn(|_| {
                        ran.fetch_add(1, Ordering::Relaxed);
                    });
                });
            }
        });
        assert_eq!(ran.into_inner(), 6);
        end(&pool);
    });
}
