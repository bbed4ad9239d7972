//! Numbers for a thread pool as a plain value, to be kept in a service's configuration.

use crate::builder::DEFAULT_CAPACITY;

/// The numbers of a thread pool. With the feature `serde` it can be read from a configuration
/// file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; [`ThreadPoolBuilder::build`](crate::ThreadPoolBuilder::build) refuses
/// what cannot be.
///
/// ```
/// use overdrive_workstealing::{ThreadPool, ThreadPoolSettings};
///
/// let mut settings = ThreadPoolSettings::api();
/// settings.workers = Some(2);
/// let pool = ThreadPool::builder().settings(settings).build()?;
/// assert_eq!(pool.stats().capacity, 5000);
/// # Ok::<(), overdrive_workstealing::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ThreadPoolSettings {
    /// See [`ThreadPoolBuilder::workers`](crate::ThreadPoolBuilder::workers); `None` is its
    /// default.
    pub workers: Option<usize>,
    /// See [`ThreadPoolBuilder::max_workers`](crate::ThreadPoolBuilder::max_workers); `None` is
    /// its default.
    pub max_workers: Option<usize>,
    /// See [`ThreadPoolBuilder::capacity`](crate::ThreadPoolBuilder::capacity).
    pub capacity: usize,
}

impl ThreadPoolSettings {
    const fn of(workers: usize, max_workers: usize, capacity: usize) -> Self {
        Self {
            workers: Some(workers),
            max_workers: Some(max_workers),
            capacity,
        }
    }

    /// For handlers of web pages, which wait a good deal: 10 to 100 workers, 1,000 queued.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(10, 100, 1_000)
    }

    /// For an API, with short tasks in bursts: 5 to 50 workers, 5,000
    /// queued.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(5, 50, 5_000)
    }

    /// For background work in bulk: 50 workers, the default bound of the queue.
    #[must_use]
    pub const fn background() -> Self {
        Self::of(50, 50, DEFAULT_CAPACITY)
    }
}

impl Default for ThreadPoolSettings {
    /// The builder's own defaults: a worker per processor,
    /// [`DEFAULT_CAPACITY`](crate::DEFAULT_CAPACITY).
    fn default() -> Self {
        Self {
            workers: None,
            max_workers: None,
            capacity: DEFAULT_CAPACITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ThreadPool;

    #[test]
    fn every_preset_builds() {
        for settings in [
            ThreadPoolSettings::web(),
            ThreadPoolSettings::api(),
            ThreadPoolSettings::background(),
            ThreadPoolSettings::default(),
        ] {
            let built = ThreadPool::builder().settings(settings.clone()).build();
            let stats = built.unwrap().stats();
            assert_eq!(stats.capacity, settings.capacity);
            assert_eq!(stats.workers, settings.workers.unwrap_or(stats.workers));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: ThreadPoolSettings = serde_json::from_str(r#"{"workers": 7}"#).unwrap();
        let expected = ThreadPoolSettings {
            workers: Some(7),
            ..ThreadPoolSettings::default()
        };
        assert_eq!(settings, expected);
        let text = serde_json::to_string(&ThreadPoolSettings::web()).unwrap();
        assert_eq!(
            serde_json::from_str::<ThreadPoolSettings>(&text).unwrap(),
            ThreadPoolSettings::web()
        );
        assert!(serde_json::from_str::<ThreadPoolSettings>(r#"{"wrokers": 7}"#).is_err());
    }
}
