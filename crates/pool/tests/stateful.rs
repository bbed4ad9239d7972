//! Random operations against a model of what the pool may do.
//!
//! Several threads work in lock step, one operation at a time, so that the model knows what each
//! cache must hold; another test lets them run freely and checks the sums. The seeds are fixed.
//! `OVERDRIVE_DEEP=1` runs a million operations.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use overdrive_pool::{Keep, OwnedPooled, Pool};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{Ledger, Object};

const THREADS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add,
    Detach(usize),
    Discard(usize),
    End,
    Get,
    Put(usize),
    PutSpoilt(usize),
    Trim,
    TrimIdle,
    TrimTo(usize),
    TryGet,
    Warm(usize),
}

fn op() -> impl Strategy<Value = (usize, Op)> {
    let op = prop_oneof![
        12 => Just(Op::Get),
        4 => Just(Op::TryGet),
        14 => any::<usize>().prop_map(Op::Put),
        2 => any::<usize>().prop_map(Op::PutSpoilt),
        1 => any::<usize>().prop_map(Op::Detach),
        1 => any::<usize>().prop_map(Op::Discard),
        1 => Just(Op::Add),
        1 => (0..6_usize).prop_map(Op::Warm),
        1 => Just(Op::Trim),
        1 => (0..20_usize).prop_map(Op::TrimTo),
        2 => Just(Op::TrimIdle),
        1 => Just(Op::End),
    ];
    (0..THREADS, op)
}

/// A thread that does what it is told, and can be replaced by a fresh one.
struct Worker {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn new() -> Self {
        let (jobs, receive) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, done) = channel();
        let thread = thread::spawn(move || {
            for job in receive {
                job();
                tell.send(()).unwrap();
            }
        });
        Self { jobs, done, thread }
    }

    fn run<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        self.jobs
            .send(Box::new(move || *place.lock().unwrap() = Some(f())))
            .unwrap();
        self.done.recv().expect("the job did not panic");
        result.lock().unwrap().take().unwrap()
    }

    fn end(self) {
        drop(self.jobs);
        self.thread.join().unwrap();
    }
}

/// What must hold of the pool after each operation.
#[derive(Default)]
struct Expected {
    held: Vec<OwnedPooled<Object>>,
    detached: usize,
    resets: usize,
    gone: usize,
    refused: usize,
}

fn run(ops: &[(usize, Op)], max_idle: usize, local: usize) {
    let ledger = Ledger::default();
    let resets = Arc::new(AtomicUsize::new(0));
    let pool = {
        let (ledger, resets) = (ledger.clone(), Arc::clone(&resets));
        Pool::builder()
            .factory(move || ledger.make())
            .reset(move |object: &mut Object| {
                resets.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut object.dirty) {
                    Keep::Discard
                } else {
                    Keep::Yes
                }
            })
            .weigher(|_| 1)
            .max_idle(max_idle)
            .local_cache(local)
            .build()
            .unwrap()
    };
    let mut workers: Vec<_> = (0..THREADS).map(|_| Worker::new()).collect();
    let mut expected = Expected::default();
    for &(who, op) in ops {
        step(&pool, &ledger, &mut workers, &mut expected, who, op);
        let stats = pool.stats();
        assert!(stats.idle() <= max_idle, "{op:?}: {stats:?}");
        assert_eq!(stats.in_use, expected.held.len(), "{op:?}: {stats:?}");
        assert_eq!(stats.detached as usize, expected.detached, "{op:?}");
        // Each object is in one place: held, idle, or dropped.
        let alive = expected.held.len() + stats.idle();
        assert_eq!(ledger.alive(), alive, "{op:?}: {stats:?}");
        let made = stats.misses + stats.warmed + stats.added;
        assert_eq!((ledger.made() - expected.refused) as u64, made, "{op:?}");
        assert_eq!(
            made,
            alive as u64 + stats.discarded() + stats.detached,
            "{op:?}"
        );
        assert_eq!(
            resets.load(Ordering::Relaxed),
            expected.resets,
            "no return without reset"
        );
        assert!(stats.discarded() >= expected.gone as u64, "{op:?}");
        assert!(stats.thread_caches * local <= max_idle, "{op:?}");
        assert!(stats.idle_local <= stats.thread_caches * local, "{op:?}");
    }
    for worker in workers {
        worker.end();
    }
    let stats = pool.stats();
    assert_eq!((stats.thread_caches, stats.idle_local), (0, 0));
    drop(expected);
    drop(pool);
    assert_eq!(ledger.alive(), 0, "everything made is dropped exactly once");
}

