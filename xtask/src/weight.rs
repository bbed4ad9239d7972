//! What a user of each library gets without asking: the packages of its
//! default build, counted.

use std::collections::BTreeSet;

use crate::step;

/// The crate that exists for the `redis` features: who depends on it has asked
/// for Redis and its client, whatever that pulls in.
const ASKED_FOR: &str = "overdrive-remote";

/// The deques of the thread pool, and what they are made of.
const DEQUES: &[&str] = &["crossbeam-deque", "crossbeam-epoch", "crossbeam-utils"];

/// `FuturesOrdered` and `FuturesUnordered`, and what they consist of; and the thread pool.
const PIPELINE: &[&str] = &[
    "crossbeam-deque",
    "crossbeam-epoch",
    "crossbeam-utils",
    "futures-core",
    "futures-task",
    "futures-util",
    "pin-project-lite",
    "slab",
];

/// Every other published crate, and the packages of others that its default
/// build may compile. A dependency that is not listed here is a fault, as is
/// one that is listed and no longer there.
const DEFAULT_BUILDS: &[(&str, &[&str])] = &[
    ("overdrive-core", &[]),
    ("overdrive-batch", &[]),
    ("overdrive-pipeline", PIPELINE),
    ("overdrive-pool", &[]),
    ("overdrive-ratelimit", &["hashbrown"]),
    ("overdrive-tiered-cache", &["hashbrown"]),
    ("overdrive-workstealing", DEQUES),
    ("overdrive", &[]),
];

/// Checks that list for each of `libraries`.
pub(crate) fn check(libraries: &[&str]) -> Result<(), String> {
    let mut faults = Vec::new();
    for library in libraries.iter().filter(|library| **library != ASKED_FOR) {
        let Some((_, allowed)) = DEFAULT_BUILDS.iter().find(|(name, _)| name == library) else {
            faults.push(format!("{library} has no line in xtask/src/weight.rs"));
            continue;
        };
        let tree = tree(library)?;
        let found = packages(&tree);
        println!("{library:<24} {} packages of others", found.len());
        faults.extend(differences(library, allowed, &found));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n"))
    }
}

/// The packages of a library's default build, a line each.
pub(crate) fn tree(library: &str) -> Result<String, String> {
    let args = [
        "tree",
        "--locked",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    let output = step::with(step::with(step::cargo(), &args), &["--package", library])
        .output()
        .map_err(|e| format!("cargo tree did not start: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree failed for {library}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The names of the packages in a tree that are not ours.
fn packages(tree: &str) -> BTreeSet<&str> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "overdrive" && !name.starts_with("overdrive-"))
        .collect()
}

fn differences(library: &str, allowed: &[&str], found: &BTreeSet<&str>) -> Vec<String> {
    let unasked = found.iter().filter(|name| !allowed.contains(*name));
    let gone = allowed.iter().filter(|name| !found.contains(*name));
    unasked
        .map(|name| format!("{library} pulls in {name}, which its user did not ask for"))
        .chain(gone.map(|name| format!("{library} is allowed {name}, which it does not use")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_others_are_found_once() {
        let tree = "overdrive-batch v0.1.0 (/x)\noverdrive-core v0.1.0 (/y)\nslab v0.4.9\nslab v0.4.9 (*)\n";
        assert_eq!(packages(tree).into_iter().collect::<Vec<_>>(), ["slab"]);
    }

    #[test]
    fn what_is_too_much_and_what_is_gone_are_faults() {
        let found = BTreeSet::from(["a", "b"]);
        assert!(differences("x", &["a", "b"], &found).is_empty());
        assert_eq!(differences("x", &["a"], &found).len(), 1);
        assert_eq!(differences("x", &["a", "b", "c"], &found).len(), 1);
    }
}
