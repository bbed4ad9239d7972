//! Whether the libraries keep the minimum Rust version that they declare: with
//! default features none of their dependencies may ask for a newer one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::step;
use crate::weight::tree;

/// Checks every package in the default build of each library.
pub(crate) fn check(libraries: &[&str]) -> Result<(), String> {
    let output = step::with(step::cargo(), &["metadata", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cargo metadata did not start: {e}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata gave no answer: {e}"))?;
    let mut faults = Vec::new();
    for library in libraries {
        faults.extend(faults_of(library, &metadata, &tree(library)?));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n"))
    }
}

/// `tree` has a package per line, as `name v1.2.3`; the first is the library.
fn faults_of(library: &str, metadata: &Value, tree: &str) -> Vec<String> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        packages().find(|p| p["name"] == name && p["version"] == version)
    };
    let build: Vec<&Value> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter_map(named)
        .collect();
    let root = build.iter().find(|p| p["name"] == library);
    let Some(limit) = root.and_then(|root| version(&root["rust_version"])) else {
        return vec![format!("{library} declares no rust-version")];
    };
    let newer = |p: &&&Value| version(&p["rust_version"]).is_some_and(|needed| needed > limit);
    let fault = |p: &&Value| {
        let (major, minor) = limit;
        let (name, version, needed) = (&p["name"], &p["version"], &p["rust_version"]);
        format!("{library} declares Rust {major}.{minor}, but {name} {version} needs {needed}")
    };
    build.iter().filter(newer).map(fault).collect()
}

fn version(text: &Value) -> Option<(u32, u32)> {
    let mut parts = text.as_str()?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_need_is_a_fault() {
        let package = |name: &str, rust: &str| serde_json::json!({ "name": name, "version": "1.0.0", "rust_version": rust });
        let metadata = serde_json::json!({ "packages": [
            package("ours", "1.85"), package("old", "1.60.0"), package("new", "1.90"),
        ] });
        let faults = |tree| faults_of("ours", &metadata, tree).len();
        assert_eq!(faults("ours v1.0.0 (/path)\nold v1.0.0\n"), 0);
        assert_eq!(
            faults("ours v1.0.0 (/path)\nold v1.0.0\nnew v1.0.0\nnew v1.0.0 (*)\n"),
            1
        );
        assert_eq!(faults("nothing\n"), 1);
    }
}
