//! Which of our crates may depend on which.

use std::path::Path;

use serde_json::Value;

use crate::step;

/// Every edge that may be: from, to, and whether only an optional dependency
/// may make it. Edges that are not listed are faults.
const EDGES: &[(&str, &str, bool)] = &[
    ("overdrive-remote", "overdrive-core", false),
    ("overdrive-testkit", "overdrive-core", false),
    ("overdrive-pool", "overdrive-core", false),
    ("overdrive-batch", "overdrive-core", false),
    ("overdrive-ratelimit", "overdrive-core", false),
    ("overdrive-tiered-cache", "overdrive-core", false),
    ("overdrive-workstealing", "overdrive-core", false),
    ("overdrive-pipeline", "overdrive-core", false),
    ("overdrive-pipeline", "overdrive-workstealing", false),
    ("overdrive-ratelimit", "overdrive-remote", true),
    ("overdrive-tiered-cache", "overdrive-remote", true),
    ("overdrive-pipeline", "overdrive-remote", true),
    ("overdrive-pipeline", "overdrive-batch", true),
    ("overdrive-pipeline", "overdrive-ratelimit", true),
    ("overdrive-pipeline", "overdrive-pool", true),
    ("overdrive-batch", "overdrive-pool", true),
    ("overdrive", "overdrive-pool", true),
    ("overdrive", "overdrive-batch", true),
    ("overdrive", "overdrive-ratelimit", true),
    ("overdrive", "overdrive-tiered-cache", true),
    ("overdrive", "overdrive-workstealing", true),
    ("overdrive", "overdrive-pipeline", true),
    ("overdrive-examples", "overdrive", false),
];

/// May depend on anything of ours.
const ANYTHING: &str = "overdrive-benches";
/// Only ever a dev-dependency, except of [`ANYTHING`].
const TESTKIT: &str = "overdrive-testkit";
/// What every crate shares must stay small.
const CORE: &str = "overdrive-core";
const CORE_LINES: usize = 1_500;

/// Checks every edge between our crates; the faults, one sentence each.
pub(crate) fn check() -> Result<(), String> {
    let output = step::with(
        step::cargo(),
        &["metadata", "--no-deps", "--format-version", "1"],
    )
    .output()
    .map_err(|e| format!("cargo metadata did not start: {e}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata gave no answer: {e}"))?;
    let mut faults = faults(&metadata);
    let core = packages(&metadata).find(|p| p["name"] == CORE);
    if let Some(manifest) = core.and_then(|p| p["manifest_path"].as_str()) {
        let lines = lines(&Path::new(manifest).with_file_name("src"));
        if lines > CORE_LINES {
            faults.push(format!("{CORE} has {lines} lines, more than {CORE_LINES}"));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n"))
    }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn faults(metadata: &Value) -> Vec<String> {
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages(metadata).map(name).collect();
    let mut faults = Vec::new();
    for package in packages(metadata) {
        let from = name(package);
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies {
            let to = name(dependency);
            let dev = dependency["kind"] == "dev";
            // A crate names itself for features of its own tests.
            if !ours.contains(&to) || from == ANYTHING || (dev && (to == TESTKIT || to == from)) {
                continue;
            }
            let edge = EDGES.iter().find(|(f, t, _)| *f == from && *t == to);
            match edge {
                None => faults.push(format!("{from} must not depend on {to}")),
                Some((_, _, true)) if !dev && dependency["optional"] != true => {
                    faults.push(format!("{from} may depend on {to} by a feature only"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

fn lines(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return lines(&path);
            }
            std::fs::read_to_string(&path).map_or(0, |text| text.lines().count())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(from: &str, to: &str, kind: Option<&str>, optional: bool) -> Value {
        serde_json::json!({ "packages": [
            { "name": from, "dependencies": [
                { "name": to, "kind": kind, "optional": optional },
                { "name": "serde", "kind": null, "optional": false },
            ] },
            { "name": to, "dependencies": [] },
        ] })
    }

    #[test]
    fn listed_edges_pass_and_others_do_not() {
        let faults = |from, to, kind, optional| faults(&metadata(from, to, kind, optional)).len();
        assert_eq!(faults("overdrive-pool", "overdrive-core", None, false), 0);
        assert_eq!(faults("overdrive-pool", "overdrive-batch", None, false), 1);
        assert_eq!(faults("overdrive-batch", "overdrive-pool", None, true), 0);
        assert_eq!(faults("overdrive-batch", "overdrive-pool", None, false), 1);
        assert_eq!(
            faults("overdrive-batch", "overdrive-testkit", Some("dev"), false),
            0
        );
        assert_eq!(
            faults("overdrive-batch", "overdrive-testkit", None, false),
            1
        );
        assert_eq!(
            faults("overdrive-benches", "overdrive-testkit", None, false),
            0
        );
        assert_eq!(faults("xtask", "overdrive-core", None, false), 1);
        assert_eq!(faults("overdrive-core", "overdrive", None, true), 1);
    }
}
