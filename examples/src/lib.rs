//! Runnable examples: `cargo run -p overdrive-examples --example NAME`.
//!
//! What several of them need is here.

pub mod connections;

pub use crate::connections::Connections;
