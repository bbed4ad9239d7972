//! How long an entry lives, and what it belongs to.

use std::sync::Arc;
use std::time::Duration;

/// The name of a group of entries.
pub(crate) type Tag = Arc<str>;

/// Those of an entry; usually it has none.
pub(crate) type Tags = Option<Box<[Tag]>>;

/// How long an entry lives.
///
/// ```
/// use std::time::Duration;
/// use overdrive_tiered_cache::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_secs(5)), Ttl::After(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// It expires that long after it was stored. Zero means: do not store it, and remove what is
    /// there under its key.
    After(Duration),
    /// It stays until it is removed or evicted.
    Forever,
}

impl Ttl {
    pub(crate) fn is_zero(self) -> bool {
        self == Self::After(Duration::ZERO)
    }

    /// `None` is forever.
    #[cfg(feature = "tokio")]
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::Forever => None,
        }
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

/// What can be said of a single entry.
///
/// ```
/// use std::time::Duration;
/// use overdrive_tiered_cache::{EntryOptions, Ttl};
///
/// let options = EntryOptions::new().ttl(Duration::from_secs(60)).tag("users").tag("team:7");
/// assert_eq!(options.ttl, Some(Ttl::After(Duration::from_secs(60))));
/// assert_eq!(options.tags.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryOptions {
    /// How long it lives; `None` is what the cache was set up with.
    pub ttl: Option<Ttl>,
    /// The groups it belongs to: `invalidate_tag` of any of them removes it.
    pub tags: Vec<Arc<str>>,
}

impl EntryOptions {
    /// As the cache was set up, without tags.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long it lives.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }
}
