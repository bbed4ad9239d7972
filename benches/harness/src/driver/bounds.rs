//! Holding results against a table of bounds.

use std::path::Path;

use super::Failure;
use crate::results::{Results, Role, Row, ScenarioResult};

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    id: String,
    threads: usize,
    against: String,
    max: f64,
}

/// Reads a table: tab-separated `id`, `threads`, `against`, `max`; lines that
/// begin with `#` are remarks. `against` is `best` (the best peer), a row's
/// name, `abs:value` or `abs:METRIC` of ours.
pub(super) fn read(path: &Path) -> Result<Vec<Bound>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::Usage(format!("cannot read bounds {}: {e}", path.display())))?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty())
        .map(|(n, line)| {
            parse(line).ok_or_else(|| {
                Failure::Usage(format!(
                    "{}:{}: a bound is id, threads, against, max, tab-separated",
                    path.display(),
                    n + 1
                ))
            })
        })
        .collect()
}

fn parse(line: &str) -> Option<Bound> {
    let mut fields = line.split('\t').map(str::trim);
    Some(Bound {
        id: fields.next()?.to_owned(),
        threads: fields.next()?.parse().ok()?,
        against: fields.next()?.to_owned(),
        max: fields
            .next()?
            .parse()
            .ok()
            .filter(|max: &f64| max.is_finite())?,
    })
}

/// What falls short, one sentence each, and how many bounds hold. Bounds of
/// scenarios that `wanted` leaves out are not counted.
pub(super) fn hold(
    bounds: &[Bound],
    results: &Results,
    wanted: impl Fn(&str) -> bool,
) -> (Vec<String>, usize) {
    let mut missed = Vec::new();
    let mut held = 0;
    for bound in bounds.iter().filter(|b| wanted(&b.id)) {
        match judge(bound, results) {
            Ok(()) => held += 1,
            Err(why) => missed.push(format!("{}@{}: {why}", bound.id, bound.threads)),
        }
    }
    (missed, held)
}

fn judge(bound: &Bound, results: &Results) -> Result<(), String> {
    let scenario = results
        .scenarios
        .iter()
        .find(|s| s.id == bound.id && s.threads == bound.threads)
        .ok_or("not in the results")?;
    let (figure, other) = match bound.against.strip_prefix("abs:") {
        Some(key) => (ours(scenario, key), String::new()),
        None if bound.against == "best" => {
            let best = scenario
                .best_peer
                .as_deref()
                .ok_or("no peer was measured")?;
            (ratio(scenario, best)?, format!(" ({best})"))
        }
        None => (ratio(scenario, &bound.against)?, String::new()),
    };
    match figure {
        Some(figure) if figure <= bound.max => Ok(()),
        Some(figure) => Err(format!(
            "{figure:.3} > {} against {}{other}",
            bound.max, bound.against
        )),
        None => Err(format!("no figure against {}{other}", bound.against)),
    }
}

fn ours(scenario: &ScenarioResult, key: &str) -> Option<f64> {
    let row = scenario.rows.iter().find(|r| r.role == Role::Ours)?;
    match key {
        "value" => row.value,
        metric => row.metrics.get(metric).copied().flatten(),
    }
}

/// The row of that name, or else the first whose name contains it.
fn ratio(scenario: &ScenarioResult, name: &str) -> Result<Option<f64>, String> {
    let rows = &scenario.rows;
    let row: &Row = rows
        .iter()
        .find(|r| r.name == name)
        .or_else(|| rows.iter().find(|r| r.name.contains(name)))
        .ok_or_else(|| format!("no row {name}"))?;
    Ok(row.cost_ratio.map(|r| r.estimate))
}
