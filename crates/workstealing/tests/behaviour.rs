//! What the pool promises when nothing goes wrong.

mod support;

use std::future::Future;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use overdrive_workstealing::{
    CancelOnDrop, Deadline, Health, Overload, PanicPayload, Priority, Scope, SpawnError, TaskError,
    TaskHandle, ThreadPool, ThreadPoolBuilder, ThreadPoolStats, blocking, join, scope,
};
use support::{Gate, builder, elsewhere, pool};

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = join(|| fib(n - 1), || fib(n - 2));
    a + b
}

#[test]
fn types_are_send_and_sync() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<ThreadPool>();
    sync::<ThreadPool>();
    send::<ThreadPoolBuilder>();
    send::<TaskHandle<std::cell::Cell<u8>>>();
    sync::<TaskHandle<std::cell::Cell<u8>>>();
    send::<CancelOnDrop<u8>>();
    send::<TaskError>();
    sync::<TaskError>();
    sync::<PanicPayload>();
    send::<Scope<'_>>();
    sync::<Scope<'_>>();
}

#[test]
fn a_submitted_task_gives_its_result() {
    let pool = pool(2);
    let task = pool
        .submit(|| thread::current().name().map(str::to_owned))
        .unwrap();
    let name = task.join().unwrap().unwrap();
    assert!(name.starts_with("overdrive-workstealing-"), "{name}");
    assert_eq!((pool.name(), pool.workers()), ("test", 2));
}

#[test]
fn a_handle_can_be_asked_or_waited_for_with_a_limit() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let task = pool.submit(|| 7).unwrap();
    assert!(!task.is_finished());
    let task = task.try_join().unwrap_err();
    let task = task.join_timeout(Duration::ZERO).unwrap_err();
    gate.open();
    let result = task.join_timeout(Duration::MAX);
    assert_eq!(result.unwrap().unwrap(), 7);
    assert!(pool.wait_idle(Deadline::NEVER));
    let task = pool.submit(|| 8).unwrap();
    assert!(pool.wait_idle(Deadline::NEVER));
    assert!(task.is_finished());
    assert_eq!(task.try_join().unwrap().unwrap(), 8);
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_handle_is_a_future() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut task = pin!(pool.submit(|| "ready").unwrap());
    assert!(task.as_mut().poll(&mut cx).is_pending());
    assert!(task.as_mut().poll(&mut cx).is_pending());
    gate.open();
    // A waker is called after the figures have changed: wait for the worker to come back.
    pool.wait_idle(Deadline::NEVER);
    pool.submit(|| ()).unwrap().join().unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(result) = task.as_mut().poll(&mut cx) else {
        panic!("it has ended");
    };
    assert_eq!(result.unwrap(), "ready");
}

#[test]
fn a_handle_that_goes_lets_its_waker_go() {
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let mut task = pool.submit(|| ()).unwrap();
    let idle = Arc::new(Idle);
    let waker = Waker::from(Arc::clone(&idle));
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut task).poll(&mut cx).is_pending());
    drop(task);
    drop(waker);
    assert_eq!(Arc::strong_count(&idle), 1);
    gate.open();
}

#[test]
fn higher_priorities_run_first() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let order = Arc::new(Mutex::new(Vec::new()));
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for n in 0..2 {
            let order = Arc::clone(&order);
            let note = move || order.lock().unwrap().push((priority, n));
            pool.task().priority(priority).spawn(note).unwrap();
        }
    }
    let stats = pool.stats();
    let queued = (stats.queued_high, stats.queued_normal, stats.queued_low);
    assert_eq!((queued, stats.queued(), stats.running), ((2, 2, 2), 6, 1));
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    let order: Vec<_> = order.lock().unwrap().iter().map(|(p, _)| *p).collect();
    let (high, normal, low) = (Priority::High, Priority::Normal, Priority::Low);
    assert_eq!(order, [high, high, normal, normal, low, low]);
}

