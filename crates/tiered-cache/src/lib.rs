//! A cache in tiers: request scope, memory, a remote store, and a loader that runs once.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod flight;
mod garbage;
mod options;
mod rejected;
mod settings;
mod stats;
mod store;
mod table;
#[cfg(feature = "tokio")]
mod tiered;

pub use overdrive_core::{Clock, ConfigError};
#[cfg(feature = "tokio")]
pub use overdrive_core::{Deadline, DrainReport, Health};

pub use crate::builder::{CacheBuilder, MAX_MAX_ENTRIES, MAX_TIME};
pub use crate::cache::Cache;
pub use crate::options::{EntryOptions, Ttl};
pub use crate::rejected::Rejected;
pub use crate::settings::CacheSettings;
pub use crate::stats::CacheStats;
