//! Rate and concurrency limits against their peers.

mod distributed;
mod keyed;
mod limits;
mod ours;
mod overload;
#[cfg(feature = "ratelimit-peers")]
mod peers;

mod scenarios;
mod waiting;

use std::process::ExitCode;

use overdrive_bench::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    overdrive_bench::main(scenarios::suite())
}
