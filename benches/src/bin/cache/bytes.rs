//! Memory for an entry.

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario, alloc};

use crate::memory::{Memory, Size, value_of};
use crate::ours::{self, Ours};
#[cfg(feature = "cache-peers")]
use crate::peers::*;

const CAPACITIES: [usize; 2] = [100_000, 1 << 20];

pub(crate) fn bytes_per_entry() -> Scenario {
    let scenario = Scenario::bytes(
        "cache/bytes_per_entry",
        "memory for an entry of a full cache, key and value included",
    )
    .input("u64 to u64, after three times as many insertions as fit; the worse of 100,000 and 2^20")
    .slow();
    let timed = |size| {
        let hour = std::time::Duration::from_secs(3_600);
        ours::build(ours::builder::<u64, u64>(size).ttl(hour))
    };
    let scenario = scenario
        .with(weighed(Role::Ours, ours::NAME, ours::VERSION, timed))
        .with(weighed(
            Role::Context,
            "no-ttl",
            ours::VERSION,
            <Ours<_, _>>::new,
        ));
    #[cfg(feature = "cache-peers")]
    let scenario = {
        let (peer, context, foyer, of) =
            (Role::Peer, Role::Context, version("foyer-memory"), version);
        let quick = <QuickCache<_, _> as Memory<u64, u64>>::new;
        let moka = |size: Size| {
            let cache = moka::sync::Cache::<u64, u64>::builder().max_capacity(size.capacity as u64);
            let hour = std::time::Duration::from_secs(3_600);
            cache
                .time_to_live(hour)
                .build_with_hasher(crate::memory::Hasher::default())
        };
        let mini_moka = |size: Size| {
            let cache =
                mini_moka::sync::Cache::<u64, u64>::builder().max_capacity(size.capacity as u64);
            let hour = std::time::Duration::from_secs(3_600);
            cache
                .time_to_live(hour)
                .build_with_hasher(crate::memory::Hasher::default())
        };
        scenario
            .with(weighed(peer, "quick_cache", &of("quick_cache"), quick))
            .with(weighed(peer, "moka", &of("moka"), moka))
            .with(weighed(peer, "mini-moka", &of("mini-moka"), mini_moka))
            .with(weighed(
                peer,
                "foyer-s3fifo",
                &foyer,
                <Foyer<_, _, FoyerS3>>::new,
            ))
            .with(weighed(
                peer,
                "foyer-lfu",
                &foyer,
                <Foyer<_, _, FoyerLfu>>::new,
            ))
            .with(weighed(
                peer,
                "tinyufo",
                &of("TinyUFO"),
                <tinyufo::TinyUfo<_, _> as Memory<_, _>>::new,
            ))
            .with(weighed(
                context,
                "scc",
                &of("scc"),
                <Scc<_, _> as Memory<_, _>>::new,
            ))
            .with(weighed(
                context,
                "mutex-lru",
                &of("lru"),
                <MutexLru<_, _>>::new,
            ))
            .with(crate::scenarios::wrong_stretto())
    };
    scenario
}

/// The checksum is the number of insertions.
fn weighed<C: Memory<u64, u64>>(
    role: Role,
    name: &str,
    version: &str,
    make: impl Fn(Size) -> C + 'static,
) -> Contender {
    Contender::once(role, name, version, move |_| {
        let mut figure = Figure::default();
        for capacity in CAPACITIES {
            let (cache, stats) = alloc::measure(|| {
                let cache = make(Size::of(capacity));
                for key in 0..3 * capacity as u64 {
                    cache.insert(key, value_of(key));
                    figure.check += 1;
                }
                cache.settle();
                cache
            });
            drop(cache);
            let bytes = stats.live as f64 / capacity as f64;
            figure.points.push((format!("entries@{capacity}"), bytes));
            figure.value = figure.value.max(bytes);
        }
        figure
    })
}
