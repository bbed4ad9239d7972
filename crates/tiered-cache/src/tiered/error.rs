//! Why an operation of a tiered cache failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::tiered::second::TierError;

/// Why a value could not be looked up. That there is none is no error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheError {
    /// The cache was closed.
    Closed,
    /// It is not in memory, and the second tier did not answer.
    Unavailable(TierError),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the cache was closed"),
            Self::Unavailable(_) => f.write_str("the second tier could not be read"),
        }
    }
}

impl Error for CacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Unavailable(source) => Some(source),
        }
    }
}

/// Why a value could not be loaded; all who waited for that load are told the same.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader's own error.
    Load(Arc<E>),
    /// The loader took too long, and was dropped.
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The loader panicked.
    Panicked,
    /// The load was lost with the runtime that it ran on.
    Abandoned,
    /// The cache was closed before the load began.
    Closed,
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Load(error) => Self::Load(Arc::clone(error)),
            Self::TimedOut { after } => Self::TimedOut { after: *after },
            Self::Panicked => Self::Panicked,
            Self::Abandoned => Self::Abandoned,
            Self::Closed => Self::Closed,
        }
    }
}

impl<E> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(_) => f.write_str("the loader failed"),
            Self::TimedOut { after } => write!(f, "the loader took longer than {after:?}"),
            Self::Panicked => f.write_str("the loader panicked"),
            Self::Abandoned => f.write_str("the load was lost with its runtime"),
            Self::Closed => f.write_str("the cache was closed"),
        }
    }
}

impl<E: Error + 'static> Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Load(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Why an invalidation is not complete.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InvalidateError {
    /// It is done in memory, but the second tier did not confirm it, and may still give the old
    /// value, to this process too. Repeat it, or live with it until the entry's end.
    NotPropagated {
        /// What the second tier said.
        source: TierError,
    },
}

impl fmt::Display for InvalidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the invalidation is done in memory, but not in the second tier")
    }
}

impl Error for InvalidateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let Self::NotPropagated { source } = self;
        Some(source)
    }
}

/// A value that was not stored because the cache was closed; with its key, given back.
#[non_exhaustive]
pub struct InsertError<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

impl<K, V> InsertError<K, V> {
    /// The key and the value.
    pub fn into_inner(self) -> (K, V) {
        (self.key, self.value)
    }
}

impl<K, V> fmt::Debug for InsertError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertError").finish_non_exhaustive()
    }
}

impl<K, V> fmt::Display for InsertError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cache was closed")
    }
}

impl<K, V> Error for InsertError<K, V> {}

/// What became of an inserted value.
#[derive(Clone, Debug)]
#[must_use = "the second tier may not have it"]
#[non_exhaustive]
pub struct Written {
    /// Whether it is in memory: not if it is too heavy, its life is zero, or it was invalidated
    /// meanwhile by a tag or a clear.
    pub memory: bool,
    /// Whether it is in the second tier.
    pub second_tier: SecondTierWrite,
}

/// What became of a value in the second tier.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SecondTierWrite {
    /// There is no second tier.
    Absent,
    /// It is there; with a life of zero, and if it was invalidated meanwhile, what was there is
    /// removed.
    Done,
    /// It may not be there, and the second tier may still give the value before it, once this one
    /// has left the memory. Nothing tries again.
    Failed(TierError),
}
