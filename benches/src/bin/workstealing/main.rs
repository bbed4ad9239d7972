//! Thread pools against their peers.

mod figures;
mod jobs;
mod ours;
#[cfg(feature = "workstealing-peers")]
mod peers;
mod programs;
mod reference;
mod scenarios;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    overdrive_bench::main(scenarios::suite())
}
