//! What it costs an item to get from stage to stage.

use std::hint::black_box;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_pipeline::Pipeline;

use crate::{OURS, VERSION};

/// The work of a stage: a step of a linear congruential generator.
#[inline(always)]
fn step(n: u64) -> u64 {
    n.wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

type Run = fn(u64) -> u64;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let scenario = |id, about| {
        Scenario::time(id, about).input("u64, a multiplication and an addition per stage, summed")
    };
    let one = scenario("pipeline/hop_1", "an item through one trivial stage");
    let four = scenario("pipeline/hop_4", "an item through four trivial stages");
    vec![hops::<1>(one), hops::<4>(four)]
}

fn hops<const STAGES: usize>(scenario: Scenario) -> Scenario {
    let row = |role, name: &str, version: &str, run: Run| {
        Contender::time(role, name, version, move |_| {
            move |_| move |ops| run(black_box(ops))
        })
    };
    let scenario = scenario
        .check_ops(1000)
        .with(row(Role::Ours, OURS, VERSION, ours::<STAGES>))
        .with(row(Role::Limit, "loop", "std", by_hand::<STAGES>))
        .with(row(
            Role::Reference,
            "boxed iterators",
            "std",
            boxed::<STAGES>,
        ))
        .with(row(Role::Context, "iterator", "std", chained::<STAGES>));
    #[cfg(feature = "pipeline-peers")]
    let scenario = {
        use crate::version;
        scenario
            .with(row(
                Role::Peer,
                "pipe-io",
                &version("pipe-io"),
                peers::pipe_io::<STAGES>,
            ))
            .with(row(
                Role::Peer,
                "pariter",
                &version("pariter"),
                peers::pariter::<STAGES>,
            ))
            .with(row(
                Role::Context,
                "futures map",
                &version("futures-util"),
                peers::futures::<STAGES>,
            ))
    };
    scenario
}

fn ours<const STAGES: usize>(items: u64) -> u64 {
    let mut sum = 0_u64;
    let source = Pipeline::from_iter(0..items);
    let run = if STAGES == 1 {
        source.map(step).run(|n| sum = sum.wrapping_add(n))
    } else {
        let run = source.map(step).map(step).map(step).map(step);
        run.run(|n| sum = sum.wrapping_add(n))
    };
    assert!(run.is_ok());
    sum
}

fn by_hand<const STAGES: usize>(items: u64) -> u64 {
    let mut sum = 0_u64;
    for item in 0..items {
        let item = (0..STAGES).fold(black_box(item), |n, _| step(n));
        sum = sum.wrapping_add(item);
    }
    sum
}

/// What one writes whose stages are chosen at run time.
fn boxed<const STAGES: usize>(items: u64) -> u64 {
    let mut stages: Box<dyn Iterator<Item = u64>> = Box::new(0..items);
    for _ in 0..STAGES {
        stages = Box::new(stages.map(step));
    }
    black_box(stages).fold(0, u64::wrapping_add)
}

fn chained<const STAGES: usize>(items: u64) -> u64 {
    let source = (0..items).map(black_box);
    if STAGES == 1 {
        source.map(step).fold(0, u64::wrapping_add)
    } else {
        let stages = source.map(step).map(step).map(step).map(step);
        stages.fold(0, u64::wrapping_add)
    }
}

#[cfg(feature = "pipeline-peers")]
mod peers {
    use futures_util::StreamExt;
    use pariter::IteratorExt;

    use super::step;

    /// `run`, its driver on the calling thread.
    pub(super) fn pipe_io<const STAGES: usize>(items: u64) -> u64 {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};

        let sum = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&sum);
        let mut part = 0_u64;
        let last = items.wrapping_sub(1);
        let mut seen = 0;
        // The sink adds up on its own and stores the sum with the last item.
        let sink = move |n: u64| {
            part = part.wrapping_add(n);
            if seen == last {
                total.store(part, Ordering::Relaxed);
            }
            seen += 1;
            Ok::<(), pipe_io::Error>(())
        };
        let source = pipe_io::Pipeline::from_iter(0..items);
        let run = if STAGES == 1 {
            source
                .map(step)
                .sink(pipe_io::sink::FnSink::new(sink))
                .run()
        } else {
            let stages = source.map(step).map(step).map(step).map(step);
            stages.sink(pipe_io::sink::FnSink::new(sink)).run()
        };
        assert!(run.is_ok());
        sum.load(Ordering::Relaxed)
    }

    /// `parallel_map` with one thread per stage.
    pub(super) fn pariter<const STAGES: usize>(items: u64) -> u64 {
        let mut stages: Box<dyn Iterator<Item = u64> + Send> = Box::new(0..items);
        for _ in 0..STAGES {
            stages = Box::new(stages.parallel_map_custom(|options| options.threads(1), step));
        }
        stages.fold(0, u64::wrapping_add)
    }

    /// Streams of one task.
    pub(super) fn futures<const STAGES: usize>(items: u64) -> u64 {
        let source = futures_util::stream::iter(0..items).map(std::hint::black_box);
        let sum = |sum: u64, n: u64| async move { sum.wrapping_add(n) };
        futures_executor::block_on(async {
            if STAGES == 1 {
                source.map(step).fold(0, sum).await
            } else {
                let stages = source.map(step).map(step).map(step).map(step);
                stages.fold(0, sum).await
            }
        })
    }
}
