//! Panics, shutdowns in the middle of things, and waits that must not hang.

mod support;

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use overdrive_workstealing::{
    Clock, Deadline, Overload, SpawnError, TaskError, ThreadPool, join, scope,
};
use support::{Gate, builder, elsewhere, pool};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}

fn message(result: Result<impl Sized, Box<dyn std::any::Any + Send>>) -> &'static str {
    let Err(payload) = result else {
        panic!("it did not panic");
    };
    payload.downcast_ref::<&'static str>().unwrap()
}

/// The pool is as good as new.
fn still_works(pool: &ThreadPool) {
    assert_eq!(pool.submit(|| 3).unwrap().join().unwrap(), 3);
    assert_eq!(pool.join(|| 1, || 2), (1, 2));
    assert!(pool.wait_idle(Deadline::NEVER));
    let stats = pool.stats();
    assert_eq!(stats.ended(), stats.spawned, "{stats:?}");
}

#[test]
fn a_panic_is_in_the_handle_and_ends_nothing_else() {
    let pool = pool(1);
    let task = pool
        .submit(|| -> () { panic!("no {}", black_box(1)) })
        .unwrap();
    let error = task.join().unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: no 1");
    let payload = error.into_panic().unwrap().into_inner();
    assert_eq!(*payload.downcast::<String>().unwrap(), "no 1");
    let task = pool.submit(|| panic_any(5_u8)).unwrap();
    let error = task.join().unwrap_err();
    assert_eq!(error.to_string(), "the task panicked");
    let resumed = catch_unwind(AssertUnwindSafe(|| error.or_resume())).unwrap_err();
    assert_eq!(*resumed.downcast::<u8>().unwrap(), 5);
    assert!(matches!(
        TaskError::Cancelled.into_panic(),
        Err(TaskError::Cancelled)
    ));
    assert_eq!(pool.stats().panicked, 2);
    still_works(&pool);
}

#[test]
fn panics_that_nobody_else_is_told_of_go_to_the_handler() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let pool = builder(1)
        .on_panic(move |payload| {
            noted
                .lock()
                .unwrap()
                .push(payload.message().map(str::to_owned));
            panic!("and so does the handler");
        })
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| panic!("spawned")).unwrap();
    drop(pool.submit(|| panic!("detached")).unwrap());
    let kept = pool.submit(|| panic!("kept")).unwrap();
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(
        seen,
        [Some("spawned".to_owned()), Some("detached".to_owned())]
    );
    kept.join().unwrap_err();
    assert_eq!(pool.stats().panicked, 3);
    still_works(&pool);
}

#[test]
fn payloads_and_results_whose_drop_panics_end_nothing() {
    let pool = pool(1);
    pool.spawn(|| panic_any(Bomb)).unwrap();
    let gate = Gate::hold(&pool);
    drop(pool.submit(|| panic_any(Bomb)).unwrap());
    drop(pool.submit(|| Bomb).unwrap());
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    let stats = pool.stats();
    assert_eq!((stats.panicked, stats.completed), (2, 2));
    still_works(&pool);
}

#[test]
fn closures_whose_drop_panics_end_nothing() {
    let clock = overdrive_core::clock::ManualClock::new();
    let pool = builder(1).clock(clock.clone()).build().unwrap();
    let holding = || {
        let bomb = Bomb;
        move || {
            let _bomb = &bomb;
        }
    };
    // Run: the closure is dropped at its end, which is a panic of the task.
    let error = pool.submit(holding()).unwrap().join().unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: dropped");
    let gate = Gate::hold(&pool);
    let cancelled = pool.submit(holding()).unwrap();
    assert!(cancelled.cancel());
    let now = Deadline::at(clock.now());
    let expired = pool.task().deadline(now).submit(holding()).unwrap();
    gate.open();
    assert!(matches!(cancelled.join(), Err(TaskError::Cancelled)));
    assert!(matches!(expired.join(), Err(TaskError::DeadlineExceeded)));
    still_works(&pool);
    let gate = Gate::hold(&pool);
    let closed = pool.submit(holding()).unwrap();
    assert_eq!(pool.shutdown(Duration::ZERO).abandoned, 2);
    assert!(matches!(closed.join(), Err(TaskError::Abandoned)));
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
}

