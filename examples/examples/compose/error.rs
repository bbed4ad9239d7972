//! What can go wrong, each said once and clearly.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use overdrive::ratelimit::ConfigError;

/// Why the program could not do its work.
#[derive(Debug)]
pub(crate) enum AppError {
    /// An option that is not known, or has no usable value.
    Usage(lexopt::Error),
    /// There is no cargo registry to read.
    NoFolder,
    /// The folder cannot be read.
    Folder { path: PathBuf, source: io::Error },
    /// An option has a value that makes no sense.
    Option(&'static str, ConfigError),
    /// A setting makes no sense.
    Settings(ConfigError),
    /// The database does not answer, or refuses us.
    Store(StoreError),
    /// Redis does not answer, or refuses us.
    Redis(Box<dyn Error + Send + Sync>),
    /// The export cannot be written.
    Export(Box<dyn Error + Send + Sync>),
    /// Ctrl-C came twice: nobody waits for what was accepted.
    Abandoned,
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::NoFolder => f.write_str("there is no cargo registry here; give a --folder"),
            Self::Folder { path, .. } => write!(f, "cannot read the folder {}", path.display()),
            Self::Option(option, _) => write!(f, "{option} makes no sense"),
            Self::Settings(_) => f.write_str("a setting makes no sense"),
            Self::Store(_) => f.write_str("the database cannot be used"),
            Self::Redis(_) => f.write_str("redis cannot be used"),
            Self::Export(_) => f.write_str("the export cannot be written"),
            Self::Abandoned => {
                f.write_str("interrupted again: what was accepted and not yet stored is lost")
            }
        }
    }
}

impl Error for AppError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Usage(_) | Self::NoFolder | Self::Abandoned => None,
            Self::Folder { source, .. } => Some(source),
            Self::Option(_, error) | Self::Settings(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Redis(error) | Self::Export(error) => Some(&**error),
        }
    }
}

impl From<lexopt::Error> for AppError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<ConfigError> for AppError {
    fn from(error: ConfigError) -> Self {
        Self::Settings(error)
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why the database did not do what it was asked. Shared by all whose rows were in the batch.
#[derive(Clone, Debug)]
pub(crate) enum StoreError {
    /// SQLite's word.
    Sqlite(Arc<rusqlite::Error>),
    /// PostgreSQL's word.
    Postgres(Arc<tokio_postgres::Error>),
    /// It did not answer in time.
    TimedOut,
    /// It answered with something else than was asked for.
    Unexpected(&'static str),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(_) => f.write_str("sqlite failed"),
            Self::Postgres(_) => f.write_str("postgresql failed"),
            Self::TimedOut => f.write_str("the database did not answer in time"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Sqlite(error) => Some(error),
            Self::Postgres(error) => Some(error),
            Self::TimedOut | Self::Unexpected(_) => None,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
