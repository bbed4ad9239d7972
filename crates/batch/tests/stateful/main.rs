//! Random operations in lock step with a sequential specification.
//!
//! The handler stands still until the test says how it returns, so that the specification knows
//! after each operation which items are where. The seeds are fixed. `OVERDRIVE_DEEP=1` runs more.

mod line;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_batch::{
    Batcher, BatcherBuilder, Deadline, Flush, Gather, Overload, Priority, SubmitError, SubmitOwned,
    Ticket, TrySubmitError,
};
use overdrive_core::clock::ManualClock;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::line::{Line, Queued};

#[derive(Clone, Copy, Debug)]
enum How {
    Fail,
    Long,
    Panic,
    Short,
    Well,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Advance(u64),
    Cancel(usize),
    Close,
    Detach(usize),
    Flush,
    Poll(usize),
    Return(usize, How),
    Submit(Option<u64>, Priority, usize),
    TrySubmit(usize),
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    workers: usize,
    max_size: usize,
    room: usize,
    gather: Gather,
    overload: Overload,
    max_weight: usize,
}

/// No item weighs more.
const HEAVIEST: usize = 5;

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        5 => Just(How::Well),
        1 => Just(How::Fail),
        1 => Just(How::Long),
        1 => Just(How::Panic),
        1 => Just(How::Short),
    ];
    let priority = prop_oneof![
        6 => Just(Priority::Normal),
        1 => Just(Priority::High),
        1 => Just(Priority::Low),
    ];
    prop_oneof![
        20 => (prop::option::weighted(0.3, 0..4_u64), priority, 1..=HEAVIEST)
            .prop_map(|(within, priority, weight)| Op::Submit(within, priority, weight)),
        6 => (1..=HEAVIEST).prop_map(Op::TrySubmit),
        4 => any::<usize>().prop_map(Op::Detach),
        8 => any::<usize>().prop_map(Op::Cancel),
        16 => (any::<usize>(), how).prop_map(|(which, how)| Op::Return(which, how)),
        4 => (1..3_u64).prop_map(Op::Advance),
        4 => any::<usize>().prop_map(Op::Poll),
        3 => Just(Op::Flush),
        1 => Just(Op::Close),
        1 => Just(Op::GiveUp),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let gather = (0..4_u8, any::<usize>());
    let overload = prop_oneof![
        3 => Just(Overload::Wait),
        1 => Just(Overload::Reject),
        1 => Just(Overload::ShedOldest),
    ];
    let max_weight = prop_oneof![Just(usize::MAX), 1..12_usize];
    (
        1..3_usize,
        1..4_usize,
        0..4_usize,
        gather,
        overload,
        max_weight,
    )
        .prop_map(
            |(workers, max_size, room, (gather, n), overload, max_weight)| Shape {
                max_weight,
                workers,
                max_size,
                room,
                gather: match gather {
                    0 => Gather::Immediate,
                    1 => Gather::Tick,
                    _ => Gather::Linger {
                        min_size: 1 + n % max_size,
                    },
                },
                overload,
            },
        )
}

/// An item that is counted while it lives.
struct Item(u64, Arc<AtomicUsize>, usize);

