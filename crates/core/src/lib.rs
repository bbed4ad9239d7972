//! What the overdrive crates share, and nothing else.
//!
//! You rarely depend on this crate directly: each primitive re-exports what its own interface
//! mentions.
//!
//! | module | what it holds |
//! |---|---|
//! | [`backoff`] | how long to wait before trying again |
//! | [`breaker`] | not calling what does not answer |
//! | [`clock`] | monotonic time: precise, coarse, or moved by hand |
//! | [`config`] | [`ConfigError`], the one error of every `build()` |
//! | [`deadline`] | points in time by which something must be over, and budgets |
//! | [`park`] | waiting on a thread for what was written for tasks |
//! | [`report`] | priority, health, and what became of accepted work |
//! | [`thread_slot`] | small dense thread ids, and hooks that run when a thread ends |
//! | [`unwind`] | surviving panics of user code |
//!
//! No dependencies, no unsafe code, no async runtime.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod breaker;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod park;
pub mod report;
pub mod thread_slot;
pub mod unwind;

pub use backoff::Backoff;
pub use breaker::CircuitBreaker;
pub use clock::{Clock, Timestamp};
pub use config::ConfigError;
pub use deadline::{Deadline, TimeBudget};
pub use report::{DrainReport, Health, Priority};