#[test]
fn a_low_task_is_not_starved() {
    let pool = builder(1)
        .starvation_bound(NonZeroU32::new(3).unwrap())
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    let order = Arc::new(Mutex::new(Vec::new()));
    let spawn = |priority, text| {
        let order = Arc::clone(&order);
        let note = move || order.lock().unwrap().push(text);
        pool.task().priority(priority).spawn(note).unwrap();
    };
    spawn(Priority::Low, "low");
    for _ in 0..10 {
        spawn(Priority::High, "high");
    }
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    let place = order.lock().unwrap().iter().position(|text| *text == "low");
    assert_eq!(place, Some(3));
}

#[test]
fn a_full_queue_gives_the_task_back() {
    let pool = builder(1).capacity(4).build().unwrap();
    let gate = Gate::hold(&pool);
    assert_eq!(pool.health(), Health::Healthy);
    for _ in 0..4 {
        pool.spawn(|| ()).unwrap();
    }
    assert_eq!(pool.health(), Health::Degraded);
    let refused = pool.submit(|| 5).unwrap_err();
    assert!(refused.is_full());
    assert_eq!(refused.to_string(), "the queue of the thread pool is full");
    assert_eq!(refused.into_inner()(), 5);
    assert!(matches!(pool.try_spawn(|| ()), Err(SpawnError::Full(_))));
    assert_eq!(pool.stats().rejected, 2);
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    assert_eq!(pool.stats().completed, 5);
}

#[test]
fn a_full_queue_may_have_the_caller_run_the_task() {
    let pool = builder(1)
        .capacity(1)
        .overload(Overload::CallerRuns)
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    let here = thread::current().id();
    let task = pool.submit(move || thread::current().id() == here).unwrap();
    assert!(task.is_finished() && !task.cancel());
    assert!(task.join().unwrap());
    assert!(pool.try_spawn(|| ()).is_err());
    assert_eq!(pool.stats().caller_ran, 1);
    gate.open();
}

#[test]
fn a_full_queue_may_have_the_caller_wait_for_room() {
    let pool = builder(1)
        .capacity(1)
        .overload(Overload::Wait)
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    let other = pool.clone();
    let (tell, about_to) = channel();
    let spawned = elsewhere(move || {
        tell.send(()).unwrap();
        other.submit(|| 9).unwrap().join().unwrap()
    });
    about_to.recv().unwrap();
    assert!(spawned.try_recv().is_err());
    gate.open();
    assert_eq!(spawned.recv().unwrap(), 9);
    assert!(pool.wait_idle(Deadline::NEVER));
    let stats = pool.stats();
    assert_eq!((stats.rejected, stats.caller_ran, stats.spawned), (0, 0, 3));
}

#[test]
fn a_worker_never_waits_for_room_in_a_queue() {
    let pool = builder(1)
        .capacity(1)
        .overload(Overload::Wait)
        .build()
        .unwrap();
    let inner = pool.clone();
    let task = pool.submit(move || {
        let tasks = [0, 1, 2].map(|n| inner.submit(move || n).unwrap());
        tasks
            .into_iter()
            .map(|task| task.join().unwrap())
            .sum::<i32>()
    });
    assert_eq!(task.unwrap().join().unwrap(), 3);
    assert_eq!(pool.stats().caller_ran, 2);
}

#[test]
fn a_cancelled_task_does_not_run_and_frees_its_place() {
    let pool = builder(1).capacity(1).build().unwrap();
    let gate = Gate::hold(&pool);
    let captured = Arc::new(());
    let kept = Arc::clone(&captured);
    let task = pool.submit(move || drop(kept)).unwrap();
    assert!(task.cancel());
    assert_eq!(Arc::strong_count(&captured), 1);
    assert!(!task.cancel());
    assert!(matches!(task.join(), Err(TaskError::Cancelled)));
    let task = pool.submit(|| ()).unwrap();
    gate.open();
    pool.wait_idle(Deadline::NEVER);
    assert!(!task.cancel());
    task.join().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.cancelled, stats.completed), (1, 2));
}

