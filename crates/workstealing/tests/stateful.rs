//! Random operations in lock step with a sequential model of the pool.
//!
//! The pool has one worker, and its tasks end when the test says so: after each operation the test
//! waits until the worker has got where the model says it is. The seeds are fixed.
//! `OVERDRIVE_DEEP=1` runs many more.

mod support;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use overdrive_core::clock::{Clock, ManualClock, Timestamp};
use overdrive_workstealing::{
    Deadline, Overload, Priority, SpawnError, TaskError, TaskHandle, ThreadPool, ThreadPoolStats,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[derive(Clone, Copy, Debug)]
enum Op {
    Add {
        priority: Priority,
        /// In ticks of the clock from now.
        deadline: Option<u64>,
        handle: bool,
        /// By the `try_` form.
        only_try: bool,
    },
    Advance(u64),
    Cancel(usize),
    Close,
    Detach(usize),
    /// Lets the running task end: well, or by a panic.
    End {
        well: bool,
    },
    Shutdown,
}

fn op() -> impl Strategy<Value = Op> {
    let priority = prop_oneof![
        3 => Just(Priority::High),
        3 => Just(Priority::Normal),
        2 => Just(Priority::Low),
    ];
    let deadline = prop::option::weighted(0.3, 0..6_u64);
    let add = (priority, deadline, any::<bool>(), any::<bool>());
    prop_oneof![
        40 => add.prop_map(|(priority, deadline, handle, only_try)| {
            Op::Add { priority, deadline, handle, only_try }
        }),
        30 => any::<bool>().prop_map(|well| Op::End { well }),
        8 => (1..4_u64).prop_map(Op::Advance),
        10 => any::<usize>().prop_map(Op::Cancel),
        4 => any::<usize>().prop_map(Op::Detach),
        1 => Just(Op::Close),
        1 => Just(Op::Shutdown),
    ]
}

/// How a task ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Cancelled,
    Closed,
    Completed,
    Expired,
    Panicked,
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Closed,
    Full,
}

/// What the pool must do, said sequentially.
struct Model {
    capacity: usize,
    bound: u32,
    policy: Overload,
    now: u64,
    closed: bool,
    /// In the order in which they came.
    queued: Vec<(usize, Priority, Option<u64>)>,
    running: Option<usize>,
    fates: Vec<Fate>,
    started: Vec<usize>,
    /// How often Normal and Low were passed over in a row.
    passed: [u32; 2],
    rejected: u64,
    caller_ran: u64,
}

impl Model {
    fn add(
        &mut self,
        priority: Priority,
        deadline: Option<u64>,
        only_try: bool,
    ) -> Result<usize, Refusal> {
        let full = self.queued.len() == self.capacity;
        let run_here = !only_try && self.policy == Overload::CallerRuns;
        if self.closed || (full && !run_here) {
            self.rejected += 1;
            return Err(if self.closed {
                Refusal::Closed
            } else {
                Refusal::Full
            });
        }
        let id = self.fates.len();
        self.fates.push(Fate::Waiting);
        let deadline = deadline.map(|ticks| self.now + ticks);
        if full {
            self.caller_ran += 1;
            if self.is_late(deadline) {
                self.fates[id] = Fate::Expired;
            } else {
                self.fates[id] = Fate::Completed;
                self.started.push(id);
            }
            return Ok(id);
        }
        self.queued.push((id, priority, deadline));
        Ok(id)
    }

