//! Performance primitives for services, one module each. This crate only re-exports: every
//! primitive is a crate of its own, and enabling its feature adds its module here.
//!
//! # Object pools
//!
//! Feature `pool`, module `pool`, crate `overdrive-pool`.
//!
//! - `pool::Pool`: reusable objects with a per-thread fast path and a strict bound
//! - `pool::StaticPool`: the same for a `static`
//! - `pool::Pooled`, `pool::OwnedPooled`: the guards
//!
//! # Thread pools
//!
//! Feature `workstealing`, module `workstealing`, crate `overdrive-workstealing`.
//!
//! - `workstealing::ThreadPool`: tasks with results, priorities and deadlines over a bounded queue
//! - `workstealing::join`, `workstealing::scope`: fork-join over borrowed data
//! - `workstealing::TaskHandle`: a result to come, for threads and for async code

#![forbid(unsafe_code)]

#[cfg(feature = "pool")]
#[doc(inline)]
pub use overdrive_pool as pool;

#[cfg(feature = "workstealing")]
#[doc(inline)]
pub use overdrive_workstealing as workstealing;