#[test]
fn dropping_a_handle_detaches_and_cancel_on_drop_cancels() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let ran = Arc::new(AtomicUsize::new(0));
    let task = || {
        let ran = Arc::clone(&ran);
        pool.submit(move || ran.fetch_add(1, Ordering::SeqCst))
            .unwrap()
    };
    drop(task());
    drop(task().cancel_on_drop());
    drop(task().cancel_on_drop().into_handle());
    let kept = task().cancel_on_drop();
    assert!(!kept.is_finished());
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    assert!(kept.is_finished());
    drop(kept);
    assert_eq!(ran.load(Ordering::SeqCst), 3);
    assert_eq!(pool.stats().cancelled, 1);
}

#[test]
fn a_task_whose_deadline_passed_does_not_run() {
    let clock = overdrive_core::clock::ManualClock::new();
    let pool = builder(1).clock(clock.clone()).build().unwrap();
    let gate = Gate::hold(&pool);
    let second = Duration::from_secs(1);
    let submit = |seconds| {
        let deadline = Deadline::after_on(&clock, second * seconds);
        pool.task()
            .deadline(deadline)
            .submit(move || seconds)
            .unwrap()
    };
    let (late, in_time) = (submit(1), submit(2));
    clock.advance(second);
    gate.open();
    assert!(matches!(late.join(), Err(TaskError::DeadlineExceeded)));
    assert_eq!(in_time.join().unwrap(), 2);
    assert_eq!(pool.stats().expired, 1);
}

#[test]
fn join_borrows_and_recurses() {
    for workers in 1..4 {
        let pool = pool(workers);
        assert_eq!(pool.install(|| fib(16)), 987);
        assert_eq!(pool.submit(|| fib(20)).unwrap().join().unwrap(), 6765);
        let mut numbers: Vec<u32> = (0..100).collect();
        let (low, high) = numbers.split_at_mut(50);
        pool.join(|| low.reverse(), || high.reverse());
        assert_eq!((numbers[0], numbers[50]), (49, 99));
        let stats = pool.stats();
        assert_eq!(stats.spawned, stats.completed);
    }
}

#[test]
fn free_join_outside_a_pool_uses_the_global_one() {
    assert_eq!(fib(10), 55);
    assert_eq!(scope(|_| 3), 3);
    scope(|s| s.spawn(|_| ()));
    assert_eq!(ThreadPool::global().stats().spawned, 1);
    assert_eq!(ThreadPool::global().name(), "global");
}

#[test]
fn installed_code_uses_that_pool_on_this_thread() {
    let (outer, inner) = (pool(1), pool(1));
    let here = thread::current().id();
    outer.install(|| {
        assert_eq!(thread::current().id(), here);
        inner.install(|| scope(|s| s.spawn(|_| ())));
        assert_eq!((outer.stats().spawned, inner.stats().spawned), (0, 1));
        scope(|s| s.spawn(|_| ()));
        assert_eq!((outer.stats().spawned, inner.stats().spawned), (1, 1));
    });
}

#[test]
fn a_scope_ends_after_all_that_it_spawned() {
    let pool = pool(3);
    let ran = AtomicUsize::new(0);
    let answer = pool.scope(|s| {
        for _ in 0..20 {
            s.spawn(|s| {
                ran.fetch_add(1, Ordering::SeqCst);
                s.spawn(|s| {
                    s.spawn(|_| {
                        ran.fetch_add(1, Ordering::SeqCst);
                    });
                });
            });
        }
        "done"
    });
    assert_eq!((answer, ran.load(Ordering::SeqCst)), ("done", 40));
    assert_eq!(pool.stats().completed, 60);
}

#[test]
fn both_sides_of_a_join_run_at_once_when_a_worker_is_free() {
    let pool = pool(1);
    let barrier = Barrier::new(2);
    pool.join(|| barrier.wait(), || barrier.wait());
}

