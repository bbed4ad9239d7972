//! The benchmark harness of overdrive.

pub mod results;
pub mod stats;
