//! The benchmark harness of overdrive.

pub mod report;
pub mod results;
pub mod stats;