#[test]
fn parts_run_at_once_when_the_queue_is_full() {
    let pool = builder(1).capacity(1).build().unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    let mut squares = [0; 5];
    pool.scope(|s| {
        for (n, square) in squares.iter_mut().enumerate() {
            s.spawn(move |_| *square = n * n);
        }
    });
    assert_eq!(squares, [0, 1, 4, 9, 16]);
    assert_eq!(pool.install(|| fib(10)), 55);
    gate.open();
    assert_eq!(pool.stats().rejected, 0);
    assert!(pool.stats().caller_ran >= 5);
}

#[test]
fn parts_have_the_priority_of_their_task() {
    let pool = pool(1);
    let inner = pool.clone();
    let task = pool.task().priority(Priority::Low).submit(move || {
        inner.scope(|s| {
            s.spawn(|_| ());
            inner.stats().queued_low
        })
    });
    assert_eq!(task.unwrap().join().unwrap(), 1);
}

/// A waiting thread that ran whatever is queued would meet the lock that it holds itself.
#[test]
fn a_waiting_thread_runs_nothing_unrelated() {
    let pool = pool(2);
    let inner = pool.clone();
    let (tell_begun, begun) = channel();
    let (tell_queued, queued) = channel();
    let task = pool.submit(move || {
        let lock = Arc::new(Mutex::new(()));
        let held = lock.lock().unwrap();
        let unrelated = Arc::clone(&lock);
        let spawner = inner.clone();
        let (unrelated, ()) = inner.join(
            move || {
                begun.recv().unwrap();
                let task = spawner.submit(move || drop(unrelated.lock().unwrap()));
                tell_queued.send(()).unwrap();
                task.unwrap()
            },
            move || {
                tell_begun.send(()).unwrap();
                queued.recv().unwrap();
            },
        );
        drop(held);
        unrelated.join().unwrap();
    });
    task.unwrap().join().unwrap();
}

#[test]
fn figures_add_up() {
    fn check(stats: &ThreadPoolStats) {
        let sum = stats.ended() + stats.outstanding() as u64;
        assert_eq!(stats.spawned, sum, "{stats:?}");
        assert!(stats.queued() <= stats.capacity, "{stats:?}");
    }
    let pool = builder(3).capacity(8).build().unwrap();
    thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                for n in 0..300 {
                    let task = pool.submit(move || assert!(n % 50 != 0));
                    match (task, n % 3) {
                        (Ok(task), 0) => drop(task.cancel()),
                        (Ok(task), 1) => drop(task.join()),
                        _ => check(&pool.stats()),
                    }
                }
            });
        }
    });
    assert!(pool.wait_idle(Deadline::NEVER));
    let stats = pool.stats();
    check(&stats);
    assert_eq!(stats.spawned + stats.rejected, 900);
}

#[test]
fn a_batch_is_spawned_until_one_is_refused() {
    let pool = builder(1).capacity(3).build().unwrap();
    let gate = Gate::hold(&pool);
    let ran = Arc::new(AtomicUsize::new(0));
    let tasks = (0..5).map(|_| {
        let ran = Arc::clone(&ran);
        move || {
            ran.fetch_add(1, Ordering::SeqCst);
        }
    });
    let refused = pool.spawn_batch(tasks).unwrap_err();
    assert!(refused.is_full());
    let rest: Vec<_> = refused.into_inner().collect();
    assert_eq!(rest.len(), 2);
    gate.open();
    assert!(pool.wait_idle(Deadline::NEVER));
    assert_eq!(pool.spawn_batch(rest).unwrap(), 2);
    assert!(pool.wait_idle(Deadline::NEVER));
    assert_eq!(ran.load(Ordering::SeqCst), 5);
}

