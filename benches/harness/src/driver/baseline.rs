//! `--baseline REV`: this tree against an older revision, measured now, on this
//! machine, the two binaries alternating. Figures of yesterday are never used.

use std::path::PathBuf;
use std::process::Command;

use super::Failure;
use super::launch::Program;
use super::options::Options;
use super::run::{Item, progress};
use super::select::Workspace;
use crate::child::{RowAnswer, ScenarioEntry};
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
    /// what a gate has against them, one sentence each.
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
        let mut objections = Vec::new();
        for (item, result) in items.iter().zip(results) {
            bar.set_message(format!("{} against {}", item.label(), self.name));
            let ours = |s: &ScenarioEntry| {
                let row = s.rows.iter().find(|r| r.role == Role::Ours);
                row.map(|r| r.name.clone())
            };
            let old_entry = known.scenarios.iter().find(|s| s.id == item.entry.id);
            let names = old_entry.and_then(ours).zip(ours(&item.entry));
            let timed = matches!(item.entry.kind, Kind::Time | Kind::Latency);
            let row = match names {
                _ if !timed => self.skipped("computed, not timed"),
                None => self.skipped("not in the baseline"),
                Some((old_name, new_name)) => {
                    let mut launches = Vec::new();
                    let mut values = Vec::new();
                    for _ in 0..pairs {
                        let pair = [(new, new_name.as_str()), (old, old_name.as_str())];
                        let [new, old] = self.pair(pair, item, options, pairs)?;
                        bar.inc(1);
                        let log = (new.value / old.value).ln();
                        if log.is_finite() && new.check == old.check {
                            values.push(old.value);
                            launches.push(Launch {
                                median: log,
                                low: log,
                                high: log,
                            });
                        }
                    }
                    match stats::combine(&launches) {
                        None => self.skipped("its answers differ: the work has changed"),
                        Some(ratio) => self.row(stats::median(&mut values), Some(ratio)),
                    }
                }
            };
            if let Some(gate) = options.gate.filter(|_| timed) {
                let label = item.label();
                match (row.cost_ratio, &row.reason) {
                    (Some(ratio), _) if ratio.low > 1.0 + gate / 100.0 => {
                        objections.push(format!("{label} is slower by more than {gate} %"));
                    }
                    (None, Some(reason)) => objections.push(format!("{label}: {reason}")),
                    _ => {}
                }
            }
            result.rows.push(row);
        }
        bar.finish_and_clear();
        Ok(objections)
    }

    /// One launch of each program, in random order.
    fn pair(
        &self,
        pair: [(&Program, &str); 2],
        item: &Item,
        options: &Options,
        pairs: u32,
    ) -> Result<[RowAnswer; 2], Failure> {
        let launch = |(program, row): (&Program, &str)| {
            let seconds = options.seconds / f64::from(pairs);
            // This tree is the input of both sides.
            let mut order = item.order(options, &self.repository, fastrand::u64(..), seconds);
            order.rows = vec![row.to_owned()];
            let answer = program.launch(&order, 1)?;
            let row = answer.rows.into_iter().next();
            row.ok_or_else(|| Failure::Error(format!("{}: no answer", item.label())))
        };
        let [first, second] = pair;
        if fastrand::bool() {
            Ok([launch(first)?, launch(second)?])
        } else {
            let second = launch(second)?;
            Ok([launch(first)?, second])
        }
    }

    fn skipped(&self, reason: &str) -> Row {
        Row {
            status: Status::Skipped,
            reason: Some(reason.to_owned()),
            ..self.row(None, None)
        }
    }

    fn row(&self, value: Option<f64>, cost_ratio: Option<Interval>) -> Row {
        Row {
            name: format!("baseline {}", self.name),
            role: Role::Context,
            version: self.name.clone(),
            status: Status::Ok,
            reason: None,
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
