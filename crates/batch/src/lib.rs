//! Request batching: many callers, one call of the handler, to each caller its own result.
//!
//! ```
//! use std::convert::Infallible;
//! use overdrive_batch::Batcher;
//!
//! let double = Batcher::builder()
//!     .name("double")
//!     .max_size(100)
//!     .workers(2)
//!     .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items.iter().map(|n| n * 2).collect()))?;
//!
//! // From any number of threads; or `double.submit(21).await` in any async runtime.
//! assert_eq!(double.submit_blocking(21)?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! Items wait in one queue. A free worker lets everybody else run once, then takes what there is,
//! up to `max_size`, and calls the handler; while all workers are busy the next batch grows by
//! itself. So a lone item goes at once, and batches are as large as the load makes them, without a
//! timer. [`Gather`] says otherwise where waiting pays.
//!
//! Each item ends exactly once: with its result, or an error that says why not, and with the item
//! where it never reached the handler. A batch whose handler fails, panics or returns another number
//! of results than it was given items fails as a whole; results are never matched by guess.
//!
//! # Cost
//!
//! A submit takes the lock of the batcher once, as do all items of a `submit_all` together, and allocates
//! nothing of its own: the places of a
//! batch's results are one list, which serves batch after batch. Fetching the result takes no lock. A
//! worker takes the batcher's lock once or twice a batch, the last time for as long as it takes to
//! hand the results out. A batch allocates two lists, that of the items and the handler's.
//! Withdrawing an item is one write. [`map_ordered`] allocates nothing for items that are ready at
//! once, and otherwise for as many as are in work. A [`Loader`] hashes each key once. A
//! [`KeyedBatcher`] adds to a batcher's cost that of a map of keys, and its one lock.
//!
//! # Features
//!
//! None by default: handlers are plain functions, run by threads of the batcher's own, or by the
//! submitters themselves ([`build_inline`](BatcherBuilder::build_inline)).
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` | `BatcherBuilder::build`, `KeyedBatcherBuilder::build` and `LoaderBuilder::build` for async handlers, `drain`, `shutdown` |
//! | `metrics` | sizes of batches and times of the handler, recorded through the facade `metrics`; `report_metrics` for the rest of the figures |
//! | `serde` | [`BatchSettings`] from and to configuration files |
//! | `tracing` | a span for each call of the handler, which follows from the spans that its items were submitted in (links, in OpenTelemetry) |
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | `batcher` | [`Batcher`], the handle |
//! | `builder` | [`BatcherBuilder`] and its checks; `builder::build`: what comes of it |
//! | `settings` | [`BatchSettings`], [`Gather`], [`Overload`] |
//! | `submit` | [`Submit`], [`SubmitAll`], [`SubmitOwned`], [`Ticket`] |
//! | `watch` | [`Flush`], and waiting for the end |
//! | `error` | [`SubmitError`], [`TrySubmitError`] |
//! | `stats` | [`BatchStats`] |
//! | `engine` | the state; `engine::place`, `engine::fetch`, `engine::work`, `engine::ending`: what submitters and workers change in it, and how it ends |
//! | `engine::queue` | the batches that gather, by urgency; `engine::pace`: how fast items come |
//! | `slots` | the places of those who submitted one batch's items |
//! | `cell`, `slab` | where they fetch their outcomes, without a lock |
//! | `after` | what is woken and dropped when the locks are free |
//! | `isolate` | telling the items of a failed batch apart |
//! | `announce` | [`Announced`]: items that are on their way |
//! | `workers`, `tasks`, `inline` | threads, tokio tasks, and submitters that run batches |
//! | `observe` | spans and metrics |
//! | `park` | waiting on a thread |
//! | `parallel` | [`map_ordered`], [`map_ordered_into`], [`try_map_ordered`], [`ParallelBatch`] |
//! | `keyed` | [`KeyedBatcher`]; `keyed::hub`: the map of keys and the turns they take |
//! | `keyed::group` | one key: an engine with virtual workers; `keyed::crew`: the real ones |
//! | `loader` | [`Loader`], [`LoadCache`], [`LoadError`] |
//! | [`sql`] | many rows in one statement: chunks, columns, placeholders, order by key |

#![deny(unsafe_code)]

mod after;
mod announce;
mod batcher;
mod builder;
mod cell;
mod engine;
mod error;
mod inline;
mod isolate;
mod keyed;
mod loader;
mod observe;
mod parallel;
mod park;
mod settings;
mod slab;
mod slots;
pub mod sql;
mod stats;
mod submit;
mod sync;
#[cfg(feature = "tokio")]
mod tasks;
mod watch;
mod workers;

pub use overdrive_core::{Clock, ConfigError, Deadline, DrainReport, Health, Priority};

pub use crate::announce::Announced;
pub use crate::batcher::Batcher;
pub use crate::builder::{BatcherBuilder, MAX_CAPACITY, MAX_MAX_SIZE, MAX_MAX_WAIT, MAX_WORKERS};
pub use crate::error::{SubmitError, TrySubmitError};
pub use crate::keyed::{
    KeyedBatcher, KeyedBatcherBuilder, KeyedFlush, KeyedSubmit, KeyedSubmitOwned, KeyedTicket,
    MAX_MAX_KEYS,
};
pub use crate::loader::{LoadCache, LoadError, Loaded, Loader, LoaderBuilder, LoaderStats};
pub use crate::parallel::{
    ItemError, MAX_CONCURRENCY, ParallelBatch, ParallelBatchBuilder, ParallelBatchStats, Progress,
    map_ordered, map_ordered_into, try_map_ordered,
};
pub use crate::settings::{BatchSettings, Gather, Overload};
pub use crate::sql::chunks_by_params;
pub use crate::stats::BatchStats;
pub use crate::submit::{Submit, SubmitAll, SubmitOwned, Ticket};
pub use crate::watch::Flush;
