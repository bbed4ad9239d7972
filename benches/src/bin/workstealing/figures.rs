//! What is counted once: how late an urgent task is, and what idle and nearly idle pools cost.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, process_cpu};
use overdrive_workstealing::{Priority, ThreadPool};

use crate::jobs::Spawn;
use crate::programs::Joins;

const BACKLOG: u64 = 10_000;

fn work(micros: u64) {
    let until = Instant::now() + Duration::from_micros(micros);
    while Instant::now() < until {
        spin_loop();
    }
}

/// The delay of one task behind the backlog, the median of some runs.
fn behind(spawn: impl Fn(bool, Box<dyn FnOnce() + Send>)) -> Figure {
    const RUNS: u64 = 5;
    let ran = Arc::new(AtomicU64::new(0));
    let mut delays: Vec<f64> = (1..=RUNS)
        .map(|run| {
            for _ in 0..BACKLOG {
                let ran = Arc::clone(&ran);
                let task = move || {
                    work(5);
                    ran.fetch_add(1, Ordering::Release);
                };
                spawn(false, Box::new(task));
            }
            let (tell, told) = channel();
            let begun = Instant::now();
            spawn(
                true,
                Box::new(move || tell.send(begun.elapsed()).expect("it is awaited")),
            );
            let delay = told.recv().expect("it runs");
            while ran.load(Ordering::Acquire) < run * BACKLOG {
                thread::yield_now();
            }
            delay.as_secs_f64() * 1e6
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    Figure {
        value: delays[delays.len() / 2],
        check: ran.load(Ordering::Acquire),
        ..Figure::default()
    }
}

/// Ours says that the task is urgent.
pub(crate) fn urgent_ours(name: &str, version: &str) -> Contender {
    Contender::once(Role::Ours, name, version, |setup| {
        let built = ThreadPool::builder().workers(setup.threads).build();
        let pool = built.expect("the settings are valid");
        behind(|urgent, task| {
            let priority = if urgent {
                Priority::High
            } else {
                Priority::Normal
            };
            let spawned = pool.task().priority(priority).spawn(task);
            assert!(spawned.is_ok(), "there is room");
        })
    })
}

/// The others know of no urgency.
#[cfg(feature = "workstealing-peers")]
pub(crate) fn urgent<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::once(role, name, version, |setup| {
        let pool = P::new(setup.threads);
        behind(|_, task| pool.spawn(task))
    })
}

/// The pauses are part of the workload.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is how a pool behaves while nothing happens"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

const TRICKLE: u64 = 300;

fn trickle_with(mut spawn: impl FnMut()) -> f64 {
    let before = process_cpu();
    for _ in 0..TRICKLE {
        spawn();
        pause(Duration::from_millis(1));
    }
    (process_cpu() - before) as f64 / 1e3 / TRICKLE as f64
}

/// A task each millisecond: CPU per task, beyond that of the loop that sleeps.
pub(crate) fn trickle<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::once(role, name, version, |setup| {
        let pool = P::new(setup.threads);
        let ran = Arc::new(AtomicU64::new(0));
        let alone = trickle_with(|| ());
        let spawn = || {
            let ran = Arc::clone(&ran);
            pool.spawn(move || {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        };
        let with = trickle_with(spawn);
        while ran.load(Ordering::Relaxed) < TRICKLE {
            thread::yield_now();
        }
        Figure {
            value: (with - alone).max(0.0),
            check: ran.load(Ordering::Relaxed),
            ..Figure::default()
        }
    })
}

/// Two seconds without work: CPU in milliseconds.
pub(crate) fn idle<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::once(role, name, version, |setup| {
        let pool = P::new(setup.threads);
        let (tell, told) = channel();
        pool.spawn(move || tell.send(1).expect("it is awaited"));
        let check = told.recv().expect("it runs");
        pause(Duration::from_millis(100));
        let before = process_cpu();
        pause(Duration::from_secs(2));
        Figure {
            value: (process_cpu() - before) as f64 / 1e6,
            check,
            ..Figure::default()
        }
    })
}

/// The shape of a control loop: each tick, twelve bursts of eight jobs of 2 us with serial work
/// between them; then a pause. The median time of a tick, without the pause.
pub(crate) fn ticks<P: Joins>(role: Role, name: &str, version: &str) -> Contender {
    fn burst<P: Joins>(jobs: u64) -> u64 {
        if jobs == 1 {
            work(2);
            return black_box(1);
        }
        let (a, b) = P::join(|| burst::<P>(jobs / 2), || burst::<P>(jobs / 2));
        a + b
    }
    Contender::once(role, name, version, |setup| {
        const TICKS: usize = 100;
        let mut pool = P::new(setup.threads);
        let mut check = 0;
        let mut times: Vec<f64> = (0..TICKS)
            .map(|_| {
                let begun = Instant::now();
                for _ in 0..12 {
                    check += pool.enter(|| burst::<P>(8));
                    work(15);
                }
                let took = begun.elapsed();
                pause(Duration::from_millis(3));
                took.as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        Figure {
            value: times[TICKS / 2],
            check,
            ..Figure::default()
        }
    })
}
