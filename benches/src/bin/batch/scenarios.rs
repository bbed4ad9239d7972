//! The scenarios of handlers that only take time.

use overdrive_bench::Scenario;
use overdrive_bench::results::Role;

use crate::jobs::{ClosedLoop, Cost, Limits, Noop, Sleep, Spin};
use crate::ours::{self, VERSION};
#[cfg(feature = "batch-peers")]
use crate::peers;
use crate::{database, parallel, reference, sync};

/// All scenarios of batching.
pub(crate) fn suite() -> Vec<Scenario> {
    let mut suite = vec![
        noop_100(),
        noop_1000(),
        noop_10000(),
        lone_loop(),
        loader_dup(),
        cpu_20us_100(),
        io_1ms_100(),
        sync::sync_32(),
    ];
    suite.extend(database::scenarios());
    suite.extend([
        parallel::ready_scenario(),
        parallel::yield_scenario(),
        parallel::short_scenario(),
    ]);
    suite
}

/// The version that the benchmark was built with.
pub(crate) fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}

/// What every scenario here asks for.
const LIMITS: Limits = Limits {
    max_size: 100,
    slots: 4,
    waits: false,
};

fn noop(id: &str, tasks: u64, rounds: u64) -> ClosedLoop<Noop> {
    let about = format!(
        "{tasks} tasks, each submits an item and awaits its own result; the handler adds one"
    );
    let scenario = Scenario::time(id, &about)
        .input("u64; batches of up to 100; a runtime with two workers")
        .threads(&[2])
        .check_ops(2);
    let rows = ClosedLoop::new(scenario, tasks, rounds, LIMITS)
        .row(
            Role::Ours,
            "overdrive-batch",
            VERSION,
            ours::standard::<Noop>,
        )
        .row(Role::Context, "immediate", VERSION, ours::immediate)
        .row(Role::Context, "one worker", VERSION, ours::one_worker)
        .row(Role::Context, "run by submitters", VERSION, ours::inline);
    all_peers(mpsc_oneshot(rows))
}

fn noop_100() -> Scenario {
    noop("batch/noop_100", 100, 10).scenario()
}

fn noop_1000() -> Scenario {
    noop("batch/noop_1000", 1_000, 10).scenario()
}

fn noop_10000() -> Scenario {
    noop("batch/noop_10000", 10_000, 6)
        .row(Role::Context, "capacity 16,384", VERSION, ours::roomy)
        .scenario()
        .slow()
}

fn loader_dup() -> Scenario {
    let scenario = Scenario::time(
        "batch/loader_dup",
        "100 tasks, each loads the value of a key; each key is loaded by two tasks",
    )
    .input(
        "u64; batches of up to 100 loads, found values in a hash map; a runtime with two workers",
    )
    .threads(&[2])
    .check_ops(2);
    let rows = ClosedLoop::new(scenario, 100, 10, LIMITS)
        .sharing(2)
        .row(Role::Ours, "overdrive-batch", VERSION, ours::loader)
        .row(Role::Context, "by place", VERSION, ours::loader_by_place);
    #[cfg(feature = "batch-peers")]
    let rows = peers::by_key(rows);
    rows.scenario()
}

fn lone_loop() -> Scenario {
    let scenario = Scenario::time(
        "batch/lone_loop",
        "one task submits an item, awaits its result, and so on: nothing to batch",
    )
    .input("u64; a runtime with one worker; everybody without a timer, then with one of 1 ms")
    .check_ops(100);
    let rows = ClosedLoop::new(scenario, 1, 1, LIMITS)
        .row(
            Role::Ours,
            "overdrive-batch",
            VERSION,
            ours::standard::<Noop>,
        )
        .row(Role::Context, "immediate", VERSION, ours::immediate)
        .row(Role::Context, "run by submitters", VERSION, ours::inline)
        .row(Role::Context, "linger 1 ms", VERSION, ours::linger_1ms);
    let rows = mpsc_oneshot(rows);
    #[cfg(feature = "batch-peers")]
    let rows = {
        let rows = peers::without_delay(peers::prompt(rows));
        peers::timed(Role::Context, rows)
    };
    rows.scenario()
}

fn cpu_20us_100() -> Scenario {
    let scenario = Scenario::time(
        "batch/cpu_20us_100",
        "100 tasks, each submits an item and awaits its own result; the handler computes for 20 us",
    )
    .input("u64; batches of up to 100; a runtime with two workers")
    .threads(&[2])
    .check_ops(2);
    let rows = ClosedLoop::new(scenario, 100, 10, LIMITS)
        .row(
            Role::Ours,
            "overdrive-batch",
            VERSION,
            ours::standard::<Spin>,
        )
        .row(Role::Context, "immediate", VERSION, ours::immediate)
        .row(Role::Context, "one worker", VERSION, ours::one_worker);
    all_peers(mpsc_oneshot(rows)).scenario()
}

fn io_1ms_100() -> Scenario {
    let scenario = Scenario::time(
        "batch/io_1ms_100",
        "100 tasks, each submits an item and awaits its own result; the handler waits for 1 ms",
    )
    .input("u64; batches of up to 100, four at a time; a runtime with two workers")
    .threads(&[2])
    .check_ops(1)
    .slow();
    let limits = Limits {
        waits: true,
        ..LIMITS
    };
    let rows = ClosedLoop::new(scenario, 100, 16, limits)
        .row(
            Role::Ours,
            "overdrive-batch",
            VERSION,
            ours::standard::<Sleep>,
        )
        .row(Role::Context, "one worker", VERSION, ours::one_worker)
        .row(Role::Limit, "direct", &version("tokio"), reference::direct)
        .row(
            Role::Reference,
            "mpsc-oneshot",
            &version("tokio"),
            reference::in_slots,
        );
    all_peers(rows).scenario()
}

/// One task that takes what there is.
fn mpsc_oneshot<C: Cost>(rows: ClosedLoop<C>) -> ClosedLoop<C> {
    rows.row(
        Role::Reference,
        "mpsc-oneshot",
        &version("tokio"),
        reference::in_place,
    )
}

fn all_peers<C: Cost>(rows: ClosedLoop<C>) -> ClosedLoop<C> {
    #[cfg(feature = "batch-peers")]
    let rows = peers::loaders(peers::timed(Role::Peer, peers::prompt(rows)));
    rows
}
