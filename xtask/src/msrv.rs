//! Whether the libraries keep the minimum Rust version that they declare: none
//! of their dependencies may ask for a newer one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::step;

/// Checks every normal dependency, direct or not, of the given packages.
pub(crate) fn check(libraries: &[&str]) -> Result<(), String> {
    let output = step::with(step::cargo(), &["metadata", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cargo metadata did not start: {e}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata gave no answer: {e}"))?;
    let faults: Vec<String> = libraries
        .iter()
        .flat_map(|library| faults(&metadata, library))
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n"))
    }
}

fn faults(metadata: &Value, library: &str) -> Vec<String> {
    let list = |key: &str| metadata[key].as_array().into_iter().flatten();
    let package = |id: &str| list("packages").find(|p| p["id"] == id);
    let nodes = || {
        metadata["resolve"]["nodes"]
            .as_array()
            .into_iter()
            .flatten()
    };
    let Some(root) = list("packages").find(|p| p["name"] == library) else {
        return vec![format!("there is no package {library}")];
    };
    let Some(limit) = version(&root["rust_version"]) else {
        return vec![format!("{library} declares no rust-version")];
    };
    let mut open: Vec<&str> = root["id"].as_str().into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if let Some(package) = package(id)
            && version(&package["rust_version"]).is_some_and(|v| v > limit)
        {
            faults.push(format!(
                "{library} declares Rust {}.{}, but {} {} needs {}",
                limit.0, limit.1, package["name"], package["version"], package["rust_version"]
            ));
        }
        let node = nodes().find(|n| n["id"] == id);
        let deps = node.and_then(|n| n["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let mut kinds = dep["dep_kinds"].as_array().into_iter().flatten();
            // The model checker is a dependency of its own configuration alone.
            let normal = |k: &Value| {
                k["kind"].is_null() && !k["target"].as_str().is_some_and(|t| t.contains("loom"))
            };
            if kinds.any(normal) {
                open.extend(dep["pkg"].as_str());
            }
        }
    }
    faults
}

fn version(text: &Value) -> Option<(u32, u32)> {
    let mut parts = text.as_str()?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