impl Item {
    fn new(id: u64, alive: &Arc<AtomicUsize>, weight: usize) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(id, Arc::clone(alive), weight)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

type Error = SubmitError<Item, &'static str>;

enum Held {
    Future(SubmitOwned<Item, u64, &'static str>),
    Ticket(Ticket<Item, u64, &'static str>),
}

impl Held {
    fn poll(&mut self) -> Poll<Result<u64, Error>> {
        let mut cx = Context::from_waker(Waker::noop());
        match self {
            Self::Future(future) => Pin::new(future).poll(&mut cx),
            Self::Ticket(ticket) => Pin::new(ticket).poll(&mut cx),
        }
    }
}

/// What the specification says of an item's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Abandoned { returned: bool },
    Closed,
    Expired,
    Failed,
    Full,
    Panicked,
    Result(u64),
    Shed,
    TooHeavy,
    Wrong { expected: usize, got: usize },
}

fn end_of(outcome: Result<u64, Error>) -> End {
    match outcome {
        Ok(result) => End::Result(result),
        Err(SubmitError::Abandoned(item)) => End::Abandoned {
            returned: item.is_some(),
        },
        Err(SubmitError::Batch(error)) => {
            assert_eq!(*error, "as told");
            End::Failed
        }
        Err(SubmitError::Closed(_)) => End::Closed,
        Err(SubmitError::DeadlineExceeded(_)) => End::Expired,
        Err(SubmitError::Full(_)) => End::Full,
        Err(SubmitError::Panicked(message)) => {
            assert_eq!(&*message, "as told");
            End::Panicked
        }
        Err(SubmitError::Shed(_)) => End::Shed,
        Err(SubmitError::TooHeavy(_)) => End::TooHeavy,
        Err(SubmitError::WrongResultCount { expected, got }) => End::Wrong { expected, got },
        Err(_) => unreachable!("no further variants"),
    }
}

struct Running {
    ids: Vec<u64>,
    number: u64,
    orphan: bool,
    go: Go,
}

type Flushing<'b> = Pin<Box<Flush<'b, Item, u64, &'static str>>>;

/// The specification, and what the test holds.
struct Model<'b> {
    shape: Shape,
    now: u64,
    queue: Line,
    running: Vec<Running>,
    closed: bool,
    flush_mark: u64,
    next_id: u64,
    held: Vec<(u64, Held)>,
    ended: Vec<(u64, End)>,
    flushes: Vec<(u64, Flushing<'b>)>,
    started: Receiver<Started>,
    submitted: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    expired: u64,
    abandoned: u64,
    rejected: u64,
    shed: u64,
    batches: u64,
}

impl Model<'_> {
    fn capacity(&self) -> usize {
        self.shape.max_size + self.shape.room
    }

    fn max(&self) -> (usize, usize) {
        (self.shape.max_size, self.shape.max_weight)
    }

    /// Starts what must start now, and sees that exactly that has.
    fn start(&mut self) {
        let mut expected = Vec::new();
        while self.running.len() + expected.len() < self.shape.workers {
            let Some(oldest) = self.queue.oldest() else {
                break;
            };
            let enough = match self.shape.gather {
                Gather::Linger { min_size } => min_size,
                _ => 1,
            };
            let ripe = oldest < self.flush_mark || self.queue.has_complete(self.shape.max_weight);
            if self.queue.live() < enough && !self.closed && !ripe {
                break;
            }
            let taken = self.queue.take(self.now, self.max());
            self.expired += taken.expired.len() as u64;
            let late = taken.expired.iter().map(|&id| (id, End::Expired));
            self.ended.extend(late);
            if !taken.ids.is_empty() {
                expected.push(taken);
            }
        }
        self.batches += expected.len() as u64;
        for _ in 0..expected.len() {
            let limit = Duration::from_secs(20);
            let (ids, go) = self.started.recv_timeout(limit).expect("a batch starts");
            let place = expected.iter().position(|batch| batch.ids == ids);
            let place = place.unwrap_or_else(|| panic!("{ids:?} starts, but should not"));
            let number = expected.swap_remove(place).number;
            let orphan = false;
            self.running.push(Running {
                ids,
                number,
                orphan,
                go,
            });
        }
        assert!(self.started.try_recv().is_err(), "no batch too many");
    }

    fn run(&mut self, returned: usize, how: How) {
        let batch = self.running.swap_remove(returned);
        (batch.go)(how);
        if batch.orphan {
            return;
        }
        let expected = batch.ids.len();
        let end = |id| match how {
            How::Fail => End::Failed,
            How::Panic => End::Panicked,
            How::Well => End::Result(id * 10),
            How::Short => End::Wrong {
                expected,
                got: expected - 1,
            },
            How::Long => End::Wrong {
                expected,
                got: expected + 1,
            },
        };
        match how {
            How::Well => self.completed += expected as u64,
            _ => self.failed += expected as u64,
        }
        self.ended.extend(batch.ids.iter().map(|&id| (id, end(id))));
    }

    /// What becomes of an item that comes when there may be no room.
    fn make_room(&mut self, full: bool, priority: Priority) -> Option<End> {
        match self.shape.overload {
            _ if !full => return None,
            Overload::Wait => return None,
            Overload::ShedOldest => {
                if let Some(oldest) = self.queue.shed(priority) {
                    self.shed += 1;
                    self.ended.push((oldest.id, End::Shed));
                    return None;
                }
            }
            _ => {}
        }
        self.rejected += 1;
        Some(End::Full)
    }

