//! Hit ratios.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario, Setup};

use crate::memory::{Memory, Size};
use crate::ours::{self, Ours};
#[cfg(feature = "cache-peers")]
use crate::peers::*;
use crate::sim;
use crate::traces::{Trace, traces};

/// Below it, what a peer has put off is a good part of the cache, and flatters it.
#[cfg(feature = "cache-peers")]
const LEAST_FOR_MOKA: usize = 500;

/// The hit ratio of one contender on one trace, at one capacity.
type Ratio = fn(&Trace, usize) -> f64;

/// Peers whose figures count, and the least capacity at which they do.
fn peers() -> Vec<(&'static str, Ratio, usize)> {
    #[cfg(feature = "cache-peers")]
    return vec![
        ("quick_cache", replay::<QuickCache<u64, u64>>, 0),
        ("foyer-fifo", replay::<Foyer<u64, u64, FoyerFifo>>, 0),
        ("foyer-lru", replay::<Foyer<u64, u64, FoyerLru>>, 0),
        ("foyer-lfu", replay::<Foyer<u64, u64, FoyerLfu>>, 0),
        ("foyer-s3fifo", replay::<Foyer<u64, u64, FoyerS3>>, 0),
        ("foyer-sieve", replay::<Foyer<u64, u64, FoyerSieve>>, 0),
        ("tinyufo", replay::<tinyufo::TinyUfo<u64, u64>>, 0),
        ("moka", replay::<Moka<u64, u64>>, LEAST_FOR_MOKA),
        ("mini-moka", replay::<MiniMoka<u64, u64>>, LEAST_FOR_MOKA),
    ];
    #[cfg(not(feature = "cache-peers"))]
    Vec::new()
}

pub(crate) fn hit_ratio() -> Scenario {
    let scenario = Scenario::ratio(
        "cache/hit_ratio",
        "get a value, or store it: which part of the requests are hits",
        "hits",
    )
    .input("each trace at 2, 10 and 30 % of its distinct keys, at least 100")
    .slow();
    let ours: Ratio = replay::<Ours<u64, u64>>;
    let mut scenario = scenario.with(Contender::once(
        Role::Ours,
        ours::NAME,
        ours::VERSION,
        move |setup| {
            let mut figure = over_all(setup, ours::NAME, ours, 0);
            figure
                .metrics
                .insert("worst_point_pp".into(), worst(setup, ours));
            figure
        },
    ));
    let limit: Ratio = |trace, capacity| sim::best_hit_ratio(&trace.keys, capacity);
    scenario = scenario.with(row(Role::Limit, "opt", "1966", limit));
    let references: [(&str, Ratio); 7] = [
        ("sim-fifo", simulate::<sim::Fifo>),
        ("sim-lru", simulate::<sim::Lru>),
        ("sim-sieve", simulate::<sim::Sieve>),
        ("sim-s3fifo", simulate::<sim::S3Fifo>),
        ("sim-w-tinylfu", simulate::<sim::TinyLfu>),
        ("sim-arc", simulate::<sim::Arc>),
        ("sim-lirs", simulate::<sim::Lirs>),
    ];
    for (name, ratio) in references {
        scenario = scenario.with(row(Role::Reference, name, "paper", ratio));
    }
    let rules: Ratio = simulate::<sim::Rules>;
    scenario = scenario.with(row(Role::Context, "rules", ours::VERSION, rules));
    #[cfg(feature = "cache-peers")]
    for (name, ratio, least) in peers() {
        let package = match name {
            "tinyufo" => "TinyUFO",
            name if name.starts_with("foyer") => "foyer-memory",
            name => name,
        };
        let peer = Contender::once(Role::Peer, name, &version(package), move |setup| {
            over_all(setup, name, ratio, least)
        });
        scenario = scenario.with(if least > 0 {
            peer.remark("below 500 entries its mean takes the best other peer's figures")
        } else {
            peer
        });
    }
    #[cfg(feature = "cache-peers")]
    let scenario = scenario.with(crate::scenarios::wrong_stretto());
    scenario
}

fn row(role: Role, name: &'static str, version: &str, ratio: Ratio) -> Contender {
    Contender::once(role, name, version, move |setup| {
        over_all(setup, name, ratio, 0)
    })
}

/// The mean of all points; where the contender has none, of the best peer's there.
fn over_all(setup: &Setup, name: &str, ratio: Ratio, least: usize) -> Figure {
    let mut figure = Figure::default();
    let mut n = 0.0;
    for trace in traces(setup).iter() {
        figure.check = (trace.keys.iter()).fold(figure.check, |sum, key| sum.wrapping_add(*key));
        for &capacity in &trace.capacities {
            n += 1.0;
            if capacity < least {
                figure.value += best(trace, capacity).unwrap_or(0.0);
                continue;
            }
            let ratio = once(name, ratio, trace, capacity);
            figure.value += ratio;
            let point = format!("{}@{capacity}", trace.name);
            figure.points.push((point, ratio));
        }
    }
    figure.value /= n;
    figure
}

/// The best of the peers that count at this capacity.
fn best(trace: &Trace, capacity: usize) -> Option<f64> {
    let counted = peers().into_iter().filter(|&(.., least)| capacity >= least);
    let ratios = counted.map(|(name, ratio, _)| once(name, ratio, trace, capacity));
    ratios.reduce(f64::max)
}

/// By how many points of a hundred the best peer is better where it is that most.
fn worst(setup: &Setup, ours: Ratio) -> f64 {
    let mut worst = 0.0_f64;
    for trace in traces(setup).iter() {
        for &capacity in &trace.capacities {
            let best = best(trace, capacity).unwrap_or(0.0);
            let behind = best - once(ours::NAME, ours, trace, capacity);
            worst = worst.max(100.0 * behind);
        }
    }
    worst
}

/// Runs it at most once in a process.
fn once(name: &str, ratio: Ratio, trace: &Trace, capacity: usize) -> f64 {
    type Known = Option<HashMap<String, f64>>;
    static KNOWN: Mutex<Known> = Mutex::new(None);
    let point = format!("{name} {}@{capacity}", trace.name);
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&ratio) = lock().get_or_insert_default().get(&point) {
        return ratio;
    }
    let ratio = ratio(trace, capacity);
    lock().get_or_insert_default().insert(point, ratio);
    ratio
}

fn simulate<P: sim::Policy>(trace: &Trace, capacity: usize) -> f64 {
    sim::hit_ratio::<P>(&trace.keys, capacity)
}

fn replay<C: Memory<u64, u64>>(trace: &Trace, capacity: usize) -> f64 {
    let cache = Arc::new(C::new(Size::of(capacity)));
    let is_hit = |&&key: &&u64| {
        cache.get(&key).is_some() || {
            cache.insert(key, key);
            false
        }
    };
    let hits = trace.keys.iter().filter(is_hit).count();
    hits as f64 / trace.keys.len() as f64
}
