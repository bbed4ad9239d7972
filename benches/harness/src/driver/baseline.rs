//! `--baseline REV`: this tree against an older revision, measured now, on this
//! machine, the two binaries alternating. Figures of yesterday are never used.

use std::path::PathBuf;
use std::process::Command;

use super::Failure;
use super::launch::Program;
use super::options::Options;
use super::run::{Item, progress};
use super::select::Workspace;
use crate::child::{Mode, Order, RowAnswer};
use crate::results::{Kind, Role, Row, ScenarioResult, Status};
use crate::stats::{self, Interval, Launch};

/// Pairs of launches, old and new, at the least: the interval comes from the
/// spread between pairs alone.
const PAIRS: u32 = 11;

/// A checked-out older revision.
#[derive(Debug)]
pub(super) struct Revision {
    name: String,
    workspace: Workspace,
    /// The repository that the work tree is registered with.
    repository: PathBuf,
}

fn git(dir: &std::path::Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(error.lines().next().unwrap_or_default().to_owned())
    }
}

impl Revision {
    /// Checks the revision out into a work tree below the target folder.
    pub(super) fn check_out(workspace: &Workspace, revision: &str) -> Result<Self, Failure> {
        let commit = git(
            &workspace.root,
            &[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &format!("{revision}^{{commit}}"),
            ],
        )
        .map_err(|_| Failure::Usage(format!("there is no revision {revision:?}")))?;
        let home = workspace.target.join("overdrive-bench");
        let tree = home.join(format!("tree-{commit}"));
        if !tree.join("Cargo.toml").is_file() {
            let path = tree.to_string_lossy().into_owned();
            // A tree that was deleted by hand is still registered.
            let added = git(&workspace.root, &["worktree", "prune"]).and_then(|_| {
                git(
                    &workspace.root,
                    &["worktree", "add", "--detach", &path, &commit],
                )
            });
            added.map_err(|e| Failure::Error(format!("cannot check out {revision}: {e}")))?;
        }
        let mut old = Workspace::find(&tree)?;
        if old.root != tree {
            return Err(Failure::Error(format!(
                "{revision} is not a workspace of its own"
            )));
        }
        // One target folder for all old revisions, so that peers compile once.
        old.target = home.join("baseline-target");
        Ok(Self {
            name: revision.to_owned(),
            workspace: old,
            repository: workspace.root.clone(),
        })
    }

    /// Builds a suite of the old revision.
    pub(super) fn build(&self, suite: &str, own: &Program) -> Result<Program, Failure> {
        if suite == super::BUILTIN {
            return Ok(own.clone());
        }
        if !self.workspace.suites.iter().any(|s| s == suite) {
            return Err(Failure::Error(format!(
                "the baseline {} has no benchmark {suite}",
                self.name
            )));
        }
        self.workspace
            .build(suite, false)
            .map_err(|e| Failure::Error(format!("the baseline {}: {e}", self.name)))
    }

    /// Adds to each scenario a row for ours at the old revision, and returns
    /// those that got slower by more than the gate.
    pub(super) fn compare(
        &self,
        new: &Program,
        old: &Program,
        items: &[Item],
        results: &mut [ScenarioResult],
        options: &Options,
    ) -> Result<Vec<String>, Failure> {
        let known = old.catalogue().map_err(|e| {
            Failure::Error(format!(
                "the baseline {} cannot be measured: {e}",
                self.name
            ))
        })?;
        let pairs = options.launches.max(PAIRS);
        let bar = progress(items.len() * pairs as usize);
        let mut regressions = Vec::new();
        for (item, result) in items.iter().zip(results) {
            bar.set_message(format!("{} against {}", item.label(), self.name));
            let timed = matches!(item.entry.kind, Kind::Time | Kind::Latency);
            let old_row = known.scenarios.iter().find(|s| s.id == item.entry.id);
            let old_row = old_row.and_then(|s| s.rows.iter().find(|r| r.role == Role::Ours));
            let (Some(old_row), true) = (old_row, timed) else {
                result.rows.push(self.row(None, None));
                continue;
            };
            let new_row = item.entry.rows.iter().find(|r| r.role == Role::Ours);
            let new_name = new_row.map(|r| r.name.clone()).unwrap_or_default();
            let mut launches = Vec::new();
            let mut values = Vec::new();
            for pair in 0..pairs {
                let order = |row: &str| Order {
                    scenario: item.entry.id.clone(),
                    threads: item.threads,
                    seed: fastrand::u64(..),
                    input_seed: 42,
                    seconds: options.seconds / f64::from(pairs),
                    traces: options.traces.clone(),
                    rows: vec![row.to_owned()],
                    mode: Mode::Measure,
                };
                // Which of the two goes first changes at random.
                let (a, b);
                if fastrand::bool() {
                    a = new.launch(&order(&new_name), 1)?;
                    b = old.launch(&order(&old_row.name), 1)?;
                } else {
                    b = old.launch(&order(&old_row.name), 1)?;
                    a = new.launch(&order(&new_name), 1)?;
                }
                let value = |rows: &[RowAnswer]| rows.first().map_or(f64::NAN, |r| r.value);
                let (new, old) = (value(&a.rows), value(&b.rows));
                let log = (new / old).ln();
                if log.is_finite() {
                    values.push(old);
                    launches.push(Launch {
                        median: log,
                        low: log,
                        high: log,
                    });
                }
                bar.inc(u64::from(pair < pairs));
            }
            let ratio = stats::combine(&launches);
            if let (Some(gate), Some(ratio)) = (options.gate, ratio)
                && ratio.low > 1.0 + gate / 100.0
            {
                regressions.push(item.label());
            }
            result
                .rows
                .push(self.row(stats::median(&mut values), ratio));
        }
        bar.finish_and_clear();
        Ok(regressions)
    }

    fn row(&self, value: Option<f64>, cost_ratio: Option<Interval>) -> Row {
        let status = if value.is_some() {
            Status::Ok
        } else {
            Status::Skipped
        };
        Row {
            name: format!("baseline {}", self.name),
            role: Role::Context,
            version: self.name.clone(),
            status,
            reason: value
                .is_none()
                .then(|| "not timed, or not in the baseline".to_owned()),
            value,
            cost_ratio,
            metrics: std::collections::BTreeMap::new(),
        }
    }
}

impl Drop for Revision {
    /// Unregisters the work tree; the built binaries stay for the next time.
    fn drop(&mut self) {
        let path = self.workspace.root.to_string_lossy().into_owned();
        if let Err(error) = git(&self.repository, &["worktree", "remove", "--force", &path]) {
            eprintln!("the work tree {path} is left behind: {error}");
        }
    }
}
