//! Measuring one scenario in one process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::alloc;
use crate::child::{Answer, LaunchRatio, Order, RowAnswer, disagreement};
use crate::latency;
use crate::results::{Kind, Role};
use crate::scenario::{Contender, Scenario, Setup, Work, Workers};
use crate::stats;
use crate::team::{Panicked, Slice, Team};

/// Long enough that two clock reads are a thousandth of it, short enough to be
/// mostly free of preemption.
pub(crate) const SOLO_SLICE: Duration = Duration::from_micros(40);
/// Long enough that starting a team is a thousandth of it.
const TEAM_SLICE: Duration = Duration::from_millis(1);
/// Even the slowest contender is heard this often.
const MIN_ROUNDS: usize = 7;
/// Confidence of the interval inside one process.
const CONFIDENCE: f64 = 0.99;

/// Carries out an order.
pub(crate) fn measure(scenario: &Scenario, order: &Order) -> Answer {
    let setup = order.setup();
    let mut chosen: Vec<&Contender> = scenario
        .contenders
        .iter()
        .filter(|c| !matches!(c.work, Work::KnownWrong))
        .filter(|c| order.rows.is_empty() || order.rows.contains(&c.name))
        .collect();
    // Built in another order in each launch, so that no contender always gets
    // the first page of the heap.
    fastrand::Rng::with_seed(order.seed).shuffle(&mut chosen);
    let result = match scenario.kind {
        Kind::Time => time(scenario, &chosen, &setup, order),
        Kind::Latency => latency::measure(scenario, &chosen, &setup, order),
        Kind::Bytes | Kind::Count | Kind::Ratio => Ok(once(&chosen, &setup)),
    };
    result.unwrap_or_else(|error| Answer {
        error: Some(error),
        ..Answer::default()
    })
}

fn once(chosen: &[&Contender], setup: &Setup) -> Answer {
    let mut answer = Answer::default();
    let mut checks = Vec::new();
    for contender in chosen {
        if let Work::Once(compute) = &contender.work {
            let figure = compute(setup);
            checks.push((contender.name.clone(), figure.check));
            answer.rows.push(RowAnswer {
                name: contender.name.clone(),
                value: figure.value,
                check: figure.check,
                against: None,
                metrics: figure.metrics.into_iter().collect(),
                points: figure.points,
            });
        }
    }
    answer.differ = disagreement(checks);
    answer
}

fn panicked(chosen: &[&Contender]) -> impl Fn(Panicked) -> String {
    move |p| format!("{} panicked", chosen[p.contender % chosen.len()].name)
}

/// Threads of the harness that drive the scenario.
pub(crate) fn drivers(scenario: &Scenario, threads: usize) -> usize {
    if scenario.own_threads { 1 } else { threads }
}

/// A team that runs each contender in so many instances: instance `i` of
/// contender `c` is the team's loop `i * contenders + c`.
pub(crate) fn team(
    scenario: &Scenario,
    chosen: &[&Contender],
    setup: &Setup,
    instances: usize,
) -> Result<Team, String> {
    let mut workers: Vec<Workers> = Vec::new();
    for contender in std::iter::repeat_n(chosen, instances).flatten() {
        if let Work::Time(make) = &contender.work {
            let made = catch_unwind(AssertUnwindSafe(|| make(setup)));
            workers.push(made.map_err(|_| format!("{} panicked while built", contender.name))?);
        }
    }
    let drivers = drivers(scenario, setup.threads);
    Team::new(drivers, workers, scenario.own_threads).map_err(panicked(chosen))
}

/// How many units of work a slice of `ops` operations per thread does in all.
fn units(scenario: &Scenario, threads: usize, ops: u64) -> f64 {
    let workers = if scenario.relay {
        1
    } else {
        drivers(scenario, threads)
    };
    (ops * scenario.per_op) as f64 * workers as f64
}

/// Several threads must overlap for long enough to meet.
const OVERLAP: u64 = 50;

/// Runs the answer check on every contender; the checksums.
pub(crate) fn check_time(
    scenario: &Scenario,
    chosen: &[&Contender],
    setup: &Setup,
    team: &mut Team,
) -> Result<Vec<(String, u64)>, String> {
    let ops = match drivers(scenario, setup.threads) {
        1 => scenario.check_ops,
        _ => scenario.check_ops * OVERLAP,
    };
    let mut checks = Vec::new();
    for (i, contender) in chosen.iter().enumerate() {
        let slice = team.slice(i, ops).map_err(panicked(chosen))?;
        checks.push((contender.name.clone(), slice.check));
    }
    Ok(checks)
}

fn time(
    scenario: &Scenario,
    chosen: &[&Contender],
    setup: &Setup,
    order: &Order,
) -> Result<Answer, String> {
    let instances = if setup.threads > 1 {
        1
    } else {
        scenario.instances
    };
    let mut team = team(scenario, chosen, setup, instances)?;
    let checks = check_time(scenario, chosen, setup, &mut team)?;
    let differ = disagreement(checks.clone());
    if !differ.is_empty() {
        return Ok(Answer {
            differ,
            ..Answer::default()
        });
    }
    // With threads of its own a slice begins with waking them, which must be little of it.
    let target = if setup.threads > 1 || scenario.own_threads {
        TEAM_SLICE
    } else {
        SOLO_SLICE
    };
    let ops = (0..chosen.len())
        .map(|i| slice_ops(&mut team, i, target))
        .collect::<Result<Vec<_>, _>>()
        .map_err(panicked(chosen))?;
    let rounds = rounds(&mut team, &ops, instances, order).map_err(panicked(chosen))?;
    let mut answer = summarise(scenario, chosen, setup.threads, &ops, &rounds);
    for (i, row) in answer.rows.iter_mut().enumerate() {
        row.check = checks[i].1;
        if chosen[i].counted {
            let units = |ops| units(scenario, setup.threads, ops);
            let (allocs, bytes) =
                allocations(&mut team, i, units, ops[i]).map_err(panicked(chosen))?;
            row.metrics.push(("allocs".into(), allocs));
            row.metrics.push(("bytes".into(), bytes));
        }
    }
    Ok(answer)
}

