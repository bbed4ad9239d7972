//! The results file: what one run found, in the schema that other tools read.
//!
//! The field names and their meaning are stable; a change of meaning raises
//! [`SCHEMA_VERSION`]. A figure that has no meaning for a row is `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::{Interval, Verdict};

/// The version of the schema that this crate writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that one run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// How many process launches each scenario was measured in.
    pub launches: u32,
    /// Where it ran.
    pub machine: Machine,
    /// What the A/A control said of the run.
    pub noise: Noise,
    /// One entry per scenario and thread count.
    pub scenarios: Vec<ScenarioResult>,
}

/// Where a run took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many hardware threads the process may use.
    pub cores: usize,
    /// The compiler's version line.
    pub rustc: String,
    /// The commit measured, with `+dirty` where the tree had changes.
    pub git: String,
    /// The one-minute load average before the run.
    pub load_before: f64,
    /// The one-minute load average after the run.
    #[serde(default)]
    pub load_after: f64,
    /// Operating system and kernel.
    #[serde(default)]
    pub kernel: String,
    /// When the run began, RFC 3339, UTC.
    #[serde(default)]
    pub started: String,
}

/// The A/A control: one loop against itself, spread over the whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The ratio found between two copies of the same loop; 1 on a quiet machine.
    pub control_ratio: f64,
    /// Whether the run can be trusted to half a percent.
    pub stamp: Stamp,
}

/// Whether the A/A control was off by more than half a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stamp {
    /// The control was off: treat small differences as unproven.
    Noisy,
    /// The control was within half a percent.
    Quiet,
}

/// One scenario at one thread count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// `group/name`.
    pub id: String,
    /// What the scenario measures, one sentence.
    #[serde(default)]
    pub about: String,
    /// Whether `--quick` runs it.
    pub tier: Tier,
    /// Load-generating threads.
    pub threads: usize,
    /// More threads than cores.
    #[serde(default)]
    pub oversubscribed: bool,
    /// How it was measured.
    pub kind: Kind,
    /// The unit of each row's value.
    pub unit: String,
    /// Which direction of the value is good.
    pub better: Better,
    /// What the work was done on.
    pub input: String,
    /// The peer with the least cost, if any peer was measured.
    pub best_peer: Option<String>,
    /// Ours against `best_peer`.
    pub verdict: Option<Verdict>,
    /// One row per contender.
    pub rows: Vec<Row>,
    /// Further figures by position, such as percentiles or cache sizes.
    #[serde(default)]
    pub points: Vec<Point>,
}

/// Whether `--quick` runs a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Runs always.
    Core,
    /// Left out of `--quick`.
    Slow,
}

/// How a scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A deterministic size; run once.
    Bytes,
    /// A deterministic count; run once.
    Count,
    /// Open-loop latency; the value is a percentile.
    Latency,
    /// A deterministic share between 0 and 1; run once.
    Ratio,
    /// Time per operation, interleaved.
    Time,
}

/// Which direction of a value is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// One contender's figures in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The contender.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// The version of the crate that was measured.
    pub version: String,
    /// Whether it was measured.
    pub status: Status,
    /// Why it was not, or what is special about it.
    pub reason: Option<String>,
    /// Its figure in the scenario's unit.
    pub value: Option<f64>,
    /// Cost of ours over the cost of this row: below 1 we are ahead.
    pub cost_ratio: Option<Interval>,
    /// Second opinions and scenario-specific figures, by name: `cpu_ns`,
    /// `allocs`, `bytes`, `instructions`, ...
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// What a row is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The contender of this project.
    Ours,
    /// A floor that nobody can beat.
    Limit,
    /// A hand-written or conventional way of doing the job.
    Reference,
    /// A shipped crate that does the same job.
    Peer,
    /// Shown, not comparable.
    Context,
}

/// Whether a row was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Measured.
    Ok,
    /// Gives wrong answers; shown with its reason, never timed.
    KnownWrong,
    /// Not measured here, for the given reason.
    Skipped,
}

/// The figures of all rows at one position: a percentile, a cache size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The position, such as `p99` or `trace@capacity`.
    pub name: String,
    /// One figure per contender.
    pub rows: Vec<PointRow>,
}

/// One contender's figure at a [`Point`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointRow {
    /// The contender.
    pub name: String,
    /// Its figure.
    pub value: f64,
}