    fn close(&mut self) {
        self.closed = true;
        for refused in self.queue.truncate(self.capacity()) {
            self.rejected += 1;
            self.ended.push((refused.id, End::Closed));
        }
    }

    fn give_up(&mut self) {
        self.close();
        for left in self.queue.truncate(0) {
            self.abandoned += 1;
            self.ended
                .push((left.id, End::Abandoned { returned: true }));
        }
        for batch in self.running.iter_mut().filter(|batch| !batch.orphan) {
            batch.orphan = true;
            self.abandoned += batch.ids.len() as u64;
            let end = End::Abandoned { returned: false };
            self.ended.extend(batch.ids.iter().map(|&id| (id, end)));
        }
    }

    /// Waits until the figures are as they must be: the workers go on by themselves.
    fn check(&mut self, batcher: &Batcher<Item, u64, &'static str>, op: Op) {
        let queued = self.queue.live().min(self.capacity());
        let waiting = self.queue.live() - queued;
        let live = self.running.iter().filter(|batch| !batch.orphan);
        let running: usize = live.map(|batch| batch.ids.len()).sum();
        let mut left = 20_000_000_u64;
        let stats = loop {
            let stats = batcher.stats();
            let over = (stats.completed, stats.failed, stats.expired);
            if over == (self.completed, self.failed, self.expired) || left == 0 {
                break stats;
            }
            left -= 1;
            std::thread::yield_now();
        };
        let seen = (stats.waiting, stats.queued, stats.running);
        assert_eq!(seen, (waiting, queued, running), "{op:?} {stats:?}");
        assert_eq!(stats.submitted, self.submitted, "{op:?}");
        assert_eq!(stats.completed, self.completed, "{op:?}");
        assert_eq!(stats.failed, self.failed, "{op:?}");
        assert_eq!(stats.cancelled, self.cancelled, "{op:?}");
        assert_eq!(stats.expired, self.expired, "{op:?}");
        assert_eq!(stats.abandoned, self.abandoned, "{op:?}");
        assert_eq!(stats.rejected, self.rejected, "{op:?}");
        assert_eq!(stats.shed, self.shed, "{op:?}");
        assert_eq!(stats.batches, self.batches, "{op:?}");
        assert!(stats.largest_batch <= self.shape.max_size);
        let in_work = (stats.waiting + stats.queued + stats.running) as u64;
        let over = stats.completed + stats.failed + stats.cancelled + stats.expired;
        assert_eq!(
            stats.submitted,
            in_work + over + stats.shed + stats.abandoned + stats.rejected
        );
        let closes = stats.closed_full + stats.closed_idle + stats.closed_linger;
        assert_eq!(
            stats.batches,
            closes + stats.closed_flush + stats.closed_at_end
        );
        for (id, end) in self.ended.drain(..) {
            // A submitter that has gone is told nothing.
            let Some(place) = self.held.iter().position(|(held, _)| *held == id) else {
                continue;
            };
            let (_, mut held) = self.held.swap_remove(place);
            match held.poll() {
                Poll::Ready(outcome) => assert_eq!(end_of(outcome), end, "{op:?} item {id}"),
                Poll::Pending => panic!("{op:?}: item {id} waits, but has ended: {end:?}"),
            }
        }
        let live = self.running.iter().filter(|batch| !batch.orphan);
        let running = live.map(|batch| batch.number);
        let oldest = running.chain(self.queue.oldest()).min();
        let mut cx = Context::from_waker(Waker::noop());
        self.flushes.retain_mut(|(mark, flush)| {
            let met = oldest.is_none_or(|oldest| oldest >= *mark);
            assert_eq!(flush.as_mut().poll(&mut cx).is_ready(), met, "{op:?}");
            !met
        });
    }
}

/// What the handler tells of a batch: its items, and how it is let go.
type Started = (Vec<u64>, Go);
type Go = Box<dyn FnOnce(How) + Send>;
type Build = fn(BatcherBuilder<Item>, Sender<Started>) -> Batcher<Item, u64, &'static str>;

fn return_as_told(ids: &[u64], how: How) -> Result<Vec<u64>, &'static str> {
    let mut results: Vec<u64> = ids.iter().map(|id| id * 10).collect();
    match how {
        How::Fail => return Err("as told"),
        // No panic hook, which would print it.
        How::Panic => std::panic::resume_unwind(Box::new("as told")),
        How::Long => results.push(0),
        How::Short => drop(results.pop()),
        How::Well => {}
    }
    Ok(results)
}