/// How many operations make a slice of about the target length: one, if one
/// takes longer.
fn slice_ops(team: &mut Team, contender: usize, target: Duration) -> Result<u64, Panicked> {
    let target = target.as_nanos() as f64;
    let mut ops = 1u64;
    loop {
        // The best of three: a preempted try must not shorten the slices.
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            best = best.min(team.slice(contender, ops)?.wall_ns as f64);
        }
        if best >= target / 4.0 || ops >= 1 << 40 {
            let exact = ops as f64 * target / best.max(1.0);
            return Ok((exact.round() as u64).max(1));
        }
        ops *= if best < target / 64.0 { 8 } else { 2 };
    }
}

/// Timed slices of every contender, in a new order each round, each after an
/// untimed slice of its own that fetches its data back into the caches.
fn rounds(
    team: &mut Team,
    ops: &[u64],
    instances: usize,
    order: &Order,
) -> Result<Vec<Vec<Slice>>, Panicked> {
    let mut rng = fastrand::Rng::with_seed(order.seed ^ 0x5bd1_e995);
    let budget = Duration::from_secs_f64(order.seconds.max(0.0)) * ops.len() as u32;
    // A warm-up doubles the time; a busy machine may double it again.
    let deadline = Instant::now() + budget * 5;
    let mut timed = Duration::ZERO;
    let mut rounds = Vec::new();
    let mut turn: Vec<usize> = (0..ops.len()).collect();
    while rounds.len() < MIN_ROUNDS || (timed < budget && Instant::now() < deadline) {
        rng.shuffle(&mut turn);
        let mut round = vec![Slice::default(); ops.len()];
        for &contender in &turn {
            let instance = rng.usize(..instances) * ops.len() + contender;
            team.slice(instance, ops[contender])?;
            round[contender] = team.slice(instance, ops[contender])?;
            timed += Duration::from_nanos(round[contender].wall_ns);
        }
        rounds.push(round);
    }
    Ok(rounds)
}

fn summarise(
    scenario: &Scenario,
    chosen: &[&Contender],
    threads: usize,
    ops: &[u64],
    rounds: &[Vec<Slice>],
) -> Answer {
    let ours = chosen.iter().position(|c| c.role == Role::Ours);
    let per_unit = |contender: usize, ns: u64| {
        // A slice that the clock did not see counts as one nanosecond.
        ns.max(1) as f64 / (ops[contender] * scenario.per_op) as f64
    };
    let rows = chosen.iter().enumerate().map(|(i, contender)| {
        let wall = |r: &Vec<Slice>| per_unit(i, r[i].wall_ns);
        let mut values: Vec<f64> = rounds.iter().map(wall).collect();
        let units = units(scenario, threads, ops[i]);
        let cpu = |r: &Vec<Slice>| r[i].cpu_ns as f64 / units;
        let mut cpu: Vec<f64> = rounds.iter().map(cpu).collect();
        let against = ours.filter(|&o| o != i).and_then(|o| {
            let log = |r: &Vec<Slice>| (per_unit(o, r[o].wall_ns) / wall(r)).ln();
            let mut logs: Vec<f64> = rounds.iter().map(log).collect();
            let interval = stats::median_interval(&mut logs, CONFIDENCE)?;
            Some(LaunchRatio {
                median: interval.estimate,
                low: interval.low,
                high: interval.high,
            })
        });
        RowAnswer {
            name: contender.name.clone(),
            value: stats::median(&mut values).unwrap_or(0.0),
            check: 0,
            against,
            metrics: vec![
                ("cpu_ns".into(), stats::median(&mut cpu).unwrap_or(0.0)),
                ("rounds".into(), rounds.len() as f64),
            ],
            points: Vec::new(),
        }
    });
    Answer {
        rows: rows.collect(),
        ..Answer::default()
    }
}

/// Allocations and bytes per unit, over enough operations that a rare one
/// shows, untimed.
fn allocations(
    team: &mut Team,
    contender: usize,
    units: impl Fn(u64) -> f64,
    slice_ops: u64,
) -> Result<(f64, f64), Panicked> {
    let ops = slice_ops.saturating_mul(4);
    let (slice, stats) = alloc::measure(|| team.slice(contender, ops));
    slice?;
    Ok((
        stats.allocs as f64 / units(ops),
        stats.bytes as f64 / units(ops),
    ))
}

/// One contender's loop, warmed up, inside [`counted_region`].
pub(crate) fn instructions(scenario: &Scenario, order: &Order, ops: u64) -> Answer {
    let chosen = scenario
        .contenders
        .iter()
        .find(|c| order.rows.first() == Some(&c.name));
    if let Some(Work::Time(make)) = chosen.map(|c| &c.work) {
        let mut run = make(&order.setup())(0);
        std::hint::black_box(run(ops));
        std::hint::black_box(counted_region(&mut run, ops));
    }
    Answer::default()
}

/// The name that callgrind is told to count in.
#[inline(never)]
fn counted_region(run: &mut dyn FnMut(u64) -> u64, ops: u64) -> u64 {
    run(std::hint::black_box(ops))
}
