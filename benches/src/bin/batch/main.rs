//! Batchers and the bounded parallel map against their peers.

mod database;
mod jobs;
mod ours;
mod parallel;
#[cfg(feature = "batch-peers")]
mod peers;
mod reference;
mod scenarios;
mod sync;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    overdrive_bench::main(scenarios::suite())
}
