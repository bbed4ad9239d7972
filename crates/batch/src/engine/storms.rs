//! Random schedules of the whole engine: submitters that wait, leave, detach, flush and give up,
//! workers whose handlers fail in every way, and an end at any moment.
//!
//! Each item is counted when it is run or comes back, so that one that is lost, or handled twice,
//! shows; each result says whose it is. A hang is a deadlock that shuttle reports.

use std::any::Any;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::AtomicUsize;
use shuttle::thread;

use super::*;
use crate::sync::Ordering;
use crate::workers::Handler;

const SUBMITTERS: u64 = 3;
const ITEMS: u64 = 6;
const WORKERS: usize = 2;

type Engine = Shared<u64, u64, &'static str>;

#[derive(Default)]
struct Tally {
    /// By the handlers.
    run: AtomicUsize,
    /// By errors, or at once.
    came_back: AtomicUsize,
    /// By their submitters, who do not know whether the item was run.
    left: AtomicUsize,
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn own_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

fn one_in(n: u32) -> bool {
    thread_rng().gen_range(0..n) == 0
}

fn engine(inline: bool) -> Engine {
    let gather = [Gather::Immediate, Gather::Tick][usize::from(!inline && one_in(2))];
    let overload = match thread_rng().gen_range(0..3) {
        0 => Overload::Reject,
        1 => Overload::ShedOldest,
        _ => Overload::Wait,
    };
    Shared::new(Rules {
        name: "storm".into(),
        max_size: thread_rng().gen_range(1..4),
        max_wait: Duration::MAX,
        gather,
        workers: WORKERS,
        capacity: 3,
        overload,
        clock: Arc::new(ManualClock::new()),
        weight: None,
        isolate: None,
        leases: false,
        inline,
    })
}

fn verdict(items: Vec<u64>) -> Verdict<u64, &'static str> {
    match thread_rng().gen_range(0..8) {
        0 => Verdict::Failed(Cause::Batch(Arc::new("as told"))),
        1 => Verdict::Failed(Cause::Panicked("as told".into())),
        2 => Verdict::Results(items[1..].to_vec()),
        3 => Verdict::Each(items.into_iter().map(Ok).collect()),
        _ => Verdict::Results(items),
    }
}

fn work(engine: &Engine, worker: usize, tally: &Tally) {
    engine.enlist(worker, &own_waker());
    let mut after = After::new();
    let mut ready = Ready::Called;
    loop {
        let mut next = engine.next(worker, ready, &mut after);
        while let Next::Batch(items, _) = next {
            tally.run.fetch_add(items.len(), Ordering::SeqCst);
            if one_in(2) {
                thread::yield_now();
            }
            next = engine.publish(worker, verdict(items), &mut after);
        }
        ready = match next {
            Next::Tick => {
                thread::yield_now();
                Ready::Ticked
            }
            Next::Park(_) => {
                thread::park();
                [Ready::Called, Ready::Ticked][usize::from(one_in(2))]
            }
            Next::Ended => break,
            Next::Lease | Next::Batch(..) => unreachable!("the rules have no leases"),
        };
    }
    engine.worker_gone(worker);
}