    fn is_late(&self, deadline: Option<u64>) -> bool {
        deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// The worker takes tasks until one runs or none waits.
    fn take(&mut self) {
        while self.running.is_none() && !self.queued.is_empty() {
            let first = |wanted| self.queued.iter().position(|(_, p, _)| *p == wanted);
            let [high, normal, low] = [Priority::High, Priority::Normal, Priority::Low].map(first);
            let due_low = low.filter(|_| self.passed[1] >= self.bound);
            let due_normal = normal.filter(|_| self.passed[0] >= self.bound);
            let index = due_low.or(due_normal).or(high).or(normal).or(low).unwrap();
            let (id, priority, deadline) = self.queued.remove(index);
            // Those that wait are passed over; of a level where none waits, none was.
            let waits = |wanted| self.queued.iter().any(|(_, p, _)| *p == wanted);
            let (normal, low) = (waits(Priority::Normal), waits(Priority::Low));
            let over = |passed: u32, waits: bool| if waits { passed + 1 } else { 0 };
            match priority {
                Priority::High => {
                    self.passed = [over(self.passed[0], normal), over(self.passed[1], low)];
                }
                Priority::Normal => self.passed = [0, over(self.passed[1], low)],
                Priority::Low => self.passed[1] = 0,
            }
            // The promise itself: nobody waits longer.
            assert!(!low || self.passed[1] <= self.bound);
            if self.is_late(deadline) {
                self.fates[id] = Fate::Expired;
            } else {
                self.running = Some(id);
                self.started.push(id);
            }
        }
    }

    fn count(&self, fate: Fate) -> u64 {
        self.fates.iter().filter(|f| **f == fate).count() as u64
    }

    fn check(&self, stats: &ThreadPoolStats) {
        let queued = |wanted| self.queued.iter().filter(|(_, p, _)| *p == wanted).count();
        assert_eq!(stats.queued_high, queued(Priority::High), "{stats:?}");
        assert_eq!(stats.queued_normal, queued(Priority::Normal), "{stats:?}");
        assert_eq!(stats.queued_low, queued(Priority::Low), "{stats:?}");
        assert_eq!(stats.running, usize::from(self.running.is_some()));
        assert_eq!(stats.completed, self.count(Fate::Completed), "{stats:?}");
        assert_eq!(stats.panicked, self.count(Fate::Panicked), "{stats:?}");
        assert_eq!(stats.cancelled, self.count(Fate::Cancelled), "{stats:?}");
        assert_eq!(stats.expired, self.count(Fate::Expired), "{stats:?}");
        assert_eq!(stats.abandoned, self.count(Fate::Closed), "{stats:?}");
        assert_eq!(stats.spawned, self.fates.len() as u64, "{stats:?}");
        assert_eq!(stats.rejected, self.rejected, "{stats:?}");
        assert_eq!(stats.caller_ran, self.caller_ran, "{stats:?}");
        let sum = stats.ended() + stats.outstanding() as u64;
        assert_eq!(stats.spawned, sum, "{stats:?}");
        assert!(stats.queued() <= self.capacity, "{stats:?}");
    }
}

/// What each task does: on the worker it says that it started and waits to be told how to end.
#[derive(Clone)]
struct Script {
    test: ThreadId,
    started: Sender<usize>,
    end: Arc<Mutex<Receiver<bool>>>,
    order: Arc<Mutex<Vec<usize>>>,
}

impl Script {
    fn run(self, id: usize) -> usize {
        self.order.lock().unwrap().push(id);
        if thread::current().id() != self.test {
            self.started.send(id).unwrap();
            let well = self.end.lock().unwrap().recv().unwrap();
            if !well {
                // As a panic, but without the hook's message.
                resume_unwind(Box::new(id));
            }
        }
        id
    }
}

struct Test {
    pool: ThreadPool,
    clock: ManualClock,
    model: Model,
    handles: BTreeMap<usize, TaskHandle<usize>>,
    script: Script,
    started: Receiver<usize>,
    end: Sender<bool>,
    /// The running task, as far as the test has heard.
    heard: Option<usize>,
}

impl Test {
    fn new(capacity: usize, bound: u32, policy: Overload) -> Self {
        let clock = ManualClock::new();
        let pool = support::builder(1)
            .capacity(capacity)
            .starvation_bound(NonZeroU32::new(bound).unwrap())
            .overload(policy)
            .clock(clock.clone())
            .build()
            .unwrap();
        let (tell_started, started) = channel();
        let (end, wait) = channel();
        let script = Script {
            test: thread::current().id(),
            started: tell_started,
            end: Arc::new(Mutex::new(wait)),
            order: Arc::default(),
        };
        let model = Model {
            capacity,
            bound,
            policy,
            now: 0,
            closed: false,
            queued: Vec::new(),
            running: None,
            fates: Vec::new(),
            started: Vec::new(),
            passed: [0; 2],
            rejected: 0,
            caller_ran: 0,
        };
        Self {
            pool,
            clock,
            model,
            handles: BTreeMap::new(),
            script,
            started,
            end,
            heard: None,
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Add {
                priority,
                deadline,
                handle,
                only_try,
            } => self.add(priority, deadline, handle, only_try),
            Op::Advance(ticks) => {
                self.model.now += ticks;
                self.clock.advance(Duration::from_nanos(ticks));
            }
            Op::Cancel(index) => {
                if let Some(id) = self.pick(index) {
                    let queued = self.model.queued.iter().position(|(q, ..)| *q == id);
                    assert_eq!(self.handles[&id].cancel(), queued.is_some());
                    if let Some(queued) = queued {
                        self.model.queued.remove(queued);
                        self.model.fates[id] = Fate::Cancelled;
                    }
                }
            }
            Op::Close => {
                self.pool.close();
                self.model.closed = true;
            }
            Op::Detach(index) => {
                if let Some(id) = self.pick(index) {
                    self.handles.remove(&id);
                }
            }
            Op::End { well } => {
                if let Some(id) = self.model.running.take() {
                    self.model.fates[id] = if well {
                        Fate::Completed
                    } else {
                        Fate::Panicked
                    };
                    self.heard = None;
                    self.end.send(well).unwrap();
                }
            }
            Op::Shutdown => {
                let report = self.pool.shutdown(Duration::ZERO);
                self.model.closed = true;
                let running = usize::from(self.model.running.is_some());
                let abandoned = self.model.queued.len() + running;
                assert_eq!(report.abandoned, abandoned as u64);
                for (id, ..) in std::mem::take(&mut self.model.queued) {
                    self.model.fates[id] = Fate::Closed;
                }
            }
        }
        self.settle();
        self.model.check(&self.pool.stats());
        for (id, handle) in &self.handles {
            let ended = self.model.fates[*id] != Fate::Waiting;
            assert_eq!(handle.is_finished(), ended, "task {id} after {op:?}");
        }
    }

