//! The report: one self-contained HTML page about one run.
//!
//! It needs neither a network nor scripts. Each figure that the run found
//! stands in a `<data value="...">`, spelled as in the results file, so that
//! the page can be checked against it.

use crate::results::{Better, Results, Row, ScenarioResult, Stamp};
use crate::stats::ENOUGH_LAUNCHES;

use self::format::{count, data, escape, figure, ratio};
use self::looks::Looks;
use self::plots::{Plot, threads};

mod axis;
mod canvas;
pub mod format;
mod looks;
mod plots;
mod style;
mod tables;

/// The whole page.
pub fn html(results: &Results) -> String {
    let numbered: Vec<_> = results.scenarios.iter().enumerate().collect();
    let mut body = header(results);
    body.push_str("<h2>Summary</h2>\n");
    if numbered.is_empty() {
        body.push_str("<p>No scenario was measured.\n");
    } else {
        body.push_str(&scrolled(&tables::summary(&numbered)));
    }
    for (name, scenarios) in grouped(&numbered, |s| s.id.split('/').next().unwrap_or_default()) {
        body.push_str(&group(name, &scenarios));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width\">\n\
         <title>overdrive benchmark, {}</title>\n<style>{}</style>\n<body>\n{body}</body>\n</html>\n",
        escape(&results.machine.git),
        style::CSS
    )
}

fn header(results: &Results) -> String {
    let machine = &results.machine;
    let noise = &results.noise;
    let control = data(noise.control_ratio, &ratio(noise.control_ratio));
    let stamp = match noise.stamp {
        Stamp::Noisy => format!(
            "<p class=noisy>NOISY RUN. Two copies of the same loop differed: {control} instead of \
             1. Treat small differences as unproven, and measure again on a quieter machine.\n"
        ),
        Stamp::Quiet => format!(
            "<p class=quiet>Quiet run: two copies of the same loop differed by less than half a \
             percent ({control}).\n"
        ),
    };
    let few = if (results.launches as usize) < ENOUGH_LAUNCHES {
        ": few, so each interval is widened by the usual effect of code layout"
    } else {
        ""
    };
    let load = |load: f64| data(load, &figure(load));
    let facts = [
        (
            "processor",
            format!(
                "{}, {} hardware threads",
                escape(&machine.cpu),
                count(machine.cores)
            ),
        ),
        ("system", escape(&machine.kernel)),
        ("compiler", escape(&machine.rustc)),
        ("commit", escape(&machine.git)),
        ("started", escape(&machine.started)),
        (
            "load average",
            format!(
                "{} before, {} after",
                load(machine.load_before),
                load(machine.load_after)
            ),
        ),
        (
            "process launches",
            format!("{}{few}", count(results.launches)),
        ),
        (
            "to reproduce",
            "<code>cargo xtask bench</code> at that commit".to_owned(),
        ),
    ];
    let facts: String = facts
        .iter()
        .filter(|(_, fact)| !fact.is_empty())
        .map(|(name, fact)| format!("<dt>{name}<dd>{fact}\n"))
        .collect();
    format!("<h1>overdrive benchmark</h1>\n{stamp}<dl>\n{facts}</dl>\n{HOW_TO_READ}")
}

const HOW_TO_READ: &str = "<details open><summary>How to read this</summary>\n\
    <p>A <b>ratio</b> is the cost of overdrive over the cost of the other, measured side by side: \
    below 1 overdrive costs less, whichever direction of the value itself is good. In brackets \
    stands its interval, the wider of what the rounds within a launch and the launches between \
    them say: some 95 % of such intervals hold the true ratio.\n\
    <p>The <b>verdict</b> is <b class=faster>faster</b> or <b class=slower>slower</b> if the whole \
    interval lies more than half a percent off 1, <b class=equal>equal</b> if it lies within one \
    percent of it, and else <b class=inconclusive>inconclusive</b>. It compares with the best \
    peer.\n\
    <p><b>Limits</b> are floors that nobody can beat, <b>references</b> are conventional or \
    hand-written ways, <b>peers</b> are shipped crates that do the same job, and <b>context</b> is \
    shown without being comparable. More threads than the machine has are marked \
    <b>oversubscribed</b>. Hover over a figure for all its digits.\n</details>\n";

fn group(name: &str, scenarios: &[(usize, &ScenarioResult)]) -> String {
    let all: Vec<_> = scenarios.iter().map(|(_, scenario)| *scenario).collect();
    let looks = Looks::of(all.iter().copied());
    let mut html = format!("<h2>{}</h2>\n", escape(name));
    html.push_str(&figures(plots::best_peers(&all)));
    for (id, entries) in grouped(scenarios, |scenario| &scenario.id) {
        html.push_str(&format!("<h3>{}</h3>\n", escape(id)));
        if let Some((_, first)) = entries.first() {
            html.push_str(&format!(
                "<p>{} <small>Input: {}. {}.</small>\n",
                escape(&first.about),
                escape(&first.input),
                match first.better {
                    Better::Higher => "More is better",
                    Better::Lower => "Less is better",
                }
            ));
        }
        for &(i, scenario) in &entries {
            html.push_str(&one(i, scenario, &looks));
        }
        let all: Vec<_> = entries.iter().map(|(_, scenario)| *scenario).collect();
        html.push_str(&figures(plots::scaling(&all, &looks)));
    }
    html
}

fn one(i: usize, scenario: &ScenarioResult, looks: &Looks) -> String {
    let over = if scenario.oversubscribed {
        ", oversubscribed"
    } else {
        ""
    };
    let mut html = format!(
        "<h4 id=s{i}>{}{over}</h4>\n{}",
        threads(scenario.threads),
        scrolled(&tables::rows(scenario))
    );
    html.push_str(&figures(plots::everyone(scenario)));
    if !scenario.points.is_empty() {
        html.push_str(&figures(plots::points(scenario, looks)));
        html.push_str(&format!(
            "<details><summary>The figures by point, {}</summary>{}</details>\n",
            escape(&scenario.unit),
            scrolled(&tables::points(scenario))
        ));
    }
    html
}

fn figures(plots: impl IntoIterator<Item = Plot>) -> String {
    let figures: String = plots
        .into_iter()
        .map(|Plot { caption, drawing }| {
            let caption = escape(&caption);
            match drawing {
                Ok(svg) => format!(
                    "<figure role=img aria-label=\"{caption}\"><figcaption>{caption}</figcaption>\n{svg}</figure>\n"
                ),
                Err(error) => format!("<p>{caption}: not drawn: {}\n", escape(&error)),
            }
        })
        .collect();
    if figures.is_empty() {
        return figures;
    }
    format!("<div class=plots>\n{figures}</div>\n")
}

fn scrolled(table: &str) -> String {
    format!("<div class=scroll>\n{table}</div>\n")
}

/// Collects what has the same key, in order of first appearance.
fn grouped<'a, 'k>(
    scenarios: &[(usize, &'a ScenarioResult)],
    key: impl Fn(&'a ScenarioResult) -> &'k str,
) -> Vec<(&'k str, Vec<(usize, &'a ScenarioResult)>)> {
    let mut groups: Vec<(&str, Vec<_>)> = Vec::new();
    for &(i, scenario) in scenarios {
        let key = key(scenario);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push((i, scenario)),
            None => groups.push((key, vec![(i, scenario)])),
        }
    }
    groups
}

impl ScenarioResult {
    fn best_peer_row(&self) -> Option<&Row> {
        let name = self.best_peer.as_deref()?;
        self.rows.iter().find(|row| row.name == name)
    }
}
