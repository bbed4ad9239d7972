//! The command line.

use std::path::PathBuf;

use crate::error::AppError;

pub(crate) const HELP: &str = "\
usage: compose [OPTIONS]

Reads a folder of text, counts what is in each file, stores the counts in a database and exports
them as lines of JSON: one program on all six primitives.

  --folder PATH       the text; default the sources in cargo's registry
  --limit N           so many files at most; default 5000
  --in-work N         so many at once; default 64
  --per-second N      so many started per second; default 50000
  --per-package N     so many of one package per second, the others are refused; default 50000
  --database FILE     SQLite; default in a temporary folder that is removed at the end
  --postgres URL      PostgreSQL instead of SQLite
  --redis URL         Redis behind the memory tier of the cache
  --out FILE          the export; default in a temporary folder that is removed at the end
  --quiet             no progress bar

Ctrl-C stops the intake and finishes what was accepted; a second one gives it up. Ends with 0 if all
that was accepted is stored and exported, 1 if not, 2 for a wrong option, 130 if it was given up.
";

/// What the program is asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) limit: usize,
    pub(crate) in_work: usize,
    pub(crate) per_second: u64,
    pub(crate) per_package: u64,
    pub(crate) database: Option<PathBuf>,
    pub(crate) postgres: Option<String>,
    pub(crate) redis: Option<String>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) quiet: bool,
}

impl Options {
    /// All defaults, over that folder.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            limit: 5000,
            in_work: 64,
            per_second: 50_000,
            per_package: 50_000,
            database: None,
            postgres: None,
            redis: None,
            out: None,
            quiet: false,
        }
    }

    /// From the command line; `None` if only the help is asked for.
    pub(crate) fn parse(mut words: lexopt::Parser) -> Result<Option<Self>, AppError> {
        use lexopt::prelude::{Long, Short, ValueExt};

        let mut options = Self::new(PathBuf::new());
        while let Some(word) = words.next()? {
            match word {
                Long("folder") => options.folder = words.value()?.into(),
                Long("limit") => options.limit = words.value()?.parse()?,
                Long("in-work") => options.in_work = words.value()?.parse()?,
                Long("per-second") => options.per_second = words.value()?.parse()?,
                Long("per-package") => options.per_package = words.value()?.parse()?,
                Long("database") => options.database = Some(words.value()?.into()),
                Long("postgres") => options.postgres = Some(words.value()?.string()?),
                Long("redis") => options.redis = Some(words.value()?.string()?),
                Long("out") => options.out = Some(words.value()?.into()),
                Long("quiet") => options.quiet = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.folder.as_os_str().is_empty() {
            options.folder = registry().ok_or(AppError::NoFolder)?;
        }
        Ok(Some(options))
    }
}

/// Where cargo keeps the sources of what it has built.
fn registry() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    Some(cargo.or_else(home)?.join("registry").join("src"))
}
