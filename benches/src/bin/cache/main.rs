//! Caches against their peers.

mod bloom;
mod bytes;
mod hits;
mod memory;
mod ours;
#[cfg(feature = "cache-peers")]
mod peers;
mod reference;
mod scenarios;
mod sim;
mod stampede;
mod traces;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    overdrive_bench::main(scenarios::suite())
}