#[test]
fn fan_out_keeps_the_order_and_the_limit() {
    let pool = pool(3);
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = pool.fan_out(0..50_usize, NonZeroUsize::new(2).unwrap(), |n| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::yield_now();
        now.fetch_sub(1, Ordering::SeqCst);
        assert!(n != 7);
        n * 2
    });
    assert!(most.into_inner() <= 2);
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(double) => assert_eq!(*double, 2 * n),
            Err(error) => assert!(n == 7 && matches!(error, TaskError::Panicked(_))),
        }
    }
    assert_eq!(results.len(), 50);
}

#[test]
fn a_full_queue_is_waited_for_no_longer_than_said() {
    let pool = builder(1)
        .capacity(1)
        .overload(Overload::WaitFor(Duration::from_millis(1)))
        .build()
        .unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    assert!(pool.spawn(|| ()).unwrap_err().is_full());
    gate.open();
}

#[test]
fn what_finds_no_room_may_run_here_in_one_call() {
    let pool = builder(1).capacity(1).build().unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn_or_run(|| ()).unwrap();
    let here = thread::current().id();
    let task = pool.submit_or_run(move || thread::current().id() == here);
    assert!(task.unwrap().join().unwrap());
    assert_eq!(pool.stats().caller_ran, 1);
    pool.close();
    assert!(matches!(
        pool.spawn_or_run(|| ()),
        Err(SpawnError::Closed(_))
    ));
    gate.open();
}

/// The only worker is held, so no worker can say that it is too late.
#[test]
fn a_deadline_ends_the_wait_for_a_task_that_is_still_queued() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let soon = || pool.task().deadline(Duration::from_millis(1));
    let joined = soon().submit(|| ()).unwrap();
    assert!(matches!(joined.join(), Err(TaskError::DeadlineExceeded)));
    let awaited = soon().submit(|| ()).unwrap();
    let result = overdrive_core::park::block_on(awaited, || Duration::MAX);
    assert!(matches!(result, Some(Err(TaskError::DeadlineExceeded))));
    assert_eq!(pool.stats().expired, 2);
    gate.open();
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
}

#[test]
fn a_worker_that_blocks_is_stood_in_for() {
    let pool = builder(1).spare_workers(1).build().unwrap();
    for _ in 0..3 {
        let (tell, told) = channel();
        let blocked = pool.submit(move || blocking(|| told.recv().unwrap()));
        let inner = pool.clone();
        let helped = pool.submit(move || {
            assert_eq!(inner.stats().blocked, 1);
            tell.send(5).unwrap();
        });
        assert_eq!(blocked.unwrap().join().unwrap(), 5);
        helped.unwrap().join().unwrap();
    }
    assert_eq!(blocking(|| 3), 3);
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
    assert_eq!(pool.stats().workers, 0);
}

/// Four tasks that wait for each other, on a pool that begins with one worker.
#[test]
fn a_pool_grows_when_its_workers_block() {
    let pool = builder(1)
        .max_workers(4)
        .scaling_interval(Duration::from_millis(1))
        .build()
        .unwrap();
    let barrier = Arc::new(Barrier::new(4));
    for _ in 0..4 {
        let barrier = Arc::clone(&barrier);
        pool.spawn(move || {
            barrier.wait();
        })
        .unwrap();
    }
    assert!(pool.wait_idle(Deadline::NEVER));
    assert_eq!(pool.stats().completed, 4);
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
}

#[test]
fn a_pool_shrinks_when_its_workers_are_idle() {
    let pool = builder(1)
        .max_workers(4)
        .scaling_interval(Duration::from_millis(1))
        .idle_timeout(Duration::from_millis(1))
        .build()
        .unwrap();
    let barrier = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let barrier = Arc::clone(&barrier);
        pool.spawn(move || {
            barrier.wait();
        })
        .unwrap();
    }
    assert!(pool.wait_idle(Deadline::NEVER));
    while pool.stats().workers > 1 {
        thread::yield_now();
    }
    assert_eq!(pool.submit(|| 4).unwrap().join().unwrap(), 4);
}
