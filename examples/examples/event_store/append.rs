//! What is appended, and who comes too late.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use crate::account::Event;

/// Events for the end of an aggregate, if its end is where the writer believes it to be.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) aggregate: i64,
    /// The version that the writer has seen; 0 of an aggregate that is not there.
    pub(crate) expected: i64,
    pub(crate) events: Vec<Event>,
}

/// Somebody else has appended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) aggregate: i64,
    pub(crate) expected: i64,
    pub(crate) actual: i64,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            aggregate,
            expected,
            actual,
        } = self;
        write!(
            f,
            "aggregate {aggregate} is at version {actual}, not {expected}"
        )
    }
}

impl Error for Conflict {}

/// To each writer: the version that it made, or why it made none.
pub(crate) type Outcome = Result<i64, Conflict>;

/// An event and its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) aggregate: i64,
    pub(crate) version: i64,
    pub(crate) event: Event,
}

/// What becomes of a batch.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// In the order of the appends.
    pub(crate) outcomes: Vec<Outcome>,
    /// What is to be written.
    pub(crate) events: Vec<Placed>,
}

/// Judges a batch by the versions in the database, which nobody else may change meanwhile. Of two
/// writers in the batch with the same version the first is in time. `versions` are the new ones
/// afterwards.
pub(crate) fn judge(appends: &[Append], versions: &mut BTreeMap<i64, i64>) -> Verdict {
    let mut verdict = Verdict::default();
    for append in appends {
        let aggregate = append.aggregate;
        let version = versions.entry(aggregate).or_default();
        if append.expected != *version {
            verdict.outcomes.push(Err(Conflict {
                aggregate,
                expected: append.expected,
                actual: *version,
            }));
            continue;
        }
        for &event in &append.events {
            *version += 1;
            verdict.events.push(Placed {
                aggregate,
                version: *version,
                event,
            });
        }
        verdict.outcomes.push(Ok(*version));
    }
    verdict
}