    fn add(&mut self, priority: Priority, deadline: Option<u64>, handle: bool, only_try: bool) {
        // A blocking form would wait for the test itself.
        let only_try = only_try || self.model.policy == Overload::Wait;
        let id = self.model.fates.len();
        let expected = self.model.add(priority, deadline, only_try);
        let script = self.script.clone();
        let task = move || script.run(id);
        let mut builder = self.pool.task().priority(priority);
        if let Some(ticks) = deadline {
            let at = self.clock.now().as_nanos() + ticks;
            builder = builder.deadline(Deadline::at(Timestamp::from_nanos(at)));
        }
        let result = if handle {
            let submitted = match only_try {
                true => builder.try_submit(task),
                false => builder.submit(task),
            };
            submitted.map_err(refusal).map(|handle| {
                self.handles.insert(id, handle);
            })
        } else {
            let task = move || {
                task();
            };
            match only_try {
                true => builder.try_spawn(task).map_err(refusal),
                false => builder.spawn(task).map_err(refusal),
            }
        };
        assert_eq!(result, expected.map(drop));
    }

    /// Waits until the worker is where the model says.
    fn settle(&mut self) {
        self.model.take();
        match self.model.running {
            Some(id) if self.heard != Some(id) => {
                assert_eq!(self.started.recv().unwrap(), id);
                self.heard = Some(id);
            }
            Some(_) => {}
            None => assert!(self.pool.wait_idle(Deadline::NEVER)),
        }
    }

    fn pick(&self, index: usize) -> Option<usize> {
        let count = self.handles.len().max(1);
        self.handles.keys().nth(index % count).copied()
    }

    fn finish(mut self) {
        while self.model.running.is_some() {
            self.step(Op::End { well: true });
        }
        let report = self.pool.shutdown(Deadline::NEVER);
        assert!(report.is_complete());
        assert_eq!(*self.script.order.lock().unwrap(), self.model.started);
        for (id, handle) in self.handles {
            let fate = match handle.join() {
                Ok(value) => {
                    assert_eq!(value, id);
                    Fate::Completed
                }
                Err(TaskError::Panicked(payload)) => {
                    assert_eq!(*payload.into_inner().downcast::<usize>().unwrap(), id);
                    Fate::Panicked
                }
                Err(TaskError::Cancelled) => Fate::Cancelled,
                Err(TaskError::DeadlineExceeded) => Fate::Expired,
                Err(TaskError::Abandoned) => Fate::Closed,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(fate, self.model.fates[id], "task {id}");
        }
        // Each closure holds one: all are gone.
        assert_eq!(Arc::strong_count(&self.script.order), 1);
    }
}

fn refusal<F>(error: SpawnError<F>) -> Refusal {
    match error {
        SpawnError::Full(_) => Refusal::Full,
        SpawnError::Closed(_) => Refusal::Closed,
        _ => panic!("{error}"),
    }
}

#[test]
fn random_operations_do_what_the_model_says() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1");
    let (cases, length) = if deep { (5_000, 400) } else { (60, 120) };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let policy = prop_oneof![
        Just(Overload::Reject),
        Just(Overload::Wait),
        Just(Overload::CallerRuns),
    ];
    let input = (
        prop::collection::vec(op(), length),
        1..9_usize,
        1..5_u32,
        policy,
    );
    runner
        .run(&input, |(ops, capacity, bound, policy)| {
            let mut test = Test::new(capacity, bound, policy);
            for op in ops {
                test.step(op);
            }
            test.finish();
            Ok(())
        })
        .unwrap();
}
