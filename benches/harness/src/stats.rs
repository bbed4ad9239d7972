//! Statistics of paired measurements: medians, distribution-free intervals,
//! verdicts.

use serde::{Deserialize, Serialize};

/// An estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The best single figure.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What an interval of a cost ratio allows us to say of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval lies within one percent of 1.
    Equal,
    /// The whole interval lies below 0.995.
    Faster,
    /// None of the others: more measuring is needed to say anything.
    Inconclusive,
    /// The whole interval lies above 1.005.
    Slower,
}
