//! Performance primitives for services, one module each. This crate only re-exports: every
//! primitive is a crate of its own, and enabling its feature adds its module here.
//!
//! | feature | module | crate | what |
//! |---|---|---|---|
//! | `batch` | `batch` | `overdrive-batch` | many callers, one call: `Batcher`, `ParallelBatch` |
//! | `cache` | `cache` | `overdrive-tiered-cache` | `Cache`, `TieredCache` |
//! | `pipeline` | `pipeline` | `overdrive-pipeline` | `Pipeline` |
//! | `pool` | `pool` | `overdrive-pool` | reusable objects: `Pool`, `StaticPool` |
//! | `ratelimit` | `ratelimit` | `overdrive-ratelimit` | `RateLimiter`, `KeyedLimiter`, `ConcurrencyLimit` |
//! | `workstealing` | `workstealing` | `overdrive-workstealing` | `ThreadPool`, `join` |
//!
//! Further features reach into every crate that is enabled: `tokio` for what needs its timers or
//! tasks, `redis` for what is shared over Redis, `serde` for settings in configuration files.
//! None is on by default.

#![forbid(unsafe_code)]

#[cfg(feature = "batch")]
#[doc(inline)]
pub use overdrive_batch as batch;
#[cfg(feature = "pipeline")]
#[doc(inline)]
pub use overdrive_pipeline as pipeline;
#[cfg(feature = "pool")]
#[doc(inline)]
pub use overdrive_pool as pool;
#[cfg(feature = "ratelimit")]
#[doc(inline)]
pub use overdrive_ratelimit as ratelimit;
#[cfg(feature = "cache")]
#[doc(inline)]
pub use overdrive_tiered_cache as cache;
#[cfg(feature = "workstealing")]
#[doc(inline)]
pub use overdrive_workstealing as workstealing;
