//! Object pools.

mod builder;
mod depot;
mod engine;
mod guard;
mod idle;
mod local;
mod pool;
mod static_pool;
mod stats;
mod sync;
mod trim;

pub use overdrive_core::ConfigError;

pub use crate::builder::{DEFAULT_MAX_IDLE, MAX_LOCAL_CACHE, MAX_MAX_IDLE, PoolBuilder};
pub use crate::guard::{OwnedPooled, Pooled};
pub use crate::pool::{Keep, Pool};
pub use crate::static_pool::StaticPool;
pub use crate::stats::{PoolStats, TrimReport};
