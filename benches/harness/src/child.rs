//! What a launched benchmark process is told, and what it answers.
//!
//! The driver starts one process per launch, scenario and thread count, passes
//! an [`Order`] as JSON and reads one [`Answer`] from its standard output.

use serde::{Deserialize, Serialize};

use crate::results::{Better, Kind, Role, Tier};
use crate::scenario::Setup;
use crate::stats::Launch;

/// Raised when order or answer change, so that `--baseline` notices a revision
/// that it cannot talk to.
pub(crate) const PROTOCOL: u32 = 1;

/// Stands before the answer, so that a contender that prints does no harm.
pub(crate) const MARK: &str = "OVERDRIVE-ANSWER ";

/// One job for one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The scenario's id.
    pub(crate) scenario: String,
    /// How many threads to run it with.
    pub(crate) threads: usize,
    /// Seeds the order of contenders.
    pub(crate) seed: u64,
    /// Seeds the workload; the same in every launch.
    pub(crate) input_seed: u64,
    /// Seconds of timed slices per contender.
    pub(crate) seconds: f64,
    /// Where recorded traces are.
    pub(crate) traces: Option<std::path::PathBuf>,
    /// The workspace that is being measured.
    pub(crate) workspace: std::path::PathBuf,
    /// The rows to run; all if empty.
    pub(crate) rows: Vec<String>,
    /// What to do.
    pub(crate) mode: Mode,
}

impl Order {
    /// Measure all rows of a scenario on one thread.
    pub(crate) fn new(scenario: &str, seed: u64, seconds: f64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            threads: 1,
            seed,
            input_seed: 42,
            seconds,
            traces: None,
            workspace: std::path::PathBuf::new(),
            rows: Vec::new(),
            mode: Mode::Measure,
        }
    }

    /// What the contenders are built from.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            seed: self.input_seed,
            threads: self.threads,
            traces: self.traces.clone(),
            workspace: self.workspace.clone(),
        }
    }
}

/// What a process is to do with its scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Answer check, then measure.
    Measure,
    /// One contender's loop inside a region that callgrind counts.
    Instructions {
        /// How many operations.
        ops: u64,
    },
}

/// What a process found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// One per contender that ran.
    pub(crate) rows: Vec<RowAnswer>,
    /// The check values, where they differ between contenders.
    pub(crate) differ: Vec<(String, u64)>,
    /// Why there is no answer.
    pub(crate) error: Option<String>,
}

/// The check values, if they are not all the same.
pub(crate) fn disagreement(checks: Vec<(String, u64)>) -> Vec<(String, u64)> {
    match checks.first() {
        Some(first) if checks.iter().any(|c| c.1 != first.1) => checks,
        _ => Vec::new(),
    }
}

/// One contender's figures in one launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowAnswer {
    /// The contender.
    pub(crate) name: String,
    /// Its figure in the scenario's unit.
    pub(crate) value: f64,
    /// What the answer check compared.
    pub(crate) check: u64,
    /// Log of the cost of ours over its own, with its interval in this launch.
    pub(crate) against: Option<LaunchRatio>,
    /// Further figures by name.
    pub(crate) metrics: Vec<(String, f64)>,
    /// Figures by position.
    pub(crate) points: Vec<(String, f64)>,
}

/// [`Launch`], as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaunchRatio {
    /// Median log-ratio.
    pub(crate) median: f64,
    /// Lower end in this process.
    pub(crate) low: f64,
    /// Upper end in this process.
    pub(crate) high: f64,
}

impl From<LaunchRatio> for Launch {
    fn from(r: LaunchRatio) -> Self {
        Self {
            median: r.median,
            low: r.low,
            high: r.high,
        }
    }
}

/// What a benchmark binary offers, in answer to `--list-json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    /// See [`PROTOCOL`].
    pub(crate) protocol: u32,
    /// Its scenarios.
    pub(crate) scenarios: Vec<ScenarioEntry>,
}

/// One scenario of a [`Catalogue`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScenarioEntry {
    /// `group/name`.
    pub(crate) id: String,
    /// One sentence.
    pub(crate) about: String,
    /// What the work is done on.
    pub(crate) input: String,
    /// Whether `--quick` runs it.
    pub(crate) tier: Tier,
    /// How it is measured.
    pub(crate) kind: Kind,
    /// Unit of the value.
    pub(crate) unit: String,
    /// Which direction is good.
    pub(crate) better: Better,
    /// The thread counts it lists.
    pub(crate) threads: Vec<usize>,
    /// Whether `threads` are the contenders' own threads.
    pub(crate) own_threads: bool,
    /// Operations of the answer check.
    pub(crate) check_ops: u64,
    /// Units per operation.
    pub(crate) per_op: u64,
    /// Its contenders.
    pub(crate) rows: Vec<RowEntry>,
}

/// One contender of a [`ScenarioEntry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowEntry {
    /// The contender.
    pub(crate) name: String,
    /// What it is there for.
    pub(crate) role: Role,
    /// The version measured.
    pub(crate) version: String,
    /// A remark, or why it is not run.
    pub(crate) reason: Option<String>,
    /// Declared to answer wrongly.
    pub(crate) known_wrong: bool,
}
