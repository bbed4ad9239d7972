//! The scenarios.

use overdrive_bench::Scenario;
use overdrive_bench::results::Role;

use crate::jobs::{JOINS, TASKS, join_fib, spawn_outside};
use crate::ours::{Installed, Joined, Spawned, VERSION};
use crate::reference::Sequential;

#[cfg(feature = "workstealing-peers")]
use crate::peers::{Chili, MpmcChannel, Rayon, RustyPool, Threadpool, Tokio};

const OURS: &str = "overdrive-workstealing";

/// All scenarios of thread pools.
pub(crate) fn suite() -> Vec<Scenario> {
    vec![fork_join(), outside()]
}

fn fork_join() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/join_fib",
        "a Fibonacci number by recursion, both calls joined down to the leaves; ns per join",
    )
    .input("fib(14), 609 joins of next to no work")
    .threads(&[1, 2, 4])
    .own_threads()
    .per_op(JOINS)
    .check_ops(10)
    .with(join_fib::<Joined>(Role::Ours, OURS, VERSION))
    .with(
        join_fib::<Installed>(Role::Context, "install", VERSION)
            .remark("the calling thread computes next to the workers: one thread more"),
    )
    .with(join_fib::<Sequential>(Role::Limit, "sequential", "std"));
    #[cfg(feature = "workstealing-peers")]
    let scenario = scenario
        .with(join_fib::<Chili>(Role::Peer, "chili", &version("chili")))
        .with(join_fib::<Rayon>(Role::Peer, "rayon", &version("rayon")));
    scenario
}

fn outside() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/spawn_outside",
        "spawn 1,000 tasks from outside and wait until all ran; ns per task",
    )
    .input("closures of 32 bytes that count themselves")
    .threads(&[1, 2])
    .own_threads()
    .per_op(TASKS)
    .check_ops(10)
    .with(spawn_outside::<Spawned>(Role::Ours, OURS, VERSION));
    #[cfg(feature = "workstealing-peers")]
    let scenario = {
        const PEER: Role = Role::Peer;
        let channel = version("crossbeam-channel");
        scenario
            .with(spawn_outside::<MpmcChannel>(PEER, "mpmc-channel", &channel))
            .with(spawn_outside::<Rayon>(PEER, "rayon", &version("rayon")))
            .with(spawn_outside::<RustyPool>(
                PEER,
                "rusty_pool",
                &version("rusty_pool"),
            ))
            .with(spawn_outside::<Threadpool>(
                PEER,
                "threadpool",
                &version("threadpool"),
            ))
            .with(spawn_outside::<Tokio>(PEER, "tokio", &version("tokio")))
    };
    scenario
}

/// The version that the benchmark was built with.
#[cfg(feature = "workstealing-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}
