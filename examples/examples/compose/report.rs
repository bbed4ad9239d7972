//! What is said at the end.

use std::collections::BTreeMap;
use std::fmt;

use overdrive::batch::BatchStats;
use overdrive::cache::TieredCacheStats;
use overdrive::pipeline::PipelineStats;
use overdrive::pool::PoolStats;
use overdrive::ratelimit::{ConcurrencyStats, KeyedStats, LimiterStats};
use overdrive::workstealing::ThreadPoolStats;

use crate::error::{AppError, chain};

/// What became of everything.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) stored: u64,
    pub(crate) failed: u64,
    /// Why, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) exported: u64,
    /// The end of the export, if it did not get there.
    pub(crate) export_failed: Option<AppError>,
    pub(crate) interrupted: bool,
    /// The database went away for good, so that no more was taken in.
    pub(crate) lost: bool,
    pub(crate) stats: Stats,
}

#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) pace: LimiterStats,
    pub(crate) packages: KeyedStats,
    pub(crate) in_work: ConcurrencyStats,
    pub(crate) cache: TieredCacheStats,
    pub(crate) buffers: PoolStats,
    pub(crate) writes: BatchStats,
    pub(crate) threads: ThreadPoolStats,
    pub(crate) export: Option<PipelineStats>,
}

impl Report {
    /// Whether each file that was accepted is stored, or its failure known.
    pub(crate) fn adds_up(&self) -> bool {
        self.accepted == self.stored + self.failed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let early = match (self.interrupted, self.lost) {
            (true, _) => ", interrupted",
            (_, true) => ", stopped because the database is away",
            _ => "",
        };
        writeln!(
            f,
            "{} files accepted{early}: {} stored, {} failed; {} refused at the door; {} exported",
            self.accepted, self.stored, self.failed, self.refused, self.exported
        )?;
        for (failure, times) in &self.failures {
            writeln!(f, "  {times} x {failure}")?;
        }
        if let Some(error) = &self.export_failed {
            writeln!(f, "  the export failed: {}", chain(error))?;
        }
        let Stats {
            pace,
            packages,
            in_work,
            cache,
            buffers,
            writes,
            threads,
            export,
        } = &self.stats;
        writeln!(f, "\nratelimit     {}", figures(pace))?;
        writeln!(f, "              {}", figures(packages))?;
        writeln!(f, "              {}", figures(in_work))?;
        writeln!(f, "cache         {}", figures(cache))?;
        writeln!(f, "pool          {}", figures(buffers))?;
        writeln!(f, "batch         {}", figures(writes))?;
        writeln!(f, "workstealing  {}", figures(threads))?;
        match export {
            Some(export) => writeln!(f, "pipeline      {}", figures(export)),
            None => writeln!(f, "pipeline      did not run"),
        }
    }
}

/// The figures that are not zero.
fn figures(stats: &impl fmt::Debug) -> String {
    let text = format!("{stats:?}");
    let told: Vec<&str> = text
        .split(", ")
        .filter(|part| !part.ends_with(": 0"))
        .collect();
    told.join(", ")
}
