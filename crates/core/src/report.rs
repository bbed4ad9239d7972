//! What every crate says of its state and of its end, in the same words.

use std::fmt;

/// Which of several waiting pieces of work comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// After everything else, though not never.
    Low,
    /// What work has unless it says otherwise.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

/// What became of accepted work when its owner ended, from `drain` and `shutdown`.
///
/// ```
/// use overdrive_core::DrainReport;
///
/// let report = DrainReport::new(3, 0);
/// assert!(report.is_complete());
/// assert_eq!(report.to_string(), "3 finished, none abandoned");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "says whether anything was abandoned"]
#[non_exhaustive]
pub struct DrainReport {
    /// Accepted pieces of work that ended after the call began, well or with an error that their
    /// submitter was given.
    pub finished: u64,
    /// Accepted pieces of work that had not ended at the deadline. Each crate says what becomes
    /// of them.
    pub abandoned: u64,
}

impl DrainReport {
    /// The report with those figures.
    pub const fn new(finished: u64, abandoned: u64) -> Self {
        Self {
            finished,
            abandoned,
        }
    }

    /// Whether all that was accepted had ended by the deadline.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.abandoned == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.abandoned {
            0 => write!(f, "{} finished, none abandoned", self.finished),
            n => write!(f, "{} finished, {n} abandoned", self.finished),
        }
    }
}

/// How something that has a state to judge is doing, from `health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Health {
    /// It works as it should.
    Healthy,
    /// It works, though worse than it should: behind, or without a part that it can do without.
    Degraded,
    /// It does not do its work.
    Unhealthy,
}
