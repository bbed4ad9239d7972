//! What the plots show.

use super::axis::{Axis, decades};
use super::canvas::{ForestRow, Series, curves, forest};
use super::looks::Looks;
use super::tables::{ordered, role_word};
use crate::results::{Kind, Role, ScenarioResult};
use crate::stats::Verdict;

/// A drawn plot with its caption, or why there is none.
pub(super) struct Plot {
    /// What it shows.
    pub(super) caption: String,
    /// The SVG element.
    pub(super) drawing: Result<String, String>,
}

/// Ours against the best peer of each scenario.
pub(super) fn best_peers(scenarios: &[&ScenarioResult]) -> Option<Plot> {
    let rows: Vec<_> = scenarios
        .iter()
        .filter_map(|scenario| {
            let row = scenario.best_peer_row()?;
            let ratio = row.cost_ratio?;
            let name = scenario
                .id
                .split_once('/')
                .map_or(&*scenario.id, |(_, name)| name);
            Some(ForestRow {
                label: format!("{name} @{} against {}", scenario.threads, row.name),
                ratio,
                verdict: scenario.verdict.unwrap_or_else(|| Verdict::of(ratio)),
            })
        })
        .collect();
    forest_plot(
        &rows,
        "Against the best peer of each scenario".to_owned(),
        "the best peer",
    )
}

/// Ours against every other row of one scenario.
pub(super) fn everyone(scenario: &ScenarioResult) -> Option<Plot> {
    let rows: Vec<_> = ordered(scenario)
        .into_iter()
        .filter_map(|row| {
            let ratio = row.cost_ratio?;
            Some(ForestRow {
                label: match row.role {
                    Role::Peer => row.name.clone(),
                    role => format!("{} ({})", row.name, role_word(role)),
                },
                ratio,
                verdict: Verdict::of(ratio),
            })
        })
        .collect();
    if rows.len() < 2 {
        return None;
    }
    let caption = format!(
        "{} against each, {}",
        scenario.id,
        threads(scenario.threads)
    );
    forest_plot(&rows, caption, "the other")
}

fn forest_plot(rows: &[ForestRow], caption: String, other: &str) -> Option<Plot> {
    let title = format!("cost of ours / cost of {other} (log; left of 1 ours costs less)");
    let drawing = forest(rows, &title).transpose()?;
    Some(Plot { caption, drawing })
}

/// The value over the thread count, for a scenario with more than one.
pub(super) fn scaling(entries: &[&ScenarioResult], looks: &Looks) -> Option<Plot> {
    let first = entries.first()?;
    let mut counts: Vec<_> = entries.iter().map(|entry| entry.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    if counts.len() < 2 {
        return None;
    }
    let series = looks.series(|name| {
        entries
            .iter()
            .flat_map(|entry| entry.rows.iter().map(|row| (entry.threads as f64, row)))
            .filter(|(_, row)| row.name == name)
            .filter_map(|(threads, row)| Some((decades(threads)?, decades(row.value?)?)))
            .collect()
    });
    let ticks = counts
        .iter()
        .filter_map(|&count| Some((decades(count as f64)?, count.to_string())))
        .collect();
    let x = Axis::log(counts.iter().map(|&c| c as f64), "threads (log)".to_owned())?;
    let y = log_axis(&series, &first.unit)?;
    Some(Plot {
        caption: format!("{}: {} over threads", first.id, first.unit),
        drawing: curves(&x.labelled(ticks), &y, &series),
    })
}

/// The points of one scenario: a percentile curve, and a curve for every
/// series of `series@number`.
pub(super) fn points(scenario: &ScenarioResult, looks: &Looks) -> Vec<Plot> {
    percentiles(scenario, looks)
        .into_iter()
        .chain(over_numbers(scenario, looks))
        .collect()
}

fn percentiles(scenario: &ScenarioResult, looks: &Looks) -> Option<Plot> {
    let known: Vec<_> = scenario
        .points
        .iter()
        .filter_map(|point| Some((nines(&point.name)?, point)))
        .collect();
    if known.len() < 2 {
        return None;
    }
    // The largest value has no percentile: it stands three quarters of a nine
    // further on.
    let last = known.iter().filter_map(|(at, _)| *at).fold(0.0, f64::max);
    let place = |at: Option<f64>| at.unwrap_or(last + 0.75);
    let series = looks.series(|name| {
        known
            .iter()
            .flat_map(|(at, point)| point.rows.iter().map(|row| (place(*at), row)))
            .filter(|(_, row)| row.name == name)
            .filter_map(|(at, row)| Some((at, decades(row.value)?)))
            .collect()
    });
    let ticks = known
        .iter()
        .map(|(at, point)| (place(*at), point.name.clone()))
        .collect();
    let title = "percentile (log of the share above)".to_owned();
    let x = Axis::linear(known.iter().map(|(at, _)| place(*at)), title)?;
    Some(Plot {
        caption: format!("{}: latency, {}", scenario.id, threads(scenario.threads)),
        drawing: curves(
            &x.labelled(ticks),
            &log_axis(&series, &scenario.unit)?,
            &series,
        ),
    })
}

/// How many nines a percentile has: 2 for p99; `Some(None)` for the maximum.
fn nines(name: &str) -> Option<Option<f64>> {
    if name == "max" {
        return Some(None);
    }
    let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
    (0.0..100.0)
        .contains(&percent)
        .then(|| Some(2.0 - (100.0 - percent).log10()))
}

fn over_numbers(scenario: &ScenarioResult, looks: &Looks) -> Vec<Plot> {
    let known: Vec<_> = scenario
        .points
        .iter()
        .filter_map(|point| {
            let (name, number) = point.name.rsplit_once('@')?;
            let number: f64 = number.parse().ok()?;
            Some((name, number, decades(number)?, point))
        })
        .collect();
    let mut names: Vec<_> = known.iter().map(|known| known.0).collect();
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name);
            true
        }
    });
    let plot = |name: &&str| {
        let of_name = || known.iter().filter(|known| known.0 == *name);
        let series = looks.series(|contender| {
            of_name()
                .flat_map(|(_, _, at, point)| point.rows.iter().map(|row| (*at, row)))
                .filter(|(_, row)| row.name == contender)
                .filter_map(|(at, row)| match scenario.kind {
                    Kind::Ratio => row.value.is_finite().then_some((at, row.value)),
                    _ => Some((at, decades(row.value)?)),
                })
                .collect()
        });
        let ticks = of_name()
            .map(|(_, number, at, _)| (*at, number.to_string()))
            .collect();
        let x = Axis::log(of_name().map(|known| known.1), "size (log)".to_owned())?;
        let y = match scenario.kind {
            Kind::Ratio => {
                let values = series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
                Axis::linear(values, scenario.unit.clone())?
            }
            _ => log_axis(&series, &scenario.unit)?,
        };
        Some(Plot {
            caption: format!("{}: {name}, {}", scenario.id, threads(scenario.threads)),
            drawing: curves(&x.labelled(ticks), &y, &series),
        })
    };
    names.iter().filter_map(plot).collect()
}

fn log_axis(series: &[Series], unit: &str) -> Option<Axis> {
    let values = series
        .iter()
        .flat_map(|s| s.points.iter().map(|p| 10_f64.powf(p.1)));
    Axis::log(values, format!("{unit} (log)"))
}

/// A thread count in words.
pub(super) fn threads(count: usize) -> String {
    match count {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    }
}
