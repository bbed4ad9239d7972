//! Caches against their peers.

mod ours;
#[cfg(feature = "cache-peers")]
mod peers;
mod reference;
mod scenarios;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    overdrive_bench::main(scenarios::suite())
}