fn step(
    pool: &Pool<Object>,
    ledger: &Ledger,
    workers: &mut [Worker],
    expected: &mut Expected,
    who: usize,
    op: Op,
) {
    let shared = pool.clone();
    let mut pick = |index: usize| {
        let len = expected.held.len();
        (len > 0).then(|| expected.held.swap_remove(index % len))
    };
    match op {
        Op::Get | Op::TryGet => {
            let (made, idle) = (ledger.made(), pool.stats().idle_shared);
            let object = match op {
                Op::Get => Some(workers[who].run(move || shared.get_owned())),
                _ => workers[who].run(move || shared.try_get_owned()),
            };
            if let Some(object) = object {
                object.hold();
                assert!(!object.dirty, "a spoilt object came back");
                expected.held.push(object);
            }
            let trimmed = pool.stats().trimmed > 0;
            assert!(
                idle == 0 || trimmed || ledger.made() == made,
                "made one despite {idle} idle"
            );
        }
        Op::Put(index) | Op::PutSpoilt(index) => {
            let Some(mut object) = pick(index) else {
                return;
            };
            object.release();
            expected.resets += 1;
            if let Op::PutSpoilt(_) = op {
                object.dirty = true;
                expected.gone += 1;
            }
            workers[who].run(move || drop(object));
        }
        Op::Detach(index) => {
            let Some(object) = pick(index) else { return };
            expected.detached += 1;
            drop(workers[who].run(move || object.detach()));
        }
        Op::Discard(index) => {
            let Some(object) = pick(index) else { return };
            expected.gone += 1;
            workers[who].run(move || object.discard());
        }
        Op::Add => {
            let room = pool.stats().idle() < pool.max_idle();
            let object = ledger.make();
            let result = workers[who].run(move || shared.add(object));
            assert!(room || result.is_err());
            if let Err(object) = result {
                drop(object);
                expected.refused += 1;
            }
        }
        Op::Warm(n) => {
            let before = ledger.made();
            let warmed = workers[who].run(move || shared.warm(n));
            assert_eq!(ledger.made() - before, warmed);
        }
        Op::Trim => {
            workers[who].run(move || shared.trim());
            assert_eq!(pool.stats().idle_shared, 0);
        }
        Op::TrimTo(bytes) => {
            workers[who].run(move || shared.trim_to(bytes));
            // Each weighs one, so that the estimate of the caches is exact.
            let stats = pool.stats();
            assert!(stats.idle_shared <= bytes.saturating_sub(stats.idle_local));
        }
        Op::TrimIdle => {
            let idle = pool.stats().idle();
            let report = workers[who].run(move || shared.trim_idle());
            assert!(report.dropped <= idle);
        }
        Op::End => {
            let (caches, idle) = (pool.stats().thread_caches, pool.stats().idle());
            std::mem::replace(&mut workers[who], Worker::new()).end();
            let stats = pool.stats();
            assert!(stats.thread_caches + 1 >= caches);
            assert_eq!(stats.idle(), idle, "a thread's end loses nothing");
        }
    }
}

fn deep() -> bool {
    std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1")
}

#[test]
fn random_operations_in_lock_step() {
    let (cases, length) = if deep() { (1_000, 1_000) } else { (24, 250) };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let sizes = prop_oneof![
        Just((1, 0)),
        Just((1, 1)),
        Just((5, 0)),
        Just((5, 2)),
        Just((6, 3)),
        Just((16, 4)),
        Just((16, 16)),
        Just((200, 8)),
    ];
    let input = (prop::collection::vec(op(), length), sizes);
    runner
        .run(&input, |(ops, (max_idle, local))| {
            run(&ops, max_idle, local);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_operations_at_once() {
    let rounds = if deep() { 3_000_000 } else { 30_000 };
    for (max_idle, local) in [(4, 0), (8, 2), (64, 8), (64, 1)] {
        let ledger = Ledger::default();
        let pool = {
            let ledger = ledger.clone();
            Pool::builder()
                .factory(move || ledger.make())
                .reset(|object: &mut Object| {
                    if std::mem::take(&mut object.dirty) {
                        Keep::Discard
                    } else {
                        Keep::Yes
                    }
                })
                .weigher(|_| 1)
                .max_idle(max_idle)
                .local_cache(local)
                .build()
                .unwrap()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let trimmer = {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(99);
                while !stop.load(Ordering::Relaxed) {
                    match random.u8(..3) {
                        0 => pool.trim(),
                        1 => pool.trim_to(random.usize(..max_idle)),
                        _ => pool.trim_idle(),
                    };
                    let stats = pool.stats();
                    assert!(stats.idle() <= max_idle, "{stats:?}");
                    thread::yield_now();
                }
            })
        };
        let users: Vec<_> = (0..3)
            .map(|seed| {
                let pool = pool.clone();
                thread::spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..rounds / 3 {
                        if held.len() < 12 && random.bool() {
                            let object = pool.get();
                            object.hold();
                            held.push(object);
                        } else if let Some(mut object) = held.pop() {
                            object.release();
                            object.dirty = random.u8(..32) == 0;
                        }
                    }
                    for object in held {
                        object.release();
                    }
                })
            })
            .collect();
        for user in users {
            user.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        trimmer.join().unwrap();
        let stats = pool.stats();
        assert_eq!(
            (stats.in_use, stats.idle_local, stats.thread_caches),
            (0, 0, 0)
        );
        assert_eq!(ledger.alive(), stats.idle(), "{stats:?}");
        assert_eq!(stats.misses, stats.idle() as u64 + stats.discarded());
        drop(pool);
        assert_eq!(ledger.alive(), 0);
    }
}
