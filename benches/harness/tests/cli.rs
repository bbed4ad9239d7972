//! The driver as its user meets it: exit codes, sentences, files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use overdrive_bench::results::{Kind, Results, Role, Status};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_overdrive-bench"))
        .args(args)
        .env_remove("OVERDRIVE_TRACES")
        .output()
        .expect("the driver starts")
}

/// The exit code and the first line of the standard error.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = bench(args);
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().find(|line| line.starts_with("error: "));
    (output.status.code(), line.unwrap_or_default().to_owned())
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).expect("a scratch folder");
    dir
}

#[test]
fn bad_input_is_a_usage_error_in_one_sentence() {
    for (args, word) in [
        (&["--launches", "0"][..], "--launches"),
        (&["--traces", "/does/not/exist"], "/does/not/exist"),
        (
            &["--bounds", "/does/not/exist", "harness/stall"],
            "/does/not/exist",
        ),
        (&["--frobnicate"], "--frobnicate"),
        (
            &["--baseline", "no-such-revision", "harness"],
            "no-such-revision",
        ),
        (&["--gate", "3"], "--baseline"),
    ] {
        let (code, sentence) = refused(args);
        assert_eq!(code, Some(2), "{args:?}: {sentence}");
        assert!(sentence.contains(word), "{args:?}: {sentence}");
    }
}

#[test]
fn help_names_every_option() {
    let output = bench(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    for option in [
        "--quick",
        "--thorough",
        "--threads",
        "--launches",
        "--time",
        "--peer",
        "--traces",
        "--bounds",
        "--icount",
        "--list",
        "--check",
        "--self-test",
        "--baseline",
        "--gate",
        "--json",
        "--html",
    ] {
        assert!(help.contains(option), "{option} is missing");
    }
}

#[test]
fn the_built_in_suite_runs_and_writes_both_files() {
    let dir = scratch("run");
    let (json, html) = (dir.join("r.json"), dir.join("r.html"));
    let bounds = dir.join("bounds.tsv");
    // One that holds, one that cannot, one of a group that was not asked for.
    let table = "# a remark\nharness/control\t1\tcopy\t2.0\nharness/planted\t1\tplus-3\t0.1\npool/x\t1\tbest\t1\n";
    std::fs::write(&bounds, table).expect("bounds are written");
    let output = bench(&[
        "harness",
        "--launches",
        "2",
        "--time",
        "0.1",
        "--json",
        &json.to_string_lossy(),
        "--html",
        &html.to_string_lossy(),
        "--bounds",
        &bounds.to_string_lossy(),
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(3),
        "a bound is missed: {text}{error}"
    );
    assert!(text.contains("1 of 2 bounds hold"), "{text}");
    assert!(text.contains("fewer than 5 launches"), "{text}");

    let json = std::fs::read_to_string(json).expect("results.json");
    let results: Results = serde_json::from_str(&json).expect("results of our schema");
    assert_eq!((results.schema_version, results.launches), (1, 2));
    let stall = results.scenarios.iter().find(|s| s.id == "harness/stall");
    let stall = stall.expect("the latency scenario ran");
    assert_eq!(stall.kind, Kind::Latency);
    let max = stall.points.iter().find(|p| p.name == "max").expect("max");
    let of = |name: &str| max.rows.iter().find(|r| r.name == name).map(|r| r.value);
    assert!(
        of("stalling") >= Some(1_990.0),
        "a stall of 2 ms shows in the tail: {max:?}"
    );
    for scenario in &results.scenarios {
        assert_eq!(
            scenario
                .rows
                .iter()
                .filter(|r| r.role == Role::Ours)
                .count(),
            1
        );
        for row in &scenario.rows {
            assert_eq!(row.status, Status::Ok);
            assert_eq!(row.cost_ratio.is_none(), row.role == Role::Ours);
        }
    }
    let html = std::fs::read_to_string(html).expect("report.html");
    assert!(html.contains("harness/planted"));
}

#[test]
fn a_filter_that_names_nothing_built_in_lists_the_group() {
    let output = bench(&["harness", "--check"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("0 differ, 0 failed"), "{text}");
}
