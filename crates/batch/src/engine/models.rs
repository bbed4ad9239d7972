//! Models of the engine: submit, take, withdraw, publish, fetch, and a cell that serves again.
//!
//! The threads run the engine's own code, with one worker whose handler gives each item back. Each
//! model also runs with a guard taken away, and must then fail.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::sync::Arc as Tracked;
use loom::thread;
use overdrive_core::clock::ManualClock;

use super::*;
use crate::sync::{Mutant, without};

type Engine = Shared<Arc<u64>, Arc<u64>, ()>;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn engine(max_size: usize) -> Tracked<Engine> {
    Tracked::new(Shared::new(Rules {
        name: "model".into(),
        max_size,
        max_wait: Duration::MAX,
        gather: Gather::Immediate,
        workers: 1,
        capacity: 8,
        overload: Overload::Wait,
        clock: Arc::new(ManualClock::new()),
        weight: None,
        isolate: None,
        leases: false,
        inline: false,
    }))
}

fn own_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Submits an item without waiting.
fn place(engine: &Engine, item: u64, waker: Option<Waker>) -> Placed {
    let terms = Terms {
        deadline: Deadline::NEVER,
        priority: Priority::Normal,
        must_fit: false,
        waker,
        origin: Origin::here(),
    };
    let placed = engine.place(Arc::new(item), terms);
    placed.unwrap_or_else(|_| panic!("there is room"))
}

/// Sleeps until there is an outcome: a lost wake is a deadlock.
fn fetch(engine: &Engine, mut placed: Placed) -> Outcome<Arc<u64>, Arc<u64>, ()> {
    let waker = own_waker();
    loop {
        match engine.poll(placed, &Context::from_waker(&waker)) {
            Ok(outcome) => return outcome,
            Err(back) => placed = back,
        }
        thread::park();
    }
}

/// What a worker does until the engine is closed.
fn work(engine: &Engine) {
    engine.enlist(0, &own_waker());
    let mut after = After::new();
    let mut next = engine.next(0, Ready::Called, &mut after);
    loop {
        match next {
            Next::Batch(items, _) => {
                next = engine.publish(0, Verdict::Results(items), &mut after);
                continue;
            }
            Next::Park(_) => thread::park(),
            Next::Ended => break,
            Next::Lease | Next::Tick => unreachable!("the rules have neither"),
        }
        next = engine.next(0, Ready::Called, &mut after);
    }
    engine.worker_gone(0);
}

fn spawned_worker(engine: &Tracked<Engine>) -> thread::JoinHandle<()> {
    let engine = Tracked::clone(engine);
    thread::spawn(move || work(&engine))
}

/// Two submitters, each of which gets its own item back.
fn two_submitters(max_size: usize) {
    loom::model(move || {
        let engine = engine(max_size);
        let worker = spawned_worker(&engine);
        let other = {
            let engine = Tracked::clone(&engine);
            thread::spawn(move || {
                let placed = place(&engine, 2, Some(own_waker()));
                assert_eq!(*fetch(&engine, placed).unwrap(), 2);
            })
        };
        let placed = place(&engine, 1, Some(own_waker()));
        assert_eq!(*fetch(&engine, placed).unwrap(), 1);
        other.join().unwrap();
        engine.close();
        worker.join().unwrap();
        let stats = engine.stats();
        assert_eq!((stats.submitted, stats.completed), (2, 2));
    });
}

#[test]
fn loom_each_submitter_gets_its_own() {
    two_submitters(2);
}

#[test]
fn loom_each_submitter_gets_its_own_from_batches_of_one() {
    two_submitters(1);
}

/// One after the other, so that the second finds the first one's cell; the first looks for its
/// outcome only then.
fn cell_serves_again() {
    loom::model(|| {
        let engine = engine(1);
        let first = place(&engine, 1, None);
        let worker = spawned_worker(&engine);
        let fetching = {
            let engine = Tracked::clone(&engine);
            thread::spawn(move || assert_eq!(*fetch(&engine, first).unwrap(), 1))
        };
        let second = place(&engine, 2, None);
        assert_eq!(*fetch(&engine, second).unwrap(), 2);
        fetching.join().unwrap();
        engine.close();
        worker.join().unwrap();
    });
}

#[test]
fn loom_a_cell_serves_again_once_all_outcomes_are_fetched() {
    cell_serves_again();
}

/// A submitter goes while its batch is taken, run, and published: the item is run or withdrawn, and
/// dropped once in any case. A neighbour in the batch does not notice.
fn withdrawal() {
    loom::model(|| {
        let engine = engine(2);
        let item = Arc::new(7);
        let terms = Terms {
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            must_fit: false,
            waker: None,
            origin: Origin::here(),
        };
        let leaver = engine.place(Arc::clone(&item), terms);
        let leaver = leaver.unwrap_or_else(|_| panic!("there is room"));
        let stayer = place(&engine, 8, None);
        let worker = spawned_worker(&engine);
        let leaving = {
            let engine = Tracked::clone(&engine);
            thread::spawn(move || engine.withdraw(leaver))
        };
        assert_eq!(*fetch(&engine, stayer).unwrap(), 8);
        leaving.join().unwrap();
        engine.close();
        worker.join().unwrap();
        let stats = engine.stats();
        assert_eq!(stats.completed + stats.cancelled, 2);
        assert_eq!(stats.submitted, 2);
        assert_eq!(Arc::strong_count(&item), 1, "it is dropped");
    });
}

#[test]
fn loom_an_item_is_run_or_withdrawn() {
    withdrawal();
}

/// The end comes while an item is queued, run, or published: its submitter gets it back, or an
/// error, or the result.
#[test]
fn loom_what_is_abandoned_is_told_to_its_submitter() {
    loom::model(|| {
        let engine = engine(1);
        let placed = place(&engine, 1, None);
        let worker = spawned_worker(&engine);
        let ending = {
            let engine = Tracked::clone(&engine);
            thread::spawn(move || engine.abandon())
        };
        let outcome = fetch(&engine, placed);
        let abandoned = ending.join().unwrap();
        match outcome {
            Ok(item) => assert_eq!((*item, abandoned), (1, 0)),
            Err(SubmitError::Abandoned(_)) => assert_eq!(abandoned, 1),
            Err(other) => panic!("{other:?}"),
        }
        worker.join().unwrap();
    });
}

/// A flush waits for what came before, and misses no end of a batch.
#[test]
fn loom_a_flush_ends_with_the_batch() {
    loom::model(|| {
        let engine = engine(1);
        let placed = place(&engine, 1, None);
        let worker = spawned_worker(&engine);
        let goal = engine.flush();
        let (mut id, waker) = (None, own_waker());
        while engine
            .watch(goal, &mut id, &Context::from_waker(&waker))
            .is_pending()
        {
            thread::park();
        }
        let poll = engine.poll(placed, &Context::from_waker(Waker::noop()));
        assert!(poll.is_ok());
        engine.close();
        worker.join().unwrap();
    });
}

#[test]
#[should_panic]
fn loom_control_a_cell_that_is_over_too_early() {
    without(Mutant::OverTooEarly, withdrawal);
}

#[test]
#[should_panic]
fn loom_control_a_cell_that_serves_again_too_early() {
    without(Mutant::ReopenUnfetched, cell_serves_again);
}
