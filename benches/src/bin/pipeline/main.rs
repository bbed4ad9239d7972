//! Pipelines against their peers.

mod hop;
mod yields;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

const OURS: &str = "overdrive-pipeline";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let mut suite = hop::scenarios();
    suite.push(yields::scenario());
    overdrive_bench::main(suite)
}

/// The version that the benchmark was built with.
#[cfg(feature = "pipeline-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}
