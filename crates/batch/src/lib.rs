//! Request batching: many callers, one call of the handler, to each caller its own result.

#![forbid(unsafe_code)]

mod batcher;
mod builder;
mod cell;
mod chunks;
mod engine;
mod error;
mod parallel;
mod park;
mod settings;
mod stats;
mod submit;
#[cfg(feature = "tokio")]
mod tasks;
mod watch;
mod workers;

pub use overdrive_core::{Clock, ConfigError, Deadline, DrainReport};

pub use crate::batcher::Batcher;
pub use crate::builder::{BatcherBuilder, MAX_CAPACITY, MAX_MAX_SIZE, MAX_MAX_WAIT, MAX_WORKERS};
pub use crate::chunks::chunks_by_params;
pub use crate::error::{SubmitError, TrySubmitError};
pub use crate::parallel::{
    MAX_CONCURRENCY, ParallelBatch, ParallelBatchBuilder, ParallelBatchStats, map_ordered,
    try_map_ordered,
};
pub use crate::settings::{BatchSettings, Gather, Overload};
pub use crate::stats::BatchStats;
pub use crate::submit::{Submit, SubmitAll, SubmitOwned, Ticket};
pub use crate::watch::Flush;
