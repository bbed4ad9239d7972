//! The report page against the results it shows, and the results' schema.

use std::collections::{BTreeMap, BTreeSet};

use overdrive_bench::report;
use overdrive_bench::results::{
    Better, Kind, Machine, Noise, Point, PointRow, Results, Role, Row, ScenarioResult, Stamp,
    Status, Tier,
};
use overdrive_bench::stats::{Interval, Verdict};
use proptest::prelude::*;
use serde_json::Value;

fn row(name: &str, role: Role, value: Option<f64>, cost: Option<[f64; 3]>) -> Row {
    Row {
        name: name.to_owned(),
        role,
        version: "1.2.3".to_owned(),
        status: Status::Ok,
        reason: None,
        value,
        cost_ratio: cost.map(|[estimate, low, high]| Interval {
            estimate,
            low,
            high,
        }),
        metrics: BTreeMap::from([
            ("cpu_ns".to_owned(), value),
            ("instructions".to_owned(), None),
        ]),
    }
}

fn scenario(id: &str, kind: Kind, unit: &str, threads: usize, rows: Vec<Row>) -> ScenarioResult {
    ScenarioResult {
        id: id.to_owned(),
        about: "What it measures.".to_owned(),
        tier: Tier::Core,
        threads,
        oversubscribed: threads > 2,
        kind,
        unit: unit.to_owned(),
        better: if kind == Kind::Ratio {
            Better::Higher
        } else {
            Better::Lower
        },
        input: "4 KiB".to_owned(),
        best_peer: rows
            .iter()
            .find(|row| row.role == Role::Peer)
            .map(|row| row.name.clone()),
        verdict: Some(Verdict::Faster),
        rows,
        points: Vec::new(),
    }
}

fn run(scenarios: Vec<ScenarioResult>) -> Results {
    Results {
        schema_version: 1,
        launches: 2,
        machine: Machine {
            cpu: "A <fast> & \"good\" one".to_owned(),
            cores: 2,
            rustc: "rustc 1.95.0".to_owned(),
            git: "abc1234+dirty".to_owned(),
            load_before: 0.37,
            load_after: 0.0,
            kernel: "Linux 6.18".to_owned(),
            started: "2026-01-02T03:04:05Z".to_owned(),
        },
        noise: Noise {
            control_ratio: 1.0071,
            stamp: Stamp::Noisy,
        },
        scenarios,
    }
}

fn points(names: &[&str], values: [f64; 2]) -> Vec<Point> {
    let rows = |i: usize| {
        let grown = |value: f64| value * (1.0 + i as f64 / 16.0);
        [("overdrive", values[0]), ("rival", values[1])]
            .map(|(name, value)| PointRow {
                name: name.to_owned(),
                value: grown(value),
            })
            .to_vec()
    };
    let point = |(i, name): (usize, &&str)| Point {
        name: (*name).to_owned(),
        rows: rows(i),
    };
    names.iter().enumerate().map(point).collect()
}

