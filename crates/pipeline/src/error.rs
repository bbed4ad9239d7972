//! Why a pipeline ended early.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use overdrive_core::ConfigError;

use crate::item::BoxError;
use crate::monitor::PipelineStats;

/// Why a pipeline ended before its source did.
#[derive(Debug)]
#[non_exhaustive]
pub enum PipelineError {
    /// Its [`Monitor`](crate::Monitor) ended it.
    Cancelled {
        /// The figures at the end.
        stats: PipelineStats,
    },
    /// It cannot run as it was put together. Nothing was taken from the source.
    Config(ConfigError),
    /// A stage panicked. The panic hook has reported it.
    Panicked {
        /// The name of the stage.
        stage: Cow<'static, str>,
        /// The number of the source's item, counted from zero.
        sequence: u64,
        /// The message of the panic.
        message: String,
        /// The figures at the end.
        stats: PipelineStats,
    },
    /// The sink refused a result.
    Sink {
        /// The number of the source's item, counted from zero.
        sequence: u64,
        /// What the sink returned.
        source: BoxError,
        /// The figures at the end.
        stats: PipelineStats,
    },
    /// A stage refused an item, and [`ErrorPolicy::FailFast`](crate::ErrorPolicy::FailFast) holds.
    Stage {
        /// The name of the stage.
        stage: Cow<'static, str>,
        /// The number of the source's item, counted from zero.
        sequence: u64,
        /// What the stage returned.
        source: BoxError,
        /// The figures at the end.
        stats: PipelineStats,
    },
}

impl PipelineError {
    /// The figures at the end, if it ran at all.
    #[must_use]
    pub fn stats(&self) -> Option<PipelineStats> {
        match self {
            Self::Config(_) => None,
            Self::Cancelled { stats }
            | Self::Panicked { stats, .. }
            | Self::Sink { stats, .. }
            | Self::Stage { stats, .. } => Some(*stats),
        }
    }
}

impl PipelineError {
    pub(crate) fn with_stats(mut self, last: PipelineStats) -> Self {
        match &mut self {
            Self::Config(_) => {}
            Self::Cancelled { stats }
            | Self::Panicked { stats, .. }
            | Self::Sink { stats, .. }
            | Self::Stage { stats, .. } => *stats = last,
        }
        self
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled { stats } => {
                write!(f, "cancelled after {} results", stats.delivered)
            }
            Self::Config(_) => f.write_str("the pipeline cannot run as it was put together"),
            Self::Panicked {
                stage,
                sequence,
                message,
                ..
            } => write!(f, "stage `{stage}` panicked at item {sequence}: {message}"),
            Self::Sink { sequence, .. } => write!(f, "the sink refused item {sequence}"),
            Self::Stage {
                stage, sequence, ..
            } => write!(f, "stage `{stage}` refused item {sequence}"),
        }
    }
}

impl Error for PipelineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled { .. } | Self::Panicked { .. } => None,
            Self::Config(error) => Some(error),
            Self::Sink { source, .. } | Self::Stage { source, .. } => Some(&**source),
        }
    }
}

impl From<ConfigError> for PipelineError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// The pipeline takes no more items.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T> {
    /// It was closed, or ended; the item.
    Closed(T),
}

impl<T> SendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        let Self::Closed(item) = self;
        item
    }
}

/// The pipeline does not take an item now.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// It was closed, or ended; the item.
    Closed(T),
    /// There is no room; the item.
    Full(T),
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(item) | Self::Full(item) => item,
        }
    }
}

const CLOSED: &str = "the pipeline takes no more items";
const FULL: &str = "the pipeline has no room for another item";

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CLOSED)
    }
}

impl<T> Error for SendError<T> {}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed(..)",
            Self::Full(_) => "Full(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => CLOSED,
            Self::Full(_) => FULL,
        })
    }
}

impl<T> Error for TrySendError<T> {}
