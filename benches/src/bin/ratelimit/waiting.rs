//! Waiting for tokens.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario, process_cpu};

use crate::ours;
#[cfg(feature = "ratelimit-peers")]
use crate::peers;

/// A limiter that can be waited for.
pub(crate) trait Wait: Send + Sync + Sized + 'static {
    fn new(per_second: u32, burst: u32) -> Self;
    fn wait(&self) -> impl Future<Output = ()> + Send;
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![wait()]
}

fn wait() -> Scenario {
    let about = "processor time of one wait, when all of them wait at once";
    let scenario = Scenario::count("ratelimit/wait_10k", about, "us")
        .input("10,000 tasks on two workers; 20,000 a second, 100 at once")
        .slow()
        .threads(&[2])
        .with(waits::<ours::Waiting>(
            Role::Ours,
            "overdrive-ratelimit",
            ours::VERSION,
        ));
    #[cfg(feature = "ratelimit-peers")]
    let scenario = scenario
        .with(waits::<peers::GovernorWaiting>(
            Role::Peer,
            "governor",
            &crate::scenarios::version("governor"),
        ))
        .with(waits::<leaky_bucket::RateLimiter>(
            Role::Peer,
            "leaky-bucket",
            &crate::scenarios::version("leaky-bucket"),
        ));
    scenario
}

fn waits<L: Wait>(role: Role, name: &str, version: &str) -> Contender {
    const WAITERS: u32 = 10_000;
    const RATE: u32 = 20_000;
    const BURST: u32 = 100;
    Contender::once(role, name, version, |_| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        };
        let (before, start) = (process_cpu(), Instant::now());
        let served = runtime.block_on(async {
            let limiter = Arc::new(L::new(RATE, BURST));
            let tasks: Vec<_> = (0..WAITERS)
                .map(|_| {
                    let limiter = Arc::clone(&limiter);
                    tokio::spawn(async move { limiter.wait().await })
                })
                .collect();
            let mut served = 0;
            for task in tasks {
                served += u64::from(task.await.is_ok());
            }
            served
        });
        let (took, used) = (
            start.elapsed(),
            Duration::from_nanos(process_cpu() - before),
        );
        let ideal = f64::from(WAITERS - BURST) / f64::from(RATE);
        let mut figure = Figure {
            value: used.as_secs_f64() * 1e6 / f64::from(WAITERS),
            check: served,
            ..Figure::default()
        };
        let over = took.as_secs_f64() / ideal;
        figure.metrics.insert("wall_over_ideal".into(), over);
        figure
    })
}
