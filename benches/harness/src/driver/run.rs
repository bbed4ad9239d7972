//! Measuring one suite: launches, answers, rows.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;
use super::builtin;
use super::launch::Program;
use super::options::Options;
use crate::child::{Answer, Mode, Order, RowAnswer, RowEntry, ScenarioEntry};
use crate::results::{Better, Kind, Point, PointRow, Role, Row, ScenarioResult, Status};
use crate::stats::{self, Interval, Launch, Verdict};

/// One scenario at one thread count.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) entry: ScenarioEntry,
    pub(super) threads: usize,
}

impl Item {
    pub(super) fn label(&self) -> String {
        format!("{}@{}", self.entry.id, self.threads)
    }

    /// Whether `--peer` keeps a row, and the row can be run.
    fn runs(&self, row: &RowEntry, options: &Options) -> bool {
        !row.known_wrong && !left_out(row, options)
    }

    /// An order for the rows that run.
    pub(super) fn order(
        &self,
        options: &Options,
        workspace: &Path,
        seed: u64,
        seconds: f64,
    ) -> Order {
        let rows = self.entry.rows.iter().filter(|r| self.runs(r, options));
        Order {
            threads: self.threads,
            traces: options.traces.clone(),
            workspace: workspace.to_owned(),
            rows: rows.map(|r| r.name.clone()).collect(),
            ..Order::new(&self.entry.id, seed, seconds)
        }
    }
}

fn left_out(row: &RowEntry, options: &Options) -> bool {
    row.role == Role::Peer
        && options
            .peer
            .as_ref()
            .is_some_and(|p| !p.is_match(&row.name))
}

/// The A/A control, heard after every scenario of every launch.
#[derive(Debug)]
pub(super) struct Control {
    program: Program,
    launches: Vec<Launch>,
}

impl Control {
    pub(super) fn new(program: Program) -> Self {
        Self {
            program,
            launches: Vec::new(),
        }
    }

    fn listen(&mut self, seed: u64) -> Result<(), Failure> {
        let order = Order::new(builtin::CONTROL, seed, 0.03);
        let answer = self.program.launch(&order, 2)?;
        let copy = answer.rows.iter().find(|r| r.name == builtin::COPY);
        self.launches
            .extend(copy.and_then(|r| r.against).map(Launch::from));
        Ok(())
    }

    /// The ratio found between two copies of one loop.
    pub(super) fn ratio(&self) -> f64 {
        stats::combine(&self.launches).map_or(1.0, |i| i.estimate)
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress(length: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta:>4} left  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// What a suite's measuring gave.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) results: Vec<ScenarioResult>,
    /// One sentence for each scenario that could not be measured.
    pub(super) failed: Vec<String>,
}

/// Measures every item in every launch. An item that fails is not tried again
/// and does not stop the others.
pub(super) fn suite(
    program: &Program,
    items: &[Item],
    options: &Options,
    workspace: &Path,
    seed: u64,
    control: &mut Control,
) -> Result<Measured, Failure> {
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); items.len()];
    let mut faults: Vec<Option<String>> = vec![None; items.len()];
    let mut turn: Vec<usize> = (0..items.len()).collect();
    let bar = progress(items.len() * options.launches as usize);
    for launch in 0..options.launches {
        fastrand::Rng::with_seed(seed ^ u64::from(launch)).shuffle(&mut turn);
        for &i in &turn {
            bar.inc(1);
            let item = &items[i];
            bar.set_message(item.label());
            let once = !matches!(item.entry.kind, Kind::Time | Kind::Latency);
            if faults[i].is_some() || (once && launch > 0) {
                continue;
            }
            let seed = seed.wrapping_add(u64::from(launch) << 32);
            let seconds = options.seconds / f64::from(options.launches);
            let order = item.order(options, workspace, seed, seconds);
            match program.launch(&order, order.rows.len()) {
                Err(failure) => faults[i] = Some(failure.to_string()),
                Ok(answer) if !answer.differ.is_empty() => {
                    return Err(Failure::Differ(differ(item, &answer.differ)));
                }
                Ok(answer) => answers[i].push(answer),
            }
            control.listen(seed)?;
        }
    }
    bar.finish_and_clear();
    let results = items.iter().zip(&answers).zip(&faults);
    let results = results.map(|((item, answers), fault)| match fault {
        None => result(item, answers, options),
        Some(fault) => failed(item, fault, options),
    });
    Ok(Measured {
        results: results.collect(),
        failed: faults.into_iter().flatten().collect(),
    })
}

/// The result of an item that could not be measured: all rows with the reason.
fn failed(item: &Item, fault: &str, options: &Options) -> ScenarioResult {
    let mut result = result(item, &[], options);
    for row in &mut result.rows {
        if row.status == Status::Skipped && row.reason.is_none() {
            row.reason = Some(fault.to_owned());
        }
    }
    result
}

fn differ(item: &Item, values: &[(String, u64)]) -> String {
    let values: Vec<String> = values.iter().map(|(n, v)| format!("{n} {v}")).collect();
    format!("{}: answers differ: {}", item.label(), values.join(", "))
}

