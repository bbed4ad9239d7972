//! Loom models of the lock-free protocols.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_loom" cargo test -p overdrive-ratelimit --lib --release loom
//! ```
//!
//! Each protocol is also run with its guard removed (see [`Mutant`]), and then it must fail: a model
//! that passes either way would show nothing.

mod cell;
