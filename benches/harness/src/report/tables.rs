//! The tables of the page.

use super::format::{count, data, escape, optional, ratio};
use super::looks::verdict_style;
use crate::results::{Better, Role, Row, ScenarioResult, Status};
use crate::stats::{Interval, Verdict};

/// One line per scenario and thread count: ours against the best peer.
pub(super) fn summary(scenarios: &[(usize, &ScenarioResult)]) -> String {
    let lines: String = scenarios.iter().map(|&(i, s)| summary_line(i, s)).collect();
    format!(
        "<table><thead><tr><th>scenario<th class=n>threads<th>unit<th class=n>ours<th>best peer\
         <th class=n>its value<th class=n>ratio (interval)<th>verdict</thead>\n<tbody>\n{lines}</tbody></table>\n"
    )
}

fn summary_line(i: usize, scenario: &ScenarioResult) -> String {
    let ours = scenario.rows.iter().find(|row| row.role == Role::Ours);
    let peer = scenario.best_peer_row();
    format!(
        "<tr><th scope=row><a href=\"#s{i}\">{}</a><td class=n>{}<td>{}<td class=n>{}<td>{}<td class=n>{}<td class=n>{}<td>{}\n",
        escape(&scenario.id),
        thread_count(scenario),
        escape(&scenario.unit),
        optional(ours.and_then(|row| row.value)),
        peer.map_or_else(|| "&ndash;".to_owned(), |row| escape(&row.name)),
        optional(peer.and_then(|row| row.value)),
        interval(peer.and_then(|row| row.cost_ratio)),
        scenario
            .verdict
            .map_or_else(|| "&ndash;".to_owned(), verdict),
    )
}

fn thread_count(scenario: &ScenarioResult) -> String {
    let over = if scenario.oversubscribed {
        " <small>oversubscribed</small>"
    } else {
        ""
    };
    format!("{}{over}", count(scenario.threads))
}

/// All rows of one scenario with all their figures.
pub(super) fn rows(scenario: &ScenarioResult) -> String {
    let mut metrics: Vec<_> = scenario
        .rows
        .iter()
        .flat_map(|row| row.metrics.iter())
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| name)
        .collect();
    metrics.sort_unstable();
    metrics.dedup();

    let head: String = metrics
        .iter()
        .map(|name| format!("<th class=n>{}", escape(name)))
        .collect();
    let body: String = ordered(scenario)
        .into_iter()
        .map(|row| line(row, &metrics))
        .collect();
    format!(
        "<table><thead><tr><th>name<th>role<th>version<th class=n>{}<th class=n>ours / this (interval){head}<th></thead>\n\
         <tbody>\n{body}</tbody></table>\n",
        escape(&scenario.unit)
    )
}

fn line(row: &Row, metrics: &[&String]) -> String {
    let figures: String = metrics
        .iter()
        .map(|&name| {
            format!(
                "<td class=n>{}",
                optional(row.metrics.get(name).copied().flatten())
            )
        })
        .collect();
    let status = match row.status {
        Status::Ok => "",
        Status::KnownWrong => "<b>known wrong, not timed</b>",
        Status::Skipped => "<b>skipped</b>",
    };
    let reason = row.reason.as_deref().unwrap_or_default();
    let between = if status.is_empty() || reason.is_empty() {
        ""
    } else {
        ": "
    };
    format!(
        "<tr class={}><th scope=row>{}<td>{}<td>{}<td class=n>{}<td class=n>{}{figures}<td class=why>{status}{between}{}\n",
        role_word(row.role),
        escape(&row.name),
        role_word(row.role),
        escape(&row.version),
        optional(row.value),
        interval(row.cost_ratio),
        escape(reason),
    )
}

/// The figures behind the points plots.
pub(super) fn points(scenario: &ScenarioResult) -> String {
    let mut names: Vec<&String> = Vec::new();
    for row in scenario.points.iter().flat_map(|point| &point.rows) {
        if !names.contains(&&row.name) {
            names.push(&row.name);
        }
    }
    let head: String = names
        .iter()
        .map(|name| format!("<th class=n>{}", escape(name)))
        .collect();
    let mut body = String::new();
    for point in &scenario.points {
        body.push_str(&format!("<tr><th scope=row>{}", escape(&point.name)));
        for &name in &names {
            let row = point.rows.iter().find(|row| row.name == *name);
            body.push_str(&format!(
                "<td class=n>{}",
                optional(row.map(|row| row.value))
            ));
        }
        body.push('\n');
    }
    format!("<table><thead><tr><th>point{head}</thead>\n<tbody>\n{body}</tbody></table>\n")
}

/// The rows: ours, then the limit, then the others from the best value down.
pub(super) fn ordered(scenario: &ScenarioResult) -> Vec<&Row> {
    let rank = |row: &Row| match (row.role, row.value) {
        (Role::Ours, _) => 0,
        (Role::Limit, _) => 1,
        (_, Some(_)) => 2,
        (_, None) => 3,
    };
    let cost = |row: &Row| match (row.value, scenario.better) {
        (Some(value), Better::Lower) => value,
        (Some(value), Better::Higher) => -value,
        (None, _) => f64::INFINITY,
    };
    let mut rows: Vec<_> = scenario.rows.iter().collect();
    rows.sort_by(|a, b| {
        let by_rank = rank(a).cmp(&rank(b));
        by_rank.then_with(|| cost(a).total_cmp(&cost(b)))
    });
    rows
}

/// A role in words.
pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Ours => "ours",
        Role::Limit => "limit",
        Role::Reference => "reference",
        Role::Peer => "peer",
        Role::Context => "context",
    }
}

fn interval(cost: Option<Interval>) -> String {
    let Some(cost) = cost else {
        return "&ndash;".to_owned();
    };
    let [estimate, low, high] =
        [cost.estimate, cost.low, cost.high].map(|figure| data(figure, &ratio(figure)));
    let class = verdict_style(Verdict::of(cost)).0;
    format!("<b class={class}>{estimate}</b> <small>({low} to {high})</small>")
}

fn verdict(verdict: Verdict) -> String {
    let word = verdict_style(verdict).0;
    format!("<b class={word}>{word}</b>")
}