fn on_threads(
    builder: BatcherBuilder<Item>,
    tell: Sender<Started>,
) -> Batcher<Item, u64, &'static str> {
    let tell = Mutex::new(tell);
    let handler = move |items: Vec<Item>| {
        let (go, how) = channel();
        let ids: Vec<u64> = items.iter().map(|item| item.0).collect();
        let go = Box::new(move |how| go.send(how).unwrap());
        tell.lock().unwrap().send((ids.clone(), go)).unwrap();
        return_as_told(&ids, how.recv().unwrap())
    };
    builder.build_sync(handler).unwrap()
}

#[cfg(feature = "tokio")]
fn on_tasks(
    builder: BatcherBuilder<Item>,
    tell: Sender<Started>,
) -> Batcher<Item, u64, &'static str> {
    let tell = Mutex::new(tell);
    let handler = move |items: Vec<Item>| {
        let (go, how) = tokio::sync::oneshot::channel();
        let ids: Vec<u64> = items.iter().map(|item| item.0).collect();
        // Of an abandoned batch the handler is gone.
        let go = Box::new(move |how| {
            let _: Result<(), How> = go.send(how);
        });
        tell.lock().unwrap().send((ids.clone(), go)).unwrap();
        async move {
            let how = how.await.unwrap();
            drop(items);
            return_as_told(&ids, how)
        }
    };
    builder.build(handler).unwrap()
}

fn run(build: Build, shape: Shape, ops: &[Op]) {
    let alive = Arc::new(AtomicUsize::new(0));
    let clock = ManualClock::new();
    let (tell, started) = channel();
    let builder = Batcher::builder()
        .workers(shape.workers)
        .max_size(shape.max_size)
        .capacity(shape.max_size + shape.room)
        .overload(shape.overload)
        .max_weight(shape.max_weight, |item: &Item| item.2)
        .max_wait(Duration::from_secs(3600))
        .gather(shape.gather)
        .clock(clock.clone());
    let batcher = build(builder, tell);
    {
        let mut model = Model {
            shape,
            now: 0,
            queue: Line::default(),
            running: Vec::new(),
            closed: false,
            flush_mark: 0,
            next_id: 0,
            held: Vec::new(),
            ended: Vec::new(),
            flushes: Vec::new(),
            started,
            submitted: 0,
            completed: 0,
            failed: 0,
            cancelled: 0,
            expired: 0,
            abandoned: 0,
            rejected: 0,
            shed: 0,
            batches: 0,
        };
        for &op in ops {
            step(&batcher, &clock, &alive, &mut model, op);
            model.start();
            model.check(&batcher, op);
        }
        // The end loses nothing.
        batcher.close();
        model.close();
        loop {
            model.start();
            model.check(&batcher, Op::Close);
            if model.running.is_empty() {
                break;
            }
            model.run(0, How::Well);
        }
        assert!(model.held.is_empty(), "everybody was told");
    }
    assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
    assert_eq!(alive.load(Ordering::SeqCst), 0, "no item leaks");
}