#[test]
fn a_clock_that_panics_lets_the_task_run() {
    #[derive(Debug)]
    struct Broken;
    impl Clock for Broken {
        fn now(&self) -> overdrive_core::Timestamp {
            panic!("no time")
        }
    }
    let pool = builder(1).clock(Broken).build().unwrap();
    let task = pool.task().deadline(Duration::ZERO).submit(|| 1);
    assert_eq!(task.unwrap().join().unwrap(), 1);
    still_works(&pool);
}

#[test]
fn a_panicking_side_of_a_join_waits_for_the_other() {
    let pool = pool(1);
    for (a, b, expected) in [(true, false, "a"), (false, true, "b"), (true, true, "a")] {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.join(
                || {
                    ended.fetch_add(1, Ordering::SeqCst);
                    if a {
                        panic!("a");
                    }
                },
                || {
                    ended.fetch_add(1, Ordering::SeqCst);
                    if b {
                        panic!("b");
                    }
                },
            )
        }));
        assert_eq!(message(result), expected);
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    }
    still_works(&pool);
}

/// Panics when it is dropped, even while another panic unwinds, which would end the process.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("went off");
    }
}

#[test]
fn a_result_that_a_panic_leaves_behind_may_panic_too() {
    let pool = pool(1);
    let joined = catch_unwind(AssertUnwindSafe(|| {
        pool.join(|| panic!("a"), || Mine);
    }));
    assert_eq!(message(joined), "a");
    let joined = catch_unwind(AssertUnwindSafe(|| {
        pool.join(|| Mine, || panic!("b"));
    }));
    assert_eq!(message(joined), "b");
    still_works(&pool);
}

#[test]
fn a_panicking_scope_waits_for_its_parts() {
    let pool = pool(2);
    for workers_first in [true, false] {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|s| {
                for _ in 0..10 {
                    s.spawn(|s| {
                        s.spawn(|_| {
                            ended.fetch_add(1, Ordering::SeqCst);
                        });
                        panic_any(Bomb);
                    });
                }
                if workers_first {
                    panic!("scope");
                }
                Bomb
            })
        }));
        let payload = result.err().unwrap();
        assert_eq!(payload.is::<&str>(), workers_first);
        if let Ok(bomb) = payload.downcast::<Bomb>() {
            std::mem::forget(bomb);
        }
        assert_eq!(ended.load(Ordering::SeqCst), 10);
    }
    assert_eq!(pool.stats().panicked, 20);
    still_works(&pool);
}

#[test]
fn the_only_worker_may_wait_for_what_it_submits() {
    fn nest(pool: &ThreadPool, depth: u32) -> u32 {
        if depth == 0 {
            return 0;
        }
        let inner = pool.clone();
        let task = pool.submit(move || nest(&inner, depth - 1));
        task.unwrap().join().unwrap() + 1
    }
    let pool = pool(1);
    let inner = pool.clone();
    let task = pool.submit(move || nest(&inner, 100)).unwrap();
    assert_eq!(task.join().unwrap(), 100);
    let stats = pool.stats();
    assert_eq!((stats.claimed, stats.completed), (100, 101));
}

#[test]
fn pools_of_one_worker_may_wait_for_each_other() {
    let (a, b) = (pool(1), pool(1));
    let a2 = a.clone();
    let task = a.submit(move || {
        let task = b.submit(move || a2.submit(|| 4).unwrap().join().unwrap());
        task.unwrap().join().unwrap()
    });
    assert_eq!(task.unwrap().join().unwrap(), 4);
}

#[test]
fn joins_nest_deeply_on_one_worker() {
    fn down(depth: u32) -> u32 {
        if depth == 0 {
            return 0;
        }
        let (a, b) = join(|| down(depth - 1), || 1);
        a + b
    }
    let pool = builder(1).stack_size(64 << 20).build().unwrap();
    assert_eq!(pool.submit(|| down(5000)).unwrap().join().unwrap(), 5000);
}

