//! What a second tier is.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::Deadline;

/// What a [`SecondTier`] found at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What was set.
    pub bytes: Vec<u8>,
    /// How long it will stay; `None` is for ever.
    pub remaining: Option<Duration>,
}

/// What a [`SecondTier`] found at a key and at tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What is at the key.
    pub stored: Option<Stored>,
    /// The version of each tag that was asked for, in that order; `None` of a tag without one.
    pub versions: Vec<Option<u64>>,
}

/// A store behind the memory tier, usually shared by several processes: bytes by key that expire,
/// and a version for each tag.
///
/// A version changes with each [`bump`](Self::bump) and never takes a value twice, not even after
/// the store has lost it. A tag that has none gets one by [`versions`](Self::versions).
///
/// Each call is over by its deadline; the cache drops a call that is not, a tenth later. What it
/// drops may or may not take effect.
///
/// Keys and tags come from the cache as they are; a store that others use too separates them from
/// theirs, and keys from tags.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
/// use overdrive_tiered_cache::{Deadline, Found, SecondTier, Stored, TierError};
///
/// /// Forgets nothing, ever.
/// #[derive(Default)]
/// struct Map(Mutex<(HashMap<Vec<u8>, Vec<u8>>, HashMap<String, u64>)>);
///
/// impl SecondTier for Map {
///     async fn get(&self, key: &[u8], tags: &[&str], _: Deadline) -> Result<Found, TierError> {
///         let map = self.0.lock().unwrap();
///         let stored = map.0.get(key).map(|bytes| Stored { bytes: bytes.clone(), remaining: None });
///         let versions = tags.iter().map(|tag| map.1.get(*tag).copied()).collect();
///         Ok(Found { stored, versions })
///     }
///     async fn set(&self, key: &[u8], bytes: &[u8], _: Option<Duration>, _: Deadline) -> Result<(), TierError> {
///         self.0.lock().unwrap().0.insert(key.to_vec(), bytes.to_vec());
///         Ok(())
///     }
///     async fn remove(&self, key: &[u8], _: Deadline) -> Result<(), TierError> {
///         self.0.lock().unwrap().0.remove(key);
///         Ok(())
///     }
///     async fn versions(&self, tags: &[&str], _: Deadline) -> Result<Vec<u64>, TierError> {
///         let mut map = self.0.lock().unwrap();
///         Ok(tags.iter().map(|tag| *map.1.entry((*tag).to_owned()).or_insert(1)).collect())
///     }
///     async fn bump(&self, tag: &str, _: Deadline) -> Result<(), TierError> {
///         *self.0.lock().unwrap().1.entry(tag.to_owned()).or_insert(1) += 1;
///         Ok(())
///     }
/// }
/// ```
pub trait SecondTier: Send + Sync + 'static {
    /// What is at the key, and the versions of the tags as they are then or later; in one round
    /// trip if that can be.
    fn get(
        &self,
        key: &[u8],
        tags: &[&str],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Found, TierError>> + Send;

    /// Puts the bytes there, for that long; `None` is for ever.
    fn set(
        &self,
        key: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), TierError>> + Send;

    /// Removes what is at the key, if anything.
    fn remove(
        &self,
        key: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), TierError>> + Send;

    /// The versions of the tags; those without one get one.
    fn versions(
        &self,
        tags: &[&str],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u64>, TierError>> + Send;

    /// Changes the version of the tag.
    fn bump(
        &self,
        tag: &str,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), TierError>> + Send;
}

/// Why a second tier could not do its part.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TierError {
    /// It did not answer in time. What was asked of it may or may not have taken effect, or may
    /// yet.
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// It, or the way to it, failed.
    Failed(Arc<dyn Error + Send + Sync>),
    /// The codec could not encode the value.
    Encode(Arc<dyn Error + Send + Sync>),
    /// The encoded value is larger than the second tier may be given.
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl TierError {
    /// A failure, with its reason.
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(source.into().into())
    }
}

impl fmt::Display for TierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => {
                write!(f, "the second tier did not answer within {after:?}")
            }
            Self::Failed(_) => f.write_str("the second tier failed"),
            Self::Encode(_) => f.write_str("the value could not be encoded"),
            Self::TooLarge { len, max } => write!(
                f,
                "the value has {len} bytes, more than the second tier may be given ({max})"
            ),
        }
    }
}

impl Error for TierError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(source) | Self::Encode(source) => Some(&**source),
            Self::TimedOut { .. } | Self::TooLarge { .. } => None,
        }
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, TierError>> + Send + 'a>>;

/// A [`SecondTier`] of any type.
pub(crate) trait AnyTier: Send + Sync {
    fn get<'a>(&'a self, key: &'a [u8], tags: &'a [&str], by: Deadline) -> Answer<'a, Found>;
    fn set<'a>(
        &'a self,
        key: &'a [u8],
        bytes: &'a [u8],
        ttl: Option<Duration>,
        by: Deadline,
    ) -> Answer<'a, ()>;
    fn remove<'a>(&'a self, key: &'a [u8], by: Deadline) -> Answer<'a, ()>;
    fn versions<'a>(&'a self, tags: &'a [&str], by: Deadline) -> Answer<'a, Vec<u64>>;
    fn bump<'a>(&'a self, tag: &'a str, by: Deadline) -> Answer<'a, ()>;
}

impl<T: SecondTier> AnyTier for T {
    fn get<'a>(&'a self, key: &'a [u8], tags: &'a [&str], by: Deadline) -> Answer<'a, Found> {
        Box::pin(SecondTier::get(self, key, tags, by))
    }

    fn set<'a>(
        &'a self,
        key: &'a [u8],
        bytes: &'a [u8],
        ttl: Option<Duration>,
        by: Deadline,
    ) -> Answer<'a, ()> {
        Box::pin(SecondTier::set(self, key, bytes, ttl, by))
    }

    fn remove<'a>(&'a self, key: &'a [u8], by: Deadline) -> Answer<'a, ()> {
        Box::pin(SecondTier::remove(self, key, by))
    }

    fn versions<'a>(&'a self, tags: &'a [&str], by: Deadline) -> Answer<'a, Vec<u64>> {
        Box::pin(SecondTier::versions(self, tags, by))
    }

    fn bump<'a>(&'a self, tag: &'a str, by: Deadline) -> Answer<'a, ()> {
        Box::pin(SecondTier::bump(self, tag, by))
    }
}
