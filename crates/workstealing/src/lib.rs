//! A work-stealing thread pool with results, fork-join over borrowed data, priorities, deadlines, a
//! bounded queue and a number of workers that follows the load.
//!
//! ```
//! use std::time::Duration;
//! use overdrive_workstealing::{Priority, ThreadPool};
//!
//! let pool = ThreadPool::builder().name("images").workers(4).capacity(1000).build()?;
//!
//! // A result, waited for by a thread or awaited in async code.
//! let task = pool.submit(|| (1..=20_u64).product::<u64>())?;
//! assert_eq!(task.join()?, 2_432_902_008_176_640_000);
//!
//! // Before the others, and not at all if it cannot start within a second.
//! let urgent = pool.task().priority(Priority::High).deadline(Duration::from_secs(1));
//! urgent.spawn(|| println!("now or never"))?;
//!
//! // Borrowed data.
//! let words = ["fork", "join"];
//! let (a, b) = pool.join(|| words[0].len(), || words[1].len());
//! assert_eq!(a + b, 8);
//!
//! let report = pool.shutdown(Duration::from_secs(30));
//! assert!(report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When to use it, and when not
//!
//! | your case | use instead |
//! |---|---|
//! | async tasks: sockets, timers | an async runtime; this pool runs closures. Await a [`TaskHandle`] there |
//! | parallel iterators | `rayon` |
//! | one thread with a queue of messages | `std::sync::mpsc` and a thread |
//! | a handful of threads on borrowed data, once | `std::thread::scope` |
//! | a task that must be stopped while it runs | a flag that it looks at; no thread can be stopped from outside |
//!
//! # How it works
//!
//! Each worker has two deques. In one lie the tasks that it spawned, which others steal when they
//! have none; tasks from outside come through a queue per priority, for all. In the other, a
//! *split* deque, lie its open joins, on its own stack; only the oldest is where others find it, so
//! a join that nobody takes costs next to nothing. Workers without work search, few at a time, and
//! then sleep; a push wakes one only if none searches, and who finds work wakes the next. A thread
//! from outside that joins or [`install`](ThreadPool::install)s takes a seat in the pool and works.
//!
//! A worker takes the oldest task of the highest priority, or a lower one when that has been passed
//! over [often enough](ThreadPoolBuilder::starvation_bound). Whoever waits for a task, a join or a
//! scope takes it back, if nobody has begun it, and runs it; while another runs it, only what
//! belongs to it is run here. So a wait inside the pool neither deadlocks, with however few workers,
//! nor runs unrelated work on top of what waits, where it could meet a lock that is held below.
//!
//! What was accepted runs, or is reported to its handle: as panicked, cancelled, too late, or
//! dropped at the end of a shutdown's time. What is not accepted is given back. A panic of a task
//! ends nothing but the task.
//!
//! # Cost
//!
//! | operation | work | allocations |
//! |---|---|---|
//! | `spawn` on a worker | a push to its own deque, a fence | 0 up to four words of captures |
//! | `spawn` from outside | three atomic operations, a push to a shared queue; a wake-up if all sleep | the same, and one per 63 tasks |
//! | `submit` | as `spawn`; a lock of the task's own, three times | 1 |
//! | `join` that nobody takes | some plain loads and stores | 0 |
//! | `scope` | a lock of its own per part, twice; a closure of up to three words in place | 1 |
//! | `install` | two atomic operations from outside, none inside | 0 |
//! | `cancel`, taking a task back | the task's lock. Its entry in the queue stays until its turn comes, and counts no more | 0 |
//! | a deadline | one reading of the clock, when the task's turn comes | 0 |
//! | `stats` | reads each worker's counters | 0 |
//! | a pool | some 8 KiB per worker, 80 KiB for seats | |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `serde` | [`ThreadPoolSettings`] from and to configuration files |
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | `pool` | [`ThreadPool`], the free functions [`join()`] and [`scope()`] |
//! | `many` | [`spawn_batch`](ThreadPool::spawn_batch), [`fan_out`](ThreadPool::fan_out) |
//! | `blocking` | [`blocking()`], and who stands in |
//! | `builder` | [`ThreadPoolBuilder`] and its checks, [`Overload`] |
//! | `task` | [`TaskBuilder`]: priority and deadline |
//! | `handle` | [`TaskHandle`], [`CancelOnDrop`] |
//! | `scope` | [`Scope`]; unsafe |
//! | `scaler`, `keeper`, `cpu` | how many workers there should be, the thread that asks, and what it knows |
//! | `error` | [`SpawnError`], [`TaskError`], [`PanicPayload`] |
//! | `settings`, `stats` | [`ThreadPoolSettings`], [`ThreadPoolStats`] |
//! | `engine`, `room`, `ending` | how work gets in, the bound of the queue, how the pool ends |
//! | `worker`, `crew`, `sleep` | what a worker does, how many there are, who sleeps and who is woken |
//! | `queue`, `deque` | the queues for all; the split deque of open joins |
//! | `cell`, `call`, `counters` | a task with a handle; its call; what is counted |
//! | `seat` | a place in the pool, of a worker or a guest |
//! | `raw` | closures in place, joins on the stack, the pool a thread is in; unsafe |
//! | `wait`, `sync` | waiting until a deadline; what the models replace |

#![deny(unsafe_code)]

mod blocking;
mod builder;
mod call;
mod cell;
mod counters;
mod cpu;
mod crew;
mod deque;
mod ending;
mod engine;
mod error;
mod handle;
mod keeper;
mod many;
#[cfg(all(test, overdrive_loom))]
mod models;
mod pool;
mod queue;
mod raw;
mod room;
mod scaler;
mod scope;
mod seat;
mod settings;
mod sleep;
mod stats;
#[cfg(all(test, overdrive_shuttle))]
mod storms;
mod sync;
mod task;
mod wait;
mod worker;

pub use overdrive_core::{Clock, ConfigError, Deadline, DrainReport, Health, Priority};

pub use crate::blocking::blocking;
pub use crate::builder::{
    DEFAULT_CAPACITY, DEFAULT_IDLE_TIMEOUT, DEFAULT_SCALING_INTERVAL, DEFAULT_SPARE_WORKERS,
    DEFAULT_STARVATION_BOUND, MAX_CAPACITY, MAX_STACK_SIZE, MAX_WORKERS, MIN_STACK_SIZE, Overload,
    ThreadPoolBuilder,
};
pub use crate::error::{PanicPayload, SpawnError, TaskError};
pub use crate::handle::{CancelOnDrop, TaskHandle};
pub use crate::many::Rest;
pub use crate::pool::{ThreadPool, join, scope};
pub use crate::scaler::{QueueDelay, Sample, Scaler};
pub use crate::scope::Scope;
pub use crate::settings::ThreadPoolSettings;
pub use crate::stats::ThreadPoolStats;
pub use crate::task::TaskBuilder;
