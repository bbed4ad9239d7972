//! The tables on the terminal.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use crate::report::format::{figure, ratio};
use crate::results::{Kind, Role, Row, ScenarioResult, Status};
use crate::stats::{Interval, Verdict};

/// Metrics that have a column of their own, and its title.
const COLUMNS: [(&str, &str); 4] = [
    ("cpu_ns", "cpu ns"),
    ("allocs", "allocs"),
    ("bytes", "bytes"),
    ("instructions", "instr"),
];

/// All scenarios of a suite, then who won how often.
pub(super) fn suite(name: &str, results: &[ScenarioResult]) -> String {
    let mut text = String::new();
    for result in results {
        text.push_str(&scenario(result));
        text.push('\n');
    }
    let count = |v: Verdict| results.iter().filter(|r| r.verdict == Some(v)).count();
    text.push_str(&format!(
        "{name}: against the best peer {} faster, {} slower, {} equal, {} inconclusive, {} without a peer\n",
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Equal),
        count(Verdict::Inconclusive),
        results.iter().filter(|r| r.verdict.is_none()).count(),
    ));
    text
}

fn scenario(result: &ScenarioResult) -> String {
    let threads = match (result.threads, result.oversubscribed) {
        (1, _) => "1 thread".to_owned(),
        (n, false) => format!("{n} threads"),
        (n, true) => format!("{n} threads (oversubscribed)"),
    };
    let mut text = format!("{}  {threads}\n  {}", result.id, result.about);
    if !result.input.is_empty() {
        text.push_str(&format!("; {}", result.input));
    }
    text.push('\n');
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(metric, _)| result.rows.iter().any(|r| metric_of(r, metric).is_some()))
        .collect();
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    let mut header = vec![
        "contender".to_owned(),
        "version".into(),
        result.unit.clone(),
        "ours/it".into(),
        "interval".into(),
        "ours is".into(),
    ];
    header.extend(columns.iter().map(|(_, title)| (*title).to_owned()));
    if result.kind == Kind::Latency {
        header.extend(["p50", "p99.9", "max"].map(str::to_owned));
    }
    let width = header.len();
    table.set_header(header);
    let (shown, skipped): (Vec<_>, Vec<_>) = sorted(result)
        .into_iter()
        .partition(|row| row.status != Status::Skipped);
    for row in shown {
        let mut cells = cells(result, row);
        cells.extend(columns.iter().map(|(m, _)| number(metric_of(row, m))));
        if result.kind == Kind::Latency {
            cells.extend(["p50_us", "p99.9_us", "max_us"].map(|m| number(metric_of(row, m))));
        }
        table.add_row(cells);
    }
    for column in (2..width).filter(|c| *c != 5) {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text.push_str(&table.to_string());
    text.push('\n');
    for row in skipped {
        let reason = row.reason.as_deref().unwrap_or("no reason was given");
        text.push_str(&format!("  {} was skipped: {reason}\n", row.name));
    }
    text
}

/// Ours, the limit, then the others by value; rows without a figure last.
fn sorted(result: &ScenarioResult) -> Vec<&Row> {
    let mut rows: Vec<&Row> = result.rows.iter().collect();
    let rank = |r: &Row| match r.role {
        Role::Ours => 0,
        Role::Limit => 1,
        _ => 2,
    };
    let lead = |r: &Row| r.cost_ratio.map_or(f64::NEG_INFINITY, |i| i.estimate);
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then(lead(b).total_cmp(&lead(a))));
    rows
}

fn cells(result: &ScenarioResult, row: &Row) -> Vec<String> {
    let role = match row.role {
        Role::Ours | Role::Peer => "",
        Role::Limit => " (limit)",
        Role::Reference => " (reference)",
        Role::Context => " (context)",
    };
    let best = if result.best_peer.as_ref() == Some(&row.name) {
        " *"
    } else {
        ""
    };
    let mut cells = vec![format!("{}{role}{best}", row.name), row.version.clone()];
    match (row.status, row.cost_ratio) {
        (Status::Ok, Some(cost)) => cells.extend([
            number(row.value),
            ratio(cost.estimate),
            interval(cost),
            word(Verdict::of(cost)).to_owned(),
        ]),
        (Status::Ok, None) => cells.extend([
            number(row.value),
            String::new(),
            String::new(),
            String::new(),
        ]),
        (Status::KnownWrong | Status::Skipped, _) => {
            let reason = row.reason.as_deref().unwrap_or_default();
            cells.extend([
                String::new(),
                String::new(),
                String::new(),
                format!("known wrong: {reason}"),
            ]);
        }
    }
    cells
}

fn metric_of(row: &Row, name: &str) -> Option<f64> {
    row.metrics.get(name).copied().flatten()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), figure)
}

fn interval(i: Interval) -> String {
    format!("{}..{}", ratio(i.low), ratio(i.high))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "equal",
        Verdict::Faster => "faster",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Slower => "SLOWER",
    }
}