fn step<'b>(
    batcher: &'b Batcher<Item, u64, &'static str>,
    clock: &ManualClock,
    alive: &Arc<AtomicUsize>,
    model: &mut Model<'b>,
    op: Op,
) {
    match op {
        Op::Advance(millis) => {
            model.now += millis;
            clock.advance(Duration::from_millis(millis));
        }
        Op::Cancel(which) if !model.held.is_empty() => {
            let which = which % model.held.len();
            let (id, held) = model.held.swap_remove(which);
            drop(held);
            if model.queue.remove(id) {
                model.cancelled += 1;
            }
        }
        Op::Close => {
            batcher.close();
            model.close();
        }
        Op::Detach(which) if !model.held.is_empty() => {
            let which = which % model.held.len();
            if matches!(model.held[which].1, Held::Ticket(_)) {
                let (_, Held::Ticket(ticket)) = model.held.swap_remove(which) else {
                    unreachable!("matched above");
                };
                // It stays where it is; there is nobody left to tell.
                ticket.detach();
            }
        }
        Op::Flush => {
            // Polled first, which is when it counts.
            let mut flush = Box::pin(batcher.flush());
            let mut cx = Context::from_waker(Waker::noop());
            let poll = flush.as_mut().poll(&mut cx);
            model.flush_mark = model.queue.seal();
            if poll.is_pending() {
                model.flushes.push((model.flush_mark, flush));
            }
        }
        Op::Poll(which) if !model.held.is_empty() => {
            let which = which % model.held.len();
            let (id, held) = &mut model.held[which];
            let queued = model.queue.get(*id);
            let late = queued.is_some_and(|one| one.deadline.is_some_and(|at| at <= model.now));
            match (held.poll(), late) {
                (Poll::Pending, false) => {}
                (Poll::Ready(outcome), true) => {
                    assert_eq!(end_of(outcome), End::Expired);
                    model.queue.remove(*id);
                    model.expired += 1;
                    model.held.swap_remove(which);
                }
                (poll, late) => panic!("{:?}, late: {late:?}", poll.map(end_of)),
            }
        }
        Op::Return(which, how) if !model.running.is_empty() => {
            let which = which % model.running.len();
            model.run(which, how);
        }
        Op::Submit(within, priority, weight) => {
            // A worker that was called to linger may have read the clock already, so that the
            // specification could not say whether it sees what passes now.
            let lingers = matches!(model.shape.gather, Gather::Linger { .. });
            let within = within.filter(|&millis| millis == 0 || !lingers);
            let deadline = within.map(|millis| model.now + millis);
            let id = model.next_id;
            let mut future = batcher.submit_owned(Item::new(id, alive, weight));
            future = future.priority(priority);
            if let Some(millis) = within {
                let within = Duration::from_millis(millis);
                future = future.deadline(Deadline::after_on(clock, within));
            }
            let full = model.queue.live() >= model.capacity();
            model.submitted += 1;
            let refused = if within == Some(0) {
                model.expired += 1;
                Some(End::Expired)
            } else if model.closed {
                model.rejected += 1;
                Some(End::Closed)
            } else if weight > model.shape.max_weight {
                model.rejected += 1;
                Some(End::TooHeavy)
            } else {
                model.make_room(full, priority)
            };
            let mut held = Held::Future(future);
            match (held.poll().map(end_of), refused) {
                (Poll::Ready(end), Some(refused)) => assert_eq!(end, refused),
                (Poll::Pending, None) => {
                    model.next_id += 1;
                    let max = model.max();
                    model
                        .queue
                        .push(Queued::new(id, deadline), priority, weight, max);
                    model.held.push((id, held));
                }
                (poll, refused) => panic!("{poll:?}, refused: {refused:?}"),
            }
        }
        Op::TrySubmit(weight) => {
            let full = model.queue.live() >= model.capacity();
            let id = model.next_id;
            model.submitted += 1;
            match batcher.try_submit(Item::new(id, alive, weight)) {
                Ok(ticket) => {
                    assert!(!full && !model.closed);
                    model.next_id += 1;
                    let (queued, max) = (Queued::new(id, None), model.max());
                    model.queue.push(queued, Priority::Normal, weight, max);
                    model.held.push((id, Held::Ticket(ticket)));
                }
                Err(refused) => {
                    let told = match refused {
                        TrySubmitError::Closed(_) => model.closed,
                        TrySubmitError::TooHeavy(_) => weight > model.shape.max_weight,
                        _ => full,
                    };
                    assert!(told, "{refused:?}");
                    model.rejected += 1;
                }
            }
        }
        Op::GiveUp => {
            // What the end of intake starts is waited for, to have one outcome.
            batcher.close();
            model.close();
            model.start();
            let before = model.abandoned;
            model.give_up();
            let report = batcher.drain_blocking(Duration::ZERO);
            assert_eq!(
                (report.abandoned, report.finished),
                (model.abandoned - before, 0)
            );
        }
        Op::Cancel(_) | Op::Detach(_) | Op::Poll(_) | Op::Return(..) => {}
    }
}

impl fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}

fn in_lock_step(build: Build) {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    let config = Config {
        cases: if deep { 10_000 } else { 200 },
        failure_persistence: None,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let strategy = (shape(), prop::collection::vec(op(), 1..60));
    runner
        .run(&strategy, |(shape, ops)| {
            run(build, shape, &ops);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_operations_in_lock_step() {
    in_lock_step(on_threads);
}

#[cfg(feature = "tokio")]
#[test]
fn random_operations_in_lock_step_on_tasks() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    in_lock_step(on_tasks);
}
