//! Runnable examples: `cargo run -p overdrive-examples --example NAME`.
