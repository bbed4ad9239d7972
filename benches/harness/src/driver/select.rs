//! Which benchmark binaries there are, and which scenarios a filter means.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Failure;
use super::launch::Program;
use crate::child::{Catalogue, ScenarioEntry};

/// The workspace that is being measured.
#[derive(Clone, Debug)]
pub(super) struct Workspace {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
    /// Names of the benchmark binaries, in the order of their manifest.
    pub(super) suites: Vec<String>,
}

/// The package whose binaries are the benchmark suites. A suite `pool` has the
/// features `pool` (the scenarios, ours, the limits) and `pool-peers`.
const PACKAGE: &str = "overdrive-benches";

pub(super) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

impl Workspace {
    /// The workspace at `dir`; the suites' order is that of their names.
    pub(super) fn find(dir: &Path) -> Result<Self, Failure> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(dir)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Failure::Error(format!("cargo did not start: {e}")))?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| Failure::Error("cargo metadata gave no answer".into()))?;
        let path = |key: &str| PathBuf::from(metadata[key].as_str().unwrap_or_default());
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let suites = packages
            .filter(|p| p["name"] == PACKAGE)
            .flat_map(|p| p["targets"].as_array().into_iter().flatten())
            .filter(|t| t["kind"][0] == "bin")
            .filter_map(|t| t["name"].as_str().map(str::to_owned))
            .collect();
        Ok(Self {
            root: path("workspace_root"),
            target: path("target_directory"),
            suites,
        })
    }

    /// Builds a suite's binary in release mode.
    pub(super) fn build(&self, suite: &str, peers: bool) -> Result<Program, Failure> {
        let feature = if peers {
            format!("{suite}-peers")
        } else {
            suite.to_owned()
        };
        let status = cargo()
            .args(["build", "--release", "--package", PACKAGE])
            .args(["--bin", suite, "--features", &feature])
            .arg("--target-dir")
            .arg(&self.target)
            .current_dir(&self.root)
            .stdout(Stdio::null())
            .status()
            .map_err(|e| Failure::Error(format!("cargo did not start: {e}")))?;
        if !status.success() {
            return Err(Failure::Error(format!(
                "the benchmark {suite} in {} does not build",
                self.root.display()
            )));
        }
        let file = format!("{suite}{}", std::env::consts::EXE_SUFFIX);
        Ok(Program {
            path: self.target.join("release").join(file),
            prefix: Vec::new(),
        })
    }
}

/// The group of a suite or scenario: `pool` of `pool-resource` and `pool/x`.
pub(super) fn group(name: &str) -> &str {
    name.split(['/', '-']).next().unwrap_or(name)
}

/// Whether a scenario is meant by the filters; all are if there is none. A
/// filter is a group or a part of the id.
pub(super) fn wanted(filters: &[String], id: &str) -> bool {
    filters.is_empty() || filters.iter().any(|f| id.contains(f.as_str()))
}

/// Checks that each filter means something in the catalogues; otherwise a
/// sentence that names the closest.
pub(super) fn resolve(filters: &[String], catalogues: &[Catalogue]) -> Result<(), Failure> {
    let ids: Vec<&str> = catalogues
        .iter()
        .flat_map(|c| &c.scenarios)
        .map(|s| s.id.as_str())
        .collect();
    for filter in filters {
        if !ids
            .iter()
            .any(|id| wanted(std::slice::from_ref(filter), id))
        {
            return Err(Failure::Usage(format!(
                "no scenario matches {filter:?}; closest: {}",
                closest(filter, &ids).join(", ")
            )));
        }
    }
    Ok(())
}

fn closest<'a>(filter: &str, ids: &[&'a str]) -> Vec<&'a str> {
    let likeness = |id: &str| {
        let name = id.split('/').nth(1).unwrap_or(id);
        [id, name, group(id)]
            .iter()
            .map(|part| strsim::normalized_damerau_levenshtein(filter, part))
            .fold(0.0, f64::max)
    };
    let mut ids = ids.to_vec();
    ids.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    ids.truncate(3);
    ids
}

/// The thread counts at which a scenario runs.
pub(super) fn thread_counts(
    entry: &ScenarioEntry,
    asked: Option<&[usize]>,
    quick: bool,
) -> Vec<usize> {
    match (entry.threads.as_slice(), asked) {
        ([one], _) => vec![*one],
        (_, Some(asked)) => asked.to_vec(),
        (listed, None) if quick => listed.iter().copied().filter(|n| *n <= 2).collect(),
        (listed, None) => listed.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_means_its_scenarios_and_a_part_those_that_contain_it() {
        let wants = |filter: &str, id: &str| wanted(&[filter.to_owned()], id);
        assert!(wants("pool", "pool/get_put_4k"));
        assert!(wants("pool/get", "pool/get_put_4k"));
        assert!(wants("4k", "pool/get_put_4k"));
        assert!(!wants("burst", "pool/get_put_4k"));
        assert!(wanted(&[], "pool/get_put_4k"));
    }

    #[test]
    fn a_misspelt_filter_names_the_closest() {
        let ids = ["pool/get_put_4k", "pool/burst_64_64b", "batch/noop_100"];
        assert_eq!(closest("get_putt_4k", &ids)[0], "pool/get_put_4k");
        assert_eq!(closest("btach", &ids)[0], "batch/noop_100");
    }
}
