//! `docs/compare.md` says "yes" of ours only where it names a test. The tests it names must exist.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/compare.md";

/// Checks the first column of figures in each table, which is ours.
pub(crate) fn check() -> Result<(), String> {
    let page = read(Path::new(PAGE))?;
    let listed = Command::new("git").args(["ls-files", "*.rs"]).output();
    let listed = listed.map_err(|e| format!("git did not start: {e}"))?;
    let mut functions = HashSet::new();
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let source = read(Path::new(file))?;
        let names = source
            .split("fn ")
            .skip(1)
            .map(|rest| word(rest).to_owned());
        functions.extend(names);
    }
    let wrong = wrong(&page, &functions);
    match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(format!("{PAGE}:\n  {}", wrong.join("\n  "))),
    }
}

/// What is said without a test, or with one that does not exist.
fn wrong(page: &str, functions: &HashSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (line, number) in page.lines().zip(1..) {
        let Some(ours) = line.strip_prefix('|').and_then(|row| row.split('|').nth(1)) else {
            continue;
        };
        let quoted = ours.split('`').skip(1).step_by(2);
        let named = |name: &&str| name.contains('_') && !name.contains(|c| !(part(c) || c == '*'));
        let tests: Vec<&str> = quoted.filter(named).collect();
        if ours.trim_start().starts_with("yes") && tests.is_empty() {
            wrong.push(format!("line {number}: \"yes\" without a test"));
        }
        for test in tests {
            let known = match test.strip_suffix('*') {
                Some(start) => functions.iter().any(|name| name.starts_with(start)),
                None => functions.contains(test),
            };
            if !known {
                wrong.push(format!("line {number}: there is no `{test}`"));
            }
        }
    }
    wrong
}

fn word(text: &str) -> &str {
    let end = text.find(|c| !part(c));
    &text[..end.unwrap_or(text.len())]
}

fn part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))
}

#[test]
fn a_yes_needs_a_test_that_exists() {
    let functions = HashSet::from(["it_holds".to_owned()]);
    let page = "| a | yes (`it_holds`) |\n| b | yes |\n| c | yes (`it_doesnt`) |\n| d | no |\n| e | yes (`it_*`) |";
    let wrong = wrong(page, &functions);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}
