//! A cache in tiers: request scope, memory, a remote store, and a loader that runs once.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod flight;
mod garbage;
mod options;
#[cfg(feature = "redis")]
mod redis;
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
#[cfg(feature = "redis")]
pub use crate::redis::RedisTier;
pub use crate::rejected::Rejected;
pub use crate::settings::CacheSettings;
pub use crate::stats::CacheStats;
#[cfg(all(feature = "tokio", feature = "serde"))]
pub use crate::tiered::JsonCodec;
#[cfg(feature = "tokio")]
pub use crate::tiered::{
    CacheError, CacheKey, Codec, CodecError, Found, Hit, InsertError, InvalidateError, LoadError,
    RequestScope, SecondTier, SecondTierWrite, Stored, Tier, TierError, TieredCache,
    TieredCacheBuilder, TieredCacheSettings, TieredCacheStats, Written, codec_of,
};
#[cfg(feature = "redis")]
pub use overdrive_remote::{RedisSettings, Remote, RemoteError};
