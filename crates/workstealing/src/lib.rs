//! A thread pool with results, fork-join over borrowed data, priorities, deadlines and a bounded
//! queue.
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
//! | parallel iterators, or joins of less than microseconds of work | `rayon`, or `chili` |
//! | one thread with a queue of messages | `std::sync::mpsc` and a thread |
//! | a handful of threads on borrowed data, once | `std::thread::scope` |
//! | a task that must be stopped while it runs | a flag that it looks at; no thread can be stopped from outside |
//!
//! # How it works
//!
//! One queue per priority behind one lock; workers take the oldest task of the highest priority,
//! or a lower one when that has been passed over [often
//! enough](ThreadPoolBuilder::starvation_bound). Whoever waits for a task takes it back out of the
//! queue, if it is still there, and runs it; it never runs anything else. So a wait inside the
//! pool neither deadlocks, with however few workers, nor runs unrelated work on top of what
//! waits, where it could meet a lock that is held below.
//!
//! What was accepted runs, or is reported to its handle: as panicked, cancelled, too late, or
//! dropped at the end of a shutdown's time. What is not accepted is given back. A panic of a task
//! ends nothing but the task.
//!
//! # Cost
//!
//! All of this takes the pool's one lock, so small tasks on many threads wait for it.
//!
//! | operation | work | allocations |
//! |---|---|---|
//! | `spawn` | the lock, an insertion into a B-tree; a wake-up if a worker sleeps | 1, and the tree's |
//! | `submit` | as `spawn` | 3, and the tree's |
//! | `join`, a part of a `scope` | as `spawn`, and the scope's lock | 3 and 1, and the tree's |
//! | running a task | the lock twice | 0 |
//! | `cancel`, taking a task back | the lock, a removal from a B-tree | 0 |
//! | a deadline | one reading of the clock, when the task's turn comes | 0 |
//! | `stats` | the lock | 0 |
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
//! | `builder` | [`ThreadPoolBuilder`] and its checks, [`Overload`] |
//! | `task` | [`TaskBuilder`]: priority and deadline |
//! | `handle` | [`TaskHandle`], [`CancelOnDrop`] |
//! | `scope` | [`Scope`]; unsafe |
//! | `error` | [`SpawnError`], [`TaskError`], [`PanicPayload`] |
//! | `settings` | [`ThreadPoolSettings`] |
//! | `stats` | [`ThreadPoolStats`] |
//! | `engine` | what workers, spawners and waiters do with the queue |
//! | `queue` | what waits, and what comes next |
//! | `job` | a piece of work on its way, and how its end is made known |
//! | `context` | which pool a thread is in |
//! | `wait` | waiting on a condition until a deadline |

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