#[test]
fn a_worker_that_ends_its_own_pool_does_not_wait_for_itself() {
    let pool = pool(1);
    let (inner, gate) = (pool.clone(), Gate::hold(&pool));
    let task = pool.submit(move || {
        assert!(!inner.wait_idle(Deadline::NEVER));
        assert_eq!(inner.drain(Deadline::NEVER).abandoned, 2);
        let report = inner.shutdown(Deadline::NEVER);
        (
            report.abandoned,
            matches!(inner.spawn(|| ()), Err(SpawnError::Closed(_))),
        )
    });
    let later = pool.submit(|| "still run").unwrap();
    gate.open();
    assert_eq!(task.unwrap().join().unwrap(), (2, true));
    assert_eq!(later.join().unwrap(), "still run");
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
}

#[test]
fn a_shutdown_in_the_middle_of_a_scope_lets_it_end() {
    let pool = pool(1);
    let other = pool.clone();
    let (tell, in_scope) = channel();
    let (go, wait) = channel::<()>();
    let ran = elsewhere(move || {
        let ran = AtomicUsize::new(0);
        let count = || {
            ran.fetch_add(1, Ordering::SeqCst);
        };
        let gate = Gate::hold(&other);
        let count = &count;
        other.scope(move |s| {
            s.spawn(move |_| count());
            tell.send(gate).unwrap();
            wait.recv().unwrap();
            s.spawn(move |s| {
                count();
                s.spawn(move |_| count());
            });
        });
        ran.into_inner()
    });
    let gate = in_scope.recv().unwrap();
    assert_eq!(pool.shutdown(Duration::ZERO).abandoned, 2);
    go.send(()).unwrap();
    assert_eq!(ran.recv().unwrap(), 3);
    gate.open();
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
    assert_eq!(pool.stats().abandoned, 0);
}

#[test]
fn closing_releases_those_who_wait_for_room() {
    let pool = builder(1)
        .capacity(1)
        .overload(Overload::Wait)
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    let other = pool.clone();
    let (tell, about_to) = channel();
    let refused = elsewhere(move || {
        tell.send(()).unwrap();
        matches!(other.spawn(|| ()), Err(SpawnError::Closed(_)))
    });
    about_to.recv().unwrap();
    pool.close();
    assert!(refused.recv().unwrap());
    gate.open();
}

#[test]
fn the_last_handle_may_go_on_a_worker() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let inner = pool.clone();
    let task = pool.submit(move || drop(inner)).unwrap();
    drop(pool);
    gate.open();
    task.join().unwrap();
}

#[test]
fn a_pool_may_be_used_from_a_destructor_of_a_thread_local() {
    struct AtExit(ThreadPool, std::sync::mpsc::Sender<u32>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let (a, b) = self.0.join(|| 1, || 2);
            let c = self.0.submit(|| 3).unwrap().join().unwrap();
            self.1.send(a + b + c).unwrap();
        }
    }
    thread_local!(static AT_EXIT: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) });
    let pool = pool(1);
    let (tell, told) = channel();
    let thread = thread::spawn(move || AT_EXIT.set(Some(AtExit(pool, tell))));
    thread.join().unwrap();
    assert_eq!(told.recv().unwrap(), 6);
}

#[test]
fn a_waker_that_panics_ends_nothing() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let mut task = pool.submit(|| 1).unwrap();
    let waker = Arc::new(Panics).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let pinned = std::pin::Pin::new(&mut task);
    assert!(Future::poll(pinned, &mut cx).is_pending());
    gate.open();
    assert_eq!(task.join().unwrap(), 1);
    still_works(&pool);
}

#[test]
fn scopes_and_joins_of_many_threads_do_not_disturb_each_other() {
    let pool = pool(2);
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                pool.install(|| {
                    for _ in 0..100 {
                        let total = AtomicUsize::new(0);
                        scope(|s| {
                            for n in 0..10 {
                                let total = &total;
                                s.spawn(move |_| {
                                    let (a, b) = join(|| n, || n);
                                    total.fetch_add(a + b, Ordering::Relaxed);
                                });
                            }
                        });
                        assert_eq!(total.into_inner(), 90);
                    }
                });
            });
        }
    });
    still_works(&pool);
}
