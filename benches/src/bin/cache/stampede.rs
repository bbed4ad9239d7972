//! Many who want one value that is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario};
use overdrive_tiered_cache::{Cache, TieredCache};

use crate::ours;
#[cfg(feature = "cache-peers")]
use crate::peers::{QuickCache, version};

const CALLERS: u64 = 1_000;

/// A cache with an asynchronous loader. A clone is a handle.
pub(crate) trait Stampede: Clone + Send + Sync + 'static {
    fn new() -> Self;
    fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> impl Future<Output = Option<u64>> + Send;
}

pub(crate) fn stampede() -> Scenario {
    let scenario = Scenario::count(
        "cache/stampede_1000",
        "1,000 tasks load one key at a time; the first of them is aborted while it waits",
        "loader calls",
    )
    .input("a loader that takes 20 ms")
    .threads(&[2])
    .slow();
    let memory = calls::<Cache<u64, u64>>(Role::Context, "memory-only", ours::VERSION).remark(
        "without a runtime of its own, the value is made by its callers: who leaves takes it along",
    );
    let scenario = scenario
        .with(calls::<TieredCache<u64, u64>>(
            Role::Ours,
            ours::NAME,
            ours::VERSION,
        ))
        .with(memory);
    #[cfg(feature = "cache-peers")]
    let scenario = scenario
        .with(calls::<moka::future::Cache<u64, u64>>(
            Role::Peer,
            "moka",
            &version("moka"),
        ))
        .with(calls::<Arc<QuickCache<u64, u64>>>(
            Role::Peer,
            "quick_cache",
            &version("quick_cache"),
        ));
    scenario
}

fn calls<C: Stampede>(role: Role, name: &str, version: &str) -> Contender {
    Contender::once(role, name, version, |_| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        };
        runtime.block_on(async {
            let (cache, calls) = (C::new(), Arc::new(AtomicU64::new(0)));
            let ask = || {
                let calls = Arc::clone(&calls);
                tokio::spawn(cache.clone().load(1, async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(7)
                }))
            };
            let first = ask();
            while calls.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let others: Vec<_> = (1..CALLERS).map(|_| ask()).collect();
            first.abort();
            let mut check = 0;
            for other in others {
                check += other.await.ok().flatten().unwrap_or(0);
            }
            Figure {
                value: calls.load(Ordering::Relaxed) as f64,
                check,
                ..Figure::default()
            }
        })
    })
}