/// Every kind of scenario, of row and of point.
fn sample() -> Results {
    let timed = |threads: usize, ours: f64| {
        let mut wrong = row("hasty", Role::Peer, None, None);
        wrong.status = Status::KnownWrong;
        wrong.reason = Some("loses <items> & more".to_owned());
        let mut absent = row("distant", Role::Peer, None, None);
        absent.status = Status::Skipped;
        absent.reason = Some("needs a server".to_owned());
        let rows = vec![
            row(
                "mutex-vec",
                Role::Peer,
                Some(10.03),
                Some([ours / 10.03, 0.3712, 0.4144]),
            ),
            row("overdrive", Role::Ours, Some(ours), None),
            row(
                "list",
                Role::Limit,
                Some(2.125),
                Some([ours / 2.125, 1.71, 1.93]),
            ),
            row(
                "by-hand",
                Role::Reference,
                Some(4.015),
                Some([0.9997, 0.9961, 1.0042]),
            ),
            row(
                "elsewhere",
                Role::Context,
                Some(77.0),
                Some([0.05, 0.04, 0.06]),
            ),
            wrong,
            absent,
        ];
        scenario("pool/get_put_4k", Kind::Time, "ns/op", threads, rows)
    };
    let two = |id, kind, unit, ours: f64, rival: f64, ratio: f64| {
        let rows = vec![
            row("overdrive", Role::Ours, Some(ours), None),
            row(
                "rival",
                Role::Peer,
                Some(rival),
                Some([ratio, ratio * 0.99, ratio * 1.01]),
            ),
        ];
        scenario(id, kind, unit, 1, rows)
    };
    let mut latency = two("pool/wait_tail", Kind::Latency, "ns", 1530.0, 2891.0, 0.529);
    latency.points = points(
        &["p50", "p75", "p90", "p99", "p99.9", "p99.99", "max"],
        [812.0, 955.0],
    );
    let mut hits = two(
        "cache/hit_ratio",
        Kind::Ratio,
        "hit ratio",
        0.613,
        0.598,
        0.963,
    );
    hits.points = points(
        &["loop@101", "loop@500", "zipf@10", "zipf@2000", "odd"],
        [0.512, 0.489],
    );
    run(vec![
        timed(1, 3.917),
        timed(2, 4.233),
        timed(4, 4.871),
        latency,
        hits,
        two("cache/entry", Kind::Bytes, "B/entry", 32.25, 40.5, 0.7963),
        two("cache/loads", Kind::Count, "calls", 1.0, 1000.0, 0.001),
        scenario(
            "lonely",
            Kind::Time,
            "ns/op",
            1,
            vec![row("overdrive", Role::Ours, Some(5.5), None)],
        ),
    ])
}

/// The exact figures that a page shows.
fn shown(html: &str) -> Vec<f64> {
    html.split("<data value=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().expect("a quoted value"))
        .map(|value| value.parse().expect("a number"))
        .collect()
}

fn numbers(json: &Value, found: &mut Vec<f64>) {
    match json {
        Value::Number(number) => found.extend(number.as_f64()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| numbers(field, found)),
        _ => {}
    }
}

fn json(results: &Results) -> Value {
    serde_json::to_value(results).expect("results serialise")
}

#[test]
fn every_figure_on_the_page_is_in_the_results() {
    let results = sample();
    let mut known = Vec::new();
    numbers(&json(&results), &mut known);
    let html = report::html(&results);
    let shown = shown(&html);
    assert!(shown.len() > 100);
    for figure in shown {
        assert!(known.contains(&figure), "{figure} is not in the results");
    }
}

#[test]
fn every_figure_of_the_results_is_on_the_page() {
    let results = sample();
    let html = report::html(&results);
    let shown = shown(&html);
    let machine = [results.machine.load_before, results.noise.control_ratio];
    let rows = results
        .scenarios
        .iter()
        .flat_map(|s| &s.rows)
        .flat_map(|row| {
            let ratio = row.cost_ratio.map(|r| [r.estimate, r.low, r.high]);
            let metrics = row.metrics.values().copied().flatten();
            row.value
                .into_iter()
                .chain(ratio.into_iter().flatten())
                .chain(metrics)
        });
    let points = results.scenarios.iter().flat_map(|s| &s.points);
    let points = points.flat_map(|point| point.rows.iter().map(|row| row.value));
    for figure in machine.into_iter().chain(rows).chain(points) {
        assert!(shown.contains(&figure), "{figure} is not shown");
    }
}

#[test]
fn each_kind_of_plot_is_drawn() {
    let html = report::html(&sample());
    for caption in [
        "Against the best peer of each scenario",
        "pool/get_put_4k against each, 2 threads",
        "pool/get_put_4k: ns/op over threads",
        "pool/wait_tail: latency, 1 thread",
        "cache/hit_ratio: loop, 1 thread",
        "cache/hit_ratio: zipf, 1 thread",
    ] {
        let figure = html
            .split(&format!("<figcaption>{caption}</figcaption>"))
            .nth(1);
        let figure = figure.unwrap_or_else(|| panic!("no plot: {caption}"));
        assert!(figure.trim_start().starts_with("<svg"), "{caption}");
    }
    assert!(!html.contains("not drawn"));
    for label in [
        "percentile (log of the share above)",
        "threads (log)",
        "size (log)",
        "p99.9",
    ] {
        assert!(html.contains(label), "{label}");
    }
}

#[test]
fn losses_noise_and_gaps_are_worded() {
    let mut results = sample();
    results.scenarios[0].verdict = Some(Verdict::Slower);
    let html = report::html(&results);
    for words in [
        "NOISY RUN",
        "<b class=slower>slower</b>",
        "<small>oversubscribed</small>",
        "known wrong, not timed</b>: loses &lt;items&gt; &amp; more",
        "skipped</b>: needs a server",
        "few, so each interval is widened",
        "cargo xtask bench",
    ] {
        assert!(html.contains(words), "{words}");
    }
}

#[test]
fn rows_come_ours_first_then_the_limit_then_by_value() {
    let html = report::html(&sample());
    let table = html.split("<h4 id=s0>").nth(1).expect("the first scenario");
    let table = table.split("</table>").next().expect("its table");
    let names: Vec<_> = table
        .split("<th scope=row>")
        .skip(1)
        .map(|rest| rest.split('<').next().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "overdrive",
            "list",
            "by-hand",
            "mutex-vec",
            "elsewhere",
            "hasty",
            "distant"
        ]
    );
}

