//! What the overdrive crates share, and nothing else.
//!
//! You rarely depend on this crate directly: each primitive re-exports what its own interface
//! mentions.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | [`ConfigError`], the one error of every `build()` |
//! | [`thread_slot`] | small dense thread ids, and hooks that run when a thread ends |
//! | [`unwind`] | surviving panics of user code |
//!
//! No dependencies, no unsafe code, no async runtime.

#![forbid(unsafe_code)]

pub mod config;
pub mod thread_slot;
pub mod unwind;

pub use config::ConfigError;
