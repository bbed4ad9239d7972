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

#![forbid(unsafe_code)]

#[cfg(feature = "pool")]
#[doc(inline)]
pub use overdrive_pool as pool;