#[test]
fn the_page_needs_no_other_file() {
    let html = report::html(&sample());
    for link in [
        "http:", "https:", "//", "src=", "<link", "@import", "url(", "<script",
    ] {
        assert!(!html.contains(link), "{link}");
    }
}

#[test]
fn text_is_escaped_everywhere() {
    const NASTY: &str = "<script>\"'&";
    let mut results = sample();
    results.machine.git = NASTY.to_owned();
    for scenario in &mut results.scenarios {
        for text in [
            &mut scenario.id,
            &mut scenario.about,
            &mut scenario.unit,
            &mut scenario.input,
        ] {
            *text = format!("{NASTY}/{text}");
        }
        for row in &mut scenario.rows {
            row.name.push_str(NASTY);
            row.version.push_str(NASTY);
            row.reason = Some(NASTY.to_owned());
            row.metrics.insert(NASTY.to_owned(), Some(0.5));
        }
        for point in &mut scenario.points {
            point.name.insert_str(0, NASTY);
            point
                .rows
                .iter_mut()
                .for_each(|row| row.name.push_str(NASTY));
        }
        scenario.best_peer = scenario.best_peer.take().map(|name| name + NASTY);
    }
    let html = report::html(&results);
    assert!(!html.contains("<script") && !html.contains("\"'&"));
    assert!(html.contains("&lt;script&gt;&quot;"));
}

#[test]
fn an_empty_run_is_said_to_be_empty() {
    let html = report::html(&run(Vec::new()));
    assert!(html.contains("No scenario was measured") && html.ends_with("</html>\n"));
    let html = report::html(&run(vec![scenario("a/b", Kind::Time, "ns", 1, Vec::new())]));
    assert!(html.contains("a/b"));
}

fn keys(json: &Value) -> BTreeSet<&str> {
    let fields = json.as_object().expect("an object");
    fields.keys().map(String::as_str).collect()
}

