//! The scenarios.

use overdrive_bench::Scenario;
use overdrive_bench::results::Role;

use crate::figures;
use crate::jobs::{
    self, JOINS, LARGE, PRODUCERS, SMALL, TASKS, TREE, join_fib, join_tree, round_trip,
};
use crate::ours::{Here, Installed, Joined, Spawned, There, VERSION};
use crate::programs::{self, program};
use crate::reference::{RightFirst, Sequential};

#[cfg(feature = "workstealing-peers")]
use crate::peers::{
    Affinity, AsyncExecutor, Chili, MpmcChannel, Rayon, RustyPool, Threadpool, Tokio, TokioBlocking,
};

/// The contenders of a scenario of spawning.
macro_rules! spawning {
    ($scenario:expr, $make:path, $per_op:expr) => {{
        use $make as make;
        let scenario = $scenario
            .input("closures of 32 bytes that count themselves")
            .threads(&[1, 2])
            .own_threads()
            .per_op($per_op)
            .check_ops(3)
            .with(make::<Spawned>(Role::Ours, OURS, VERSION));
        #[cfg(feature = "workstealing-peers")]
        let scenario = {
            const PEER: Role = Role::Peer;
            scenario
                .with(make::<AsyncExecutor>(
                    PEER,
                    "async-executor",
                    &version("async-executor"),
                ))
                .with(make::<MpmcChannel>(
                    PEER,
                    "mpmc-channel",
                    &version("crossbeam-channel"),
                ))
                .with(make::<Rayon>(PEER, "rayon", &version("rayon")))
                .with(make::<RustyPool>(
                    PEER,
                    "rusty_pool",
                    &version("rusty_pool"),
                ))
                .with(make::<Threadpool>(
                    PEER,
                    "threadpool",
                    &version("threadpool"),
                ))
                .with(make::<Tokio>(PEER, "tokio", &version("tokio")))
                .with(make::<TokioBlocking>(
                    PEER,
                    "spawn_blocking",
                    &version("tokio"),
                ))
        };
        scenario
    }};
}

/// The contenders of a scenario that counts CPU time.
macro_rules! counting {
    ($scenario:expr, $make:path) => {{
        use $make as make;
        let scenario =
            $scenario
                .threads(&[2])
                .slow()
                .with(make::<Spawned>(Role::Ours, OURS, VERSION));
        #[cfg(feature = "workstealing-peers")]
        let scenario = {
            const PEER: Role = Role::Peer;
            scenario
                .with(make::<MpmcChannel>(
                    PEER,
                    "mpmc-channel",
                    &version("crossbeam-channel"),
                ))
                .with(make::<Rayon>(PEER, "rayon", &version("rayon")))
                .with(make::<Threadpool>(
                    PEER,
                    "threadpool",
                    &version("threadpool"),
                ))
                .with(make::<Tokio>(PEER, "tokio", &version("tokio")))
        };
        scenario
    }};
}

/// A whole program, with the peer whose `join` needs no context.
macro_rules! whole {
    ($name:literal, $about:literal, $per_op:expr, $program:ident) => {{
        let scenario = Scenario::time(concat!("workstealing/", $name), $about)
            .threads(&[2])
            .own_threads()
            .slow()
            .per_op($per_op)
            .check_ops(1)
            .with(program::<Joined>(
                programs::$program::<Joined>,
                Role::Ours,
                OURS,
                VERSION,
            ))
            .with(program::<Sequential>(
                programs::$program::<Sequential>,
                Role::Limit,
                "sequential",
                "std",
            ));
        #[cfg(feature = "workstealing-peers")]
        let scenario = scenario.with(program::<Rayon>(
            programs::$program::<Rayon>,
            Role::Peer,
            "rayon",
            &version("rayon"),
        ));
        scenario
    }};
}

const OURS: &str = "overdrive-workstealing";

/// All scenarios of thread pools.
pub(crate) fn suite() -> Vec<Scenario> {
    vec![
        fork_join(),
        tree(
            "workstealing/join_tree_small",
            "16,383 nodes, 512 KiB",
            SMALL,
        ),
        tree("workstealing/join_tree_8mb", "262,143 nodes, 8 MiB", LARGE),
        outside(),
        inside(),
        recursive(),
        producers(),
        inline(),
        remote(),
        urgent(),
        trickle(),
        idle(),
        ticks(),
        whole!(
            "quicksort",
            "200,000 numbers sorted; ns per number",
            programs::NUMBERS,
            quicksort
        ),
        whole!(
            "nbody",
            "forces between 600 bodies; ns per body",
            programs::BODIES as u64,
            nbody
        ),
        whole!(
            "uts",
            "nodes of an unbalanced tree counted; ns per tree",
            1,
            uts
        ),
        whole!(
            "wordcount",
            "60,000 words counted; ns per word",
            programs::WORDS,
            wordcount
        ),
    ]
}

fn fork_join() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/join_fib",
        "a Fibonacci number by recursion, both calls joined down to the leaves; ns per join",
    )
    .input("fib(27), 317,810 joins of next to no work")
    .threads(&[1, 2, 4])
    .own_threads()
    .per_op(JOINS)
    .check_ops(2)
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

