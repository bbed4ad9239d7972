//! The entry point of a benchmark binary.

use std::io::Write;
use std::process::ExitCode;

use crate::child::{
    Answer, Catalogue, MARK, Mode, Order, PROTOCOL, RowEntry, ScenarioEntry, disagreement,
};
use crate::measure;
use crate::results::Kind;
use crate::scenario::{Contender, Scenario, Setup, Work};

/// Exit code: contenders gave different answers.
pub(crate) const EXIT_DIFFER: u8 = 4;

/// Runs a benchmark binary: every binary of the benches package is
/// `fn main() -> ExitCode { overdrive_bench::main(suite()) }`.
///
/// The driver (`cargo xtask bench`) launches it; by hand it takes `--list`, and
/// `--check [FILTER ..]`, which runs every contender briefly and compares their
/// answers without timing anything.
#[must_use]
pub fn main(scenarios: Vec<Scenario>) -> ExitCode {
    run(&scenarios, &std::env::args().skip(1).collect::<Vec<_>>())
}

/// The version of a package in the text of a `Cargo.lock`: what was measured,
/// not what was asked for. `?` if the package is not in it.
#[must_use]
pub fn locked_version(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.split('"').nth(1));
    version.unwrap_or("?").to_owned()
}

/// [`main`] with the command line given.
pub(crate) fn run(scenarios: &[Scenario], args: &[String]) -> ExitCode {
    for scenario in scenarios {
        if let Err(fault) = scenario.validate() {
            eprintln!("error: {fault}");
            return ExitCode::FAILURE;
        }
    }
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("--child") => child(scenarios, rest.first().map_or("", String::as_str)),
        Some("--list-json") => print_json(&catalogue(scenarios)),
        Some("--list") => {
            for s in scenarios {
                println!("{:<28} {}", s.id, s.about);
            }
            ExitCode::SUCCESS
        }
        Some("--check") => check(scenarios, rest),
        _ => {
            eprintln!(
                "run this through `cargo xtask bench`; by itself it takes --list or --check [FILTER ..]"
            );
            ExitCode::from(2)
        }
    }
}

fn print_json<T: serde::Serialize>(value: &T) -> ExitCode {
    match serde_json::to_string(value) {
        Ok(text) => {
            // A driver that is gone needs no answer.
            drop(writeln!(std::io::stdout(), "{MARK}{text}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn child(scenarios: &[Scenario], order: &str) -> ExitCode {
    let order: Order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("error: not an order: {error}");
            return ExitCode::from(2);
        }
    };
    let Some(scenario) = scenarios.iter().find(|s| s.id == order.scenario) else {
        return print_json(&Answer {
            error: Some(format!("there is no scenario {}", order.scenario)),
            ..Answer::default()
        });
    };
    print_json(&match order.mode {
        Mode::Measure => measure::measure(scenario, &order),
        Mode::Instructions { ops } => measure::instructions(scenario, &order, ops),
    })
}

fn catalogue(scenarios: &[Scenario]) -> Catalogue {
    let row = |c: &Contender| RowEntry {
        name: c.name.clone(),
        role: c.role,
        version: c.version.clone(),
        reason: c.reason.clone(),
        known_wrong: matches!(c.work, Work::KnownWrong),
    };
    let entry = |s: &Scenario| ScenarioEntry {
        id: s.id.clone(),
        about: s.about.clone(),
        input: s.input.clone(),
        tier: s.tier,
        kind: s.kind,
        unit: s.unit.clone(),
        better: s.better,
        threads: s.threads.clone(),
        own_threads: s.own_threads,
        check_ops: s.check_ops,
        per_op: s.per_op,
        rows: s.contenders.iter().map(row).collect(),
    };
    Catalogue {
        protocol: PROTOCOL,
        scenarios: scenarios.iter().map(entry).collect(),
    }
}

/// Runs every contender briefly and compares the answers.
fn check(scenarios: &[Scenario], filters: &[String]) -> ExitCode {
    let mut different = 0;
    let mut failed = 0;
    let mut checked = 0;
    for scenario in scenarios {
        if !filters.is_empty() && !filters.iter().any(|f| scenario.id.contains(f.as_str())) {
            continue;
        }
        for &threads in &scenario.threads {
            let label = format!("{}@{threads}", scenario.id);
            match check_one(scenario, threads) {
                Ok((rows, differ)) if differ.is_empty() => {
                    checked += 1;
                    println!("{label:<32} {rows} contenders agree");
                }
                Ok((_, differ)) => {
                    different += 1;
                    println!("{label:<32} answers differ: {differ:?}");
                }
                Err(error) => {
                    failed += 1;
                    println!("{label:<32} {error}");
                }
            }
        }
    }
    println!("{checked} agree, {different} differ, {failed} failed");
    if checked + different + failed == 0 {
        eprintln!("error: no scenario matches {filters:?}");
        return ExitCode::from(2);
    }
    match (different, failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(EXIT_DIFFER),
    }
}

type Checked = (usize, Vec<(String, u64)>);

fn check_one(scenario: &Scenario, threads: usize) -> Result<Checked, String> {
    let chosen: Vec<&Contender> = scenario
        .contenders
        .iter()
        .filter(|c| !matches!(c.work, Work::KnownWrong))
        .collect();
    let setup = Setup {
        seed: 1,
        threads,
        traces: std::env::var_os("OVERDRIVE_TRACES").map(Into::into),
        workspace: std::env::current_dir().unwrap_or_default(),
    };
    let differ = if scenario.kind == Kind::Time {
        let mut team = measure::team(scenario, &chosen, &setup, 1)?;
        disagreement(measure::check_time(scenario, &chosen, &setup, &mut team)?)
    } else {
        let checks = chosen.iter().map(|c| {
            let check = match &c.work {
                Work::Latency(make) => {
                    let serve = make(&setup);
                    (0..scenario.check_ops).fold(0, |sum, i| serve(i).wrapping_add(sum))
                }
                Work::Once(compute) => compute(&setup).check,
                Work::Time(_) | Work::KnownWrong => 0,
            };
            (c.name.clone(), check)
        });
        disagreement(checks.collect())
    };
    Ok((chosen.len(), differ))
}