fn result(item: &Item, answers: &[Answer], options: &Options) -> ScenarioResult {
    let entry = &item.entry;
    let of = |name: &str| -> Vec<&RowAnswer> {
        let rows = answers.iter().flat_map(|a| &a.rows);
        rows.filter(|r| r.name == name).collect()
    };
    let ours = entry.rows.iter().find(|r| r.role == Role::Ours);
    let our_value = ours.and_then(|r| median(of(&r.name).iter().map(|a| a.value)));
    let rows: Vec<Row> = entry
        .rows
        .iter()
        .map(|r| row(entry, r, &of(&r.name), our_value, options))
        .collect();
    let best = best_peer(&rows);
    ScenarioResult {
        id: entry.id.clone(),
        about: entry.about.clone(),
        tier: entry.tier,
        threads: item.threads,
        oversubscribed: item.threads > super::machine::cores(),
        kind: entry.kind,
        unit: entry.unit.clone(),
        better: entry.better,
        input: entry.input.clone(),
        best_peer: best.map(|r| r.name.clone()),
        verdict: best.and_then(|r| r.cost_ratio).map(Verdict::of),
        points: points(&rows, &of),
        rows,
    }
}

/// The peer that ours has the least lead over.
fn best_peer(rows: &[Row]) -> Option<&Row> {
    let peers = rows
        .iter()
        .filter(|r| r.role == Role::Peer && r.status == Status::Ok);
    peers
        .filter_map(|r| Some((r, r.cost_ratio?.estimate)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(r, _)| r)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    stats::median(&mut values)
}

fn row(
    scenario: &ScenarioEntry,
    entry: &RowEntry,
    answers: &[&RowAnswer],
    our_value: Option<f64>,
    options: &Options,
) -> Row {
    let status = if entry.known_wrong {
        Status::KnownWrong
    } else if answers.is_empty() {
        Status::Skipped
    } else {
        Status::Ok
    };
    let reason = match (&entry.reason, status) {
        (None, Status::Skipped) if left_out(entry, options) => Some("left out by --peer".into()),
        (reason, _) => reason.clone(),
    };
    let value = median(answers.iter().map(|a| a.value));
    let mut metrics: BTreeMap<String, Option<f64>> = BTreeMap::new();
    if let Some(first) = answers.first() {
        for (name, _) in &first.metrics {
            let figures = answers.iter().flat_map(|a| &a.metrics);
            let same = figures.filter(|(n, _)| n == name).map(|(_, v)| *v);
            metrics.insert(name.clone(), median(same));
        }
    }
    if scenario.kind == Kind::Time && status == Status::Ok {
        for name in ["allocs", "bytes", "instructions"] {
            metrics.entry(name.into()).or_insert(None);
        }
    }
    let cost_ratio = match scenario.kind {
        _ if entry.role == Role::Ours => None,
        Kind::Time | Kind::Latency => {
            let launches = answers.iter().filter_map(|a| a.against);
            stats::combine(&launches.map(Launch::from).collect::<Vec<_>>())
        }
        Kind::Bytes | Kind::Count | Kind::Ratio => our_value
            .zip(value)
            .and_then(|(ours, other)| exact_ratio(scenario.better, ours, other)),
    };
    Row {
        name: entry.name.clone(),
        role: entry.role,
        version: entry.version.clone(),
        status,
        reason,
        value,
        cost_ratio,
        metrics,
    }
}

/// A deterministic figure has no interval. The cost of a share is what it
/// lacks to 1; two contenders without any cost are equal.
fn exact_ratio(better: Better, ours: f64, other: f64) -> Option<Interval> {
    let (ours, other) = match better {
        Better::Higher => (1.0 - ours, 1.0 - other),
        Better::Lower => (ours, other),
    };
    let ratio = if ours == other { 1.0 } else { ours / other };
    ratio.is_finite().then_some(Interval {
        estimate: ratio,
        low: ratio,
        high: ratio,
    })
}

fn points<'a>(rows: &[Row], of: &dyn Fn(&str) -> Vec<&'a RowAnswer>) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for row in rows {
        let answers = of(&row.name);
        for (position, _) in answers.first().map_or(&[][..], |a| &a.points) {
            let figures = answers.iter().flat_map(|a| &a.points);
            let same = figures.filter(|(n, _)| n == position).map(|(_, v)| *v);
            let Some(value) = median(same) else { continue };
            let figure = PointRow {
                name: row.name.clone(),
                value,
            };
            match points.iter_mut().find(|p| p.name == *position) {
                Some(point) => point.rows.push(figure),
                None => points.push(Point {
                    name: position.clone(),
                    rows: vec![figure],
                }),
            }
        }
    }
    points
}

/// Adds instructions per unit to the rows of one-thread time scenarios.
pub(super) fn count_instructions(
    program: &Program,
    items: &[Item],
    results: &mut [ScenarioResult],
    options: &Options,
    workspace: &Path,
) -> Result<(), Failure> {
    let bar = progress(results.iter().map(|r| r.rows.len()).sum());
    for (item, result) in items.iter().zip(results) {
        let entry = &item.entry;
        if entry.kind != Kind::Time || item.threads != 1 || entry.own_threads {
            continue;
        }
        for row in result.rows.iter_mut().filter(|r| r.status == Status::Ok) {
            bar.set_message(format!("instructions of {} in {}", row.name, entry.id));
            let mut order = item.order(options, workspace, 1, 0.0);
            order.rows = vec![row.name.clone()];
            let ops = entry.check_ops;
            order.mode = Mode::Instructions { ops };
            let counted = program.instructions(&order)?;
            let per_unit = counted as f64 / (ops * entry.per_op) as f64;
            row.metrics.insert("instructions".into(), Some(per_unit));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}
