//! The benchmark harness of overdrive.

pub mod alloc;
mod child;
mod clock;
pub mod driver;
mod latency;
mod measure;
pub mod report;
pub mod results;
mod scenario;
pub mod stats;
mod suite;
mod team;

pub use scenario::{Contender, Figure, Scenario, Setup};
pub use suite::{locked_version, main};