fn submit(engine: &Engine, item: u64, tally: &Tally) {
    let waker = own_waker();
    let terms = Terms {
        deadline: Deadline::NEVER,
        priority: [Priority::Normal, Priority::High][usize::from(one_in(4))],
        must_fit: one_in(4),
        waker: one_in(2).then(|| waker.clone()),
        origin: Origin::here(),
    };
    let Ok(mut placed) = engine.place(item, terms) else {
        tally.came_back.fetch_add(1, Ordering::SeqCst);
        return;
    };
    let mut patience = if one_in(3) {
        thread_rng().gen_range(0..3)
    } else {
        u32::MAX
    };
    let outcome = loop {
        if patience == 0 {
            tally.left.fetch_add(1, Ordering::SeqCst);
            return if one_in(2) {
                engine.withdraw(placed);
            } else {
                engine.detach(placed);
            };
        }
        patience -= 1;
        match engine.poll(placed, &Context::from_waker(&waker)) {
            Ok(outcome) => break outcome,
            Err(back) => placed = back,
        }
        if patience < 3 {
            thread::yield_now();
        } else {
            thread::park();
        }
    };
    match outcome {
        Ok(result) => assert_eq!(result, item, "its own"),
        Err(error) => {
            if let Some(returned) = error.into_inner() {
                assert_eq!(returned, item, "its own");
                tally.came_back.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn flush(engine: &Engine) {
    let (goal, mut id, waker) = (engine.flush(), None, own_waker());
    while engine
        .watch(goal, &mut id, &Context::from_waker(&waker))
        .is_pending()
    {
        thread::park();
    }
}

/// Has the submitters run the batches.
fn employ_submitters(engine: &Arc<Engine>, tally: &Arc<Tally>) -> Arc<dyn Any + Send + Sync> {
    let tally = Arc::clone(tally);
    let handler = Handler {
        at_hand: || Some(()),
        acquire: || Ok(()),
        call: move |(), items: Vec<u64>| {
            tally.run.fetch_add(items.len(), Ordering::SeqCst);
            if one_in(2) {
                thread::yield_now();
            }
            match thread_rng().gen_range(0..6) {
                0 => Err("as told"),
                1 => Ok(items[1..].to_vec()),
                _ => Ok(items),
            }
        },
    };
    crate::inline::employ_submitters(engine, handler)
}

fn storm_on_threads() {
    storm(false);
}

fn storm_on_submitters() {
    storm(true);
}

fn storm(inline: bool) {
    let engine = Arc::new(engine(inline));
    let tally = Arc::new(Tally::default());
    let workers: Vec<_> = (0..if inline { 0 } else { WORKERS })
        .map(|worker| {
            let (engine, tally) = (Arc::clone(&engine), Arc::clone(&tally));
            thread::spawn(move || work(&engine, worker, &tally))
        })
        .collect();
    let _core = inline.then(|| employ_submitters(&engine, &tally));
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|submitter| {
            let (engine, tally) = (Arc::clone(&engine), Arc::clone(&tally));
            thread::spawn(move || {
                for item in 0..ITEMS {
                    submit(&engine, submitter * ITEMS + item, &tally);
                }
                if one_in(2) {
                    flush(&engine);
                }
            })
        })
        .collect();
    let early = one_in(3);
    if early {
        engine.close();
    } else if one_in(3) {
        engine.abandon();
    }
    for submitter in submitters {
        submitter.join().unwrap();
    }
    engine.close();
    for worker in workers {
        worker.join().unwrap();
    }
    let stats = engine.stats();
    assert_eq!(stats.submitted, SUBMITTERS * ITEMS);
    assert_eq!((stats.waiting, stats.queued, stats.running), (0, 0, 0));
    let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    let (run, came_back) = (count(&tally.run), count(&tally.came_back));
    let known = run + came_back;
    let all = (SUBMITTERS * ITEMS) as usize;
    assert!(known <= all, "{known} of {all}: none is handled twice");
    let unknown = all - known;
    let left = count(&tally.left);
    assert!(unknown <= left, "{unknown} lost, {left} left: {stats:?}");
}

fn runs() -> usize {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    if deep { 100_000 } else { 2_000 }
}

#[test]
fn shuttle_nothing_is_lost_and_nobody_hangs() {
    shuttle::check_random(storm_on_threads, runs());
}

#[test]
fn shuttle_nor_with_few_and_far_switches() {
    shuttle::check_pct(storm_on_threads, runs(), 4);
}

#[test]
fn shuttle_nor_where_submitters_run_the_batches() {
    shuttle::check_random(storm_on_submitters, runs());
    shuttle::check_pct(storm_on_submitters, runs(), 4);
}
