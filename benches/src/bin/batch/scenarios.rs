//! The scenarios.

use overdrive_bench::Scenario;
use overdrive_bench::results::Role;

use crate::jobs::{Submit, closed_loop};
use crate::ours::{self, VERSION};
use crate::parallel;
#[cfg(feature = "batch-peers")]
use crate::peers::{AintOne, Batchly, Ultra};
use crate::reference::MpscOneshot;

/// All scenarios of batching.
pub(crate) fn suite() -> Vec<Scenario> {
    vec![
        noop_100(),
        lone_loop(),
        parallel::ready_scenario(),
        parallel::yield_scenario(),
        parallel::short_scenario(),
    ]
}

/// The version that the benchmark was built with.
pub(crate) fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}

fn noop_100() -> Scenario {
    let scenario = Scenario::time(
        "batch/noop_100",
        "100 tasks, each submits an item and awaits its own result; the handler adds one",
    )
    .input("u64; batches of up to 100; a runtime with two workers")
    .threads(&[2])
    .own_threads()
    .per_op(100)
    .check_ops(20);
    let scenario = row(
        scenario,
        100,
        Role::Context,
        "one worker",
        VERSION,
        ours::one_worker,
    );
    let scenario = everybody(scenario, 100);
    #[cfg(feature = "batch-peers")]
    let scenario = {
        let ultra = version("ultra-batch");
        row(scenario, 100, Role::Peer, "ultra-batch", &ultra, Ultra::new)
    };
    scenario
}

fn lone_loop() -> Scenario {
    let scenario = Scenario::time(
        "batch/lone_loop",
        "one task submits an item, awaits its result, and so on: nothing to batch",
    )
    .input("u64; a runtime with one worker; everybody without a timer")
    .own_threads()
    .check_ops(100);
    let scenario = everybody(scenario, 1);
    #[cfg(feature = "batch-peers")]
    let scenario = {
        let ultra = version("ultra-batch");
        let make = Ultra::without_delay;
        let scenario = row(scenario, 1, Role::Peer, "ultra-batch", &ultra, make);
        row(
            scenario,
            1,
            Role::Context,
            "ultra-batch 1 ms",
            &ultra,
            Ultra::new,
        )
    };
    scenario
}

/// Ours, the reference, and the peers that have no timer.
fn everybody(scenario: Scenario, tasks: u64) -> Scenario {
    let (context, tokio) = (Role::Context, version("tokio"));
    let scenario = row(
        scenario,
        tasks,
        Role::Ours,
        "overdrive-batch",
        VERSION,
        ours::standard,
    );
    let scenario = row(
        scenario,
        tasks,
        context,
        "immediate",
        VERSION,
        ours::immediate,
    );
    let scenario = row(
        scenario,
        tasks,
        Role::Reference,
        "mpsc-oneshot",
        &tokio,
        MpscOneshot::new,
    );
    #[cfg(feature = "batch-peers")]
    let scenario = {
        let (aint, batchly) = ("batch-aint-one", "benjamin_batchly");
        let scenario = row(
            scenario,
            tasks,
            Role::Peer,
            aint,
            &version(aint),
            AintOne::new,
        );
        row(
            scenario,
            tasks,
            Role::Peer,
            batchly,
            &version(batchly),
            Batchly::new,
        )
    };
    scenario
}

fn row<S: Submit>(
    scenario: Scenario,
    tasks: u64,
    role: Role,
    name: &str,
    version: &str,
    make: fn() -> S,
) -> Scenario {
    scenario.with(closed_loop(tasks, role, name, version, make))
}