fn tree(id: &str, input: &str, levels: u32) -> Scenario {
    let about = "the sum of a binary tree, both subtrees joined down to the leaves; ns per node";
    let scenario = Scenario::time(id, about)
        .input(input)
        .threads(&[1, 2, 4])
        .own_threads()
        .per_op((1 << levels) - 1)
        .check_ops(2)
        .with(join_tree::<Joined>(levels, Role::Ours, OURS, VERSION))
        .with(
            join_tree::<Installed>(levels, Role::Context, "install", VERSION)
                .remark("the calling thread computes next to the workers: one thread more"),
        )
        .with(
            join_tree::<RightFirst>(levels, Role::Context, "right first", "std")
                .remark("sequential, the right subtree first: as chili does"),
        )
        .with(join_tree::<Sequential>(
            levels,
            Role::Limit,
            "sequential",
            "std",
        ));
    #[cfg(feature = "workstealing-peers")]
    let scenario = scenario
        .with(join_tree::<Chili>(
            levels,
            Role::Peer,
            "chili",
            &version("chili"),
        ))
        .with(join_tree::<Rayon>(
            levels,
            Role::Peer,
            "rayon",
            &version("rayon"),
        ));
    scenario
}

fn outside() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/spawn_outside",
        "spawn 1,000 tasks from outside and wait until all ran; ns per task",
    );
    spawning!(scenario, jobs::spawn_outside, TASKS)
}

fn inside() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/spawn_inside",
        "a task spawns 1,000 tasks; wait until all ran; ns per task",
    );
    spawning!(scenario, jobs::spawn_inside, TASKS)
}

fn recursive() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/spawn_recursive",
        "tasks that spawn two tasks each, ten levels; wait until all ran; ns per task",
    );
    spawning!(scenario, jobs::spawn_recursive, TREE)
}

fn producers() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/producers_4",
        "four threads spawn 1,000 tasks each; wait until all ran; ns per task",
    );
    spawning!(scenario, jobs::producers, PRODUCERS * TASKS)
}

fn inline() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/round_trip_inline",
        "the result of one closure in the pool, by whichever thread; ns per closure",
    )
    .input("a multiplication; the pool has one worker")
    .threads(&[1])
    .own_threads()
    .with(round_trip::<Here>(Role::Ours, OURS, VERSION).remark("`install`: the caller runs it"));
    #[cfg(feature = "workstealing-peers")]
    let scenario = asking(scenario);
    scenario
}

fn remote() -> Scenario {
    let scenario = Scenario::time(
        "workstealing/round_trip_remote",
        "the result of one closure that a worker runs; ns per closure",
    )
    .input("a multiplication; the pool has two workers")
    .threads(&[2])
    .own_threads()
    .with(round_trip::<There>(Role::Ours, OURS, VERSION));
    #[cfg(feature = "workstealing-peers")]
    let scenario = asking(scenario);
    scenario
}

fn urgent() -> Scenario {
    let scenario = Scenario::count(
        "workstealing/urgent_behind_10k",
        "until an urgent task begins behind 10,000 of 5 us; median of 5",
        "us",
    )
    .threads(&[2])
    .slow()
    .with(figures::urgent_ours(OURS, VERSION));
    #[cfg(feature = "workstealing-peers")]
    let scenario = scenario
        .with(figures::urgent::<MpmcChannel>(
            Role::Peer,
            "mpmc-channel",
            &version("crossbeam-channel"),
        ))
        .with(figures::urgent::<Rayon>(
            Role::Peer,
            "rayon",
            &version("rayon"),
        ))
        .with(figures::urgent::<Tokio>(
            Role::Peer,
            "tokio",
            &version("tokio"),
        ));
    scenario
}

fn trickle() -> Scenario {
    let scenario = Scenario::count(
        "workstealing/trickle_cpu",
        "CPU per task at one task per millisecond, beyond that of the sleeping loop",
        "us",
    );
    counting!(scenario, figures::trickle)
}

fn idle() -> Scenario {
    let scenario = Scenario::count(
        "workstealing/idle_cpu",
        "CPU of a pool in two seconds without work",
        "ms",
    );
    counting!(scenario, figures::idle)
}

fn ticks() -> Scenario {
    let scenario = Scenario::count(
        "workstealing/tick_burst",
        "a tick of twelve bursts of eight jobs of 2 us, with serial work between; median",
        "us",
    )
    .threads(&[2])
    .slow()
    .with(figures::ticks::<Joined>(Role::Ours, OURS, VERSION))
    .with(figures::ticks::<Sequential>(
        Role::Limit,
        "sequential",
        "std",
    ));
    #[cfg(feature = "workstealing-peers")]
    let scenario = scenario.with(figures::ticks::<Rayon>(
        Role::Peer,
        "rayon",
        &version("rayon"),
    ));
    scenario
}

#[cfg(feature = "workstealing-peers")]
fn asking(scenario: Scenario) -> Scenario {
    const PEER: Role = Role::Peer;
    scenario
        .with(round_trip::<Affinity>(
            PEER,
            "affinitypool",
            &version("affinitypool"),
        ))
        .with(round_trip::<AsyncExecutor>(
            PEER,
            "async-executor",
            &version("async-executor"),
        ))
        .with(round_trip::<MpmcChannel>(
            PEER,
            "mpmc-channel",
            &version("crossbeam-channel"),
        ))
        .with(round_trip::<Rayon>(PEER, "rayon", &version("rayon")))
        .with(round_trip::<RustyPool>(
            PEER,
            "rusty_pool",
            &version("rusty_pool"),
        ))
        .with(round_trip::<Tokio>(PEER, "tokio", &version("tokio")))
        .with(round_trip::<TokioBlocking>(
            PEER,
            "spawn_blocking",
            &version("tokio"),
        ))
}

/// The version that the benchmark was built with.
#[cfg(feature = "workstealing-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}