#[test]
fn the_schema_has_the_documented_names_and_spellings() {
    let json = json(&sample());
    let has = |json: &Value, names: &[&str]| {
        assert_eq!(keys(json), names.iter().copied().collect::<BTreeSet<_>>());
    };
    has(
        &json,
        &[
            "schema_version",
            "launches",
            "machine",
            "noise",
            "scenarios",
        ],
    );
    has(
        &json["machine"],
        &[
            "cpu",
            "cores",
            "rustc",
            "git",
            "load_before",
            "load_after",
            "kernel",
            "started",
        ],
    );
    has(&json["noise"], &["control_ratio", "stamp"]);
    assert_eq!(json["noise"]["stamp"], "noisy");
    let first = &json["scenarios"][0];
    has(
        first,
        &[
            "id",
            "about",
            "tier",
            "threads",
            "oversubscribed",
            "kind",
            "unit",
            "better",
            "input",
            "best_peer",
            "verdict",
            "rows",
            "points",
        ],
    );
    assert_eq!(
        (&first["tier"], &first["better"]),
        (&"core".into(), &"lower".into())
    );
    assert_eq!(first["verdict"], "faster");
    assert_eq!(json["scenarios"][4]["better"], "higher");
    let kinds: Vec<_> = (0..8)
        .map(|i| json["scenarios"][i]["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        [
            "time", "time", "time", "latency", "ratio", "bytes", "count", "time"
        ]
    );
    let rows = &first["rows"];
    let names = [
        "name",
        "role",
        "version",
        "status",
        "reason",
        "value",
        "cost_ratio",
        "metrics",
    ];
    has(&rows[0], &names);
    has(&rows[0]["cost_ratio"], &["estimate", "low", "high"]);
    let roles: Vec<_> = (0..5).map(|i| rows[i]["role"].clone()).collect();
    assert_eq!(roles, ["peer", "ours", "limit", "reference", "context"]);
    let statuses: Vec<_> = [0, 5, 6].map(|i| rows[i]["status"].clone()).to_vec();
    assert_eq!(statuses, ["ok", "known_wrong", "skipped"]);
    for null in [
        &rows[0]["reason"],
        &rows[1]["cost_ratio"],
        &rows[5]["value"],
        &rows[0]["metrics"]["instructions"],
    ] {
        assert_eq!(null, &Value::Null);
    }
    let point = &json["scenarios"][4]["points"][0];
    has(point, &["name", "rows"]);
    has(&point["rows"][0], &["name", "value"]);
    assert_eq!(point["name"], "loop@101");
    let back: Results = serde_json::from_value(json).expect("reads what it wrote");
    assert_eq!(back, sample());
}

fn any_figure() -> impl Strategy<Value = f64> {
    let odd = [
        0.0,
        -0.0,
        -1.0,
        1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
    ];
    prop_oneof![
        prop::sample::select(odd.to_vec()),
        any::<f64>(),
        0.9..1.1_f64
    ]
}

prop_compose! {
    fn any_row()(
        role in prop::sample::select(vec![Role::Ours, Role::Limit, Role::Peer]),
        name in "[a-c]{1,40}",
        value in prop::option::of(any_figure()),
        cost in prop::option::of([any_figure(), any_figure(), any_figure()]),
    ) -> Row {
        row(&name, role, value, cost)
    }
}

prop_compose! {
    fn any_scenario()(
        kind in prop::sample::select(vec![Kind::Time, Kind::Latency, Kind::Ratio]),
        threads in 0..4_usize,
        rows in prop::collection::vec(any_row(), 0..5),
        points in prop::collection::vec(
            ("(p[0-9]{1,3}|p99\\.9|max|[ab]@-?[0-9]{1,3}|a@(NaN|inf|1e999)|@|x)", any_figure()),
            0..6,
        ),
    ) -> ScenarioResult {
        let mut scenario = scenario("a/b", kind, "ns", threads, rows);
        scenario.points = points
            .into_iter()
            .map(|(name, value)| Point {
                name: name.replace("NaN", "nan").replace("inf", "infinity"),
                rows: vec![PointRow { name: "a".to_owned(), value }],
            })
            .collect();
        scenario
    }
}

proptest! {
    #[test]
    fn no_figure_breaks_the_page(scenarios in prop::collection::vec(any_scenario(), 0..4)) {
        let html = report::html(&run(scenarios));
        // The only names with these letters are those of points.
        let html = html.replace("a@nan", "").replace("a@infinity", "");
        for bad in ["NaN", "nan", "inf\"", "inf ", "inf<", "inf,", "Infinity", "not drawn"] {
            prop_assert!(!html.contains(bad), "{bad} in {html}");
        }
    }
}
