//! How a pool ends: closed, drained, shut down, or let go.

mod support;

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use overdrive_workstealing::{Deadline, Health, SpawnError, TaskError, TaskHandle};
use support::{Gate, elsewhere, pool};

#[test]
fn drop_of_the_last_handle_lets_accepted_tasks_run() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let (tell, told) = channel();
    for n in 0..5 {
        let tell = tell.clone();
        pool.spawn(move || tell.send(n).unwrap()).unwrap();
    }
    drop(tell);
    let task = pool.submit(|| 6).unwrap();
    drop(pool);
    gate.open();
    assert_eq!(told.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(task.join().unwrap(), 6);
}

#[test]
fn a_closed_pool_runs_what_it_has_and_takes_no_more() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let task = pool.submit(|| 1).unwrap();
    assert!(!pool.is_closed());
    pool.close();
    pool.close();
    assert!(pool.is_closed());
    assert_eq!(pool.health(), Health::Unhealthy);
    assert!(matches!(pool.spawn(|| ()), Err(SpawnError::Closed(_))));
    assert_eq!(pool.join(|| 1, || 2), (1, 2));
    gate.open();
    assert_eq!(task.join().unwrap(), 1);
    let report = pool.drain(Deadline::NEVER);
    assert!(report.is_complete());
    assert_eq!(pool.stats().rejected, 1);
}

/// Tells when its thread has ended.
struct Ends(Sender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _: Result<(), _> = self.0.send(());
    }
}

thread_local!(static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) });

#[test]
fn threads_end_after_the_last_handle_of_the_pool_is_gone() {
    let pool = pool(2);
    let (tell, ended) = channel();
    let (first, second) = (Gate::hold(&pool), Gate::hold(&pool));
    // Both workers are needed, so each runs one.
    let barrier = Arc::new(Barrier::new(2));
    let tasks = [tell.clone(), tell].map(|tell| {
        let barrier = Arc::clone(&barrier);
        let task = pool.submit(move || {
            ENDS.set(Some(Ends(tell)));
            barrier.wait();
        });
        task.unwrap()
    });
    drop(pool);
    first.open();
    second.open();
    // A task's handle is no handle of the pool.
    assert_eq!(ended.iter().count(), 2);
    assert!(tasks.iter().all(TaskHandle::is_finished));
}

#[test]
fn a_drain_reports_what_ended_meanwhile() {
    let pool = pool(1);
    pool.submit(|| ()).unwrap().join().unwrap();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ()).unwrap();
    assert!(!pool.wait_idle(Duration::ZERO));
    let report = pool.drain(Duration::ZERO);
    assert_eq!((report.finished, report.abandoned), (0, 2));
    let (tell, draining) = channel();
    let other = pool.clone();
    let drained = elsewhere(move || {
        tell.send(()).unwrap();
        other.drain(Deadline::NEVER)
    });
    draining.recv().unwrap();
    gate.open();
    let report = drained.recv().unwrap();
    // The tasks may end before the drain has begun.
    assert!(report.is_complete() && report.finished <= 2);
    pool.spawn(|| ()).expect("a drain does not close");
}

#[test]
fn shutdown_waits_for_all_and_ends_the_threads() {
    let pool = pool(1);
    let (tell, ended) = channel();
    let gate = Gate::hold(&pool);
    pool.spawn(|| ENDS.set(Some(Ends(tell)))).unwrap();
    gate.open();
    let report = pool.shutdown(Deadline::NEVER);
    assert!(report.is_complete());
    ended.try_recv().expect("the thread has ended");
    assert!(pool.shutdown(Duration::ZERO).is_complete());
    assert_eq!(pool.join(|| 1, || 2), (1, 2));
    assert!(pool.wait_idle(Duration::ZERO));
}

#[test]
fn at_the_deadline_of_a_shutdown_queued_tasks_are_dropped() {
    let pool = pool(1);
    let gate = Gate::hold(&pool);
    let task = pool.submit(|| 1).unwrap();
    let report = pool.shutdown(Duration::ZERO);
    assert_eq!((report.finished, report.abandoned), (0, 2));
    assert!(matches!(task.join(), Err(TaskError::Abandoned)));
    gate.open();
    assert!(pool.shutdown(Deadline::NEVER).is_complete());
    let stats = pool.stats();
    assert_eq!((stats.abandoned, stats.completed), (1, 1));
}
