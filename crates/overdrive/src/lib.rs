//! Performance primitives for services, one module each. This crate only re-exports: every
//! primitive is a crate of its own, and enabling its feature adds its module here.
//!
//! # Batching
//!
//! Feature `batch`, module `batch`, crate `overdrive-batch`. With `tokio`, handlers may be async.
//!
//! - `batch::Batcher`: many callers, one call of the handler, to each caller its own result
//! - `batch::ParallelBatch`: one function over many items, so many at a time, results in order
//!
//! # Object pools
//!
//! Feature `pool`, module `pool`, crate `overdrive-pool`.
//!
//! - `pool::Pool`: reusable objects with a per-thread fast path and a strict bound
//! - `pool::StaticPool`: the same for a `static`
//! - `pool::Pooled`, `pool::OwnedPooled`: the guards

#![forbid(unsafe_code)]

#[cfg(feature = "batch")]
#[doc(inline)]
pub use overdrive_batch as batch;
#[cfg(feature = "pool")]
#[doc(inline)]
pub use overdrive_pool as pool;
