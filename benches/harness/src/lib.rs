//! The benchmark harness of overdrive: who is faster, by how much, and how sure
//! that is, on a machine that is never quiet.
//!
//! A benchmark binary is a list of [`Scenario`]s, each a named workload with
//! [`Contender`]s by role: ours, peers, references, a limit that none can beat.
//!
//! ```
//! use overdrive_bench::results::Role;
//! use overdrive_bench::{Contender, Scenario};
//!
//! fn suite() -> Vec<Scenario> {
//!     let sum = |role, name, step: u64| {
//!         // Built once; then once per thread; then the loop that is timed.
//!         Contender::time(role, name, "1.0", move |_setup| {
//!             move |_thread| move |ops| (0..ops * step).step_by(step as usize).map(|n| n / step).sum()
//!         })
//!     };
//!     vec![
//!         Scenario::time("numbers/sum", "add up the numbers below n")
//!             .with(sum(Role::Ours, "by-one", 1))
//!             .with(sum(Role::Peer, "by-two", 2)),
//!     ]
//! }
//! # assert_eq!(suite()[0].id(), "numbers/sum");
//! // fn main() -> std::process::ExitCode { overdrive_bench::main(suite()) }
//! ```
//!
//! # How it measures
//! Every contender owns its data. In each round every contender runs one short
//! slice, in a new random order, after an untimed slice of its own that brings
//! its data back into the caches. A round gives one log-ratio per contender;
//! their median is a process's finding. The whole is repeated in several
//! processes, because where code and data happen to lie biases a process by up
//! to two percent for its whole life. See [`stats`] for the interval.
//!
//! # Map
//! - `scenario`: what is measured. `suite`: the entry point of a benchmark
//!   binary. `child`: what the driver and the binaries say to each other.
//! - `measure`, `team`, `latency`, [`alloc`], `clock`: measuring in one process.
//! - [`stats`]: medians, intervals, verdicts. [`results`]: the results file.
//! - [`driver`]: the command `cargo xtask bench`. [`report`]: the page.

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

pub use clock::process_cpu;
pub use scenario::{Contender, Figure, Scenario, Setup};
pub use suite::{locked_version, main};
