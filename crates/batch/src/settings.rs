//! The numbers of a batcher as a plain value, to be kept in a service's configuration.

use std::time::Duration;

/// When a free worker closes the open batch and runs it. While no worker is free, items gather in
/// any case, and a batch is closed as soon as it has `max_size` items and a worker is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Gather {
    /// As [`Tick`](Self::Tick), and then, if items come so fast that the batch is expected to
    /// double in half of the time that the handler takes, after that time: at most
    /// [`max_wait`](crate::BatcherBuilder::max_wait) from its first item.
    ///
    /// Goes by moving averages, for which it reads the clock a few times a batch. Costs an item at
    /// most half of its handler's time, and only where that halves the number of calls. Timers of
    /// tokio are exact to a millisecond, so with `build` it suits handlers that take several.
    Adaptive,
    /// Once no [announced](crate::Batcher::announce) item is outstanding, or the batch's first item
    /// is [`max_wait`](crate::BatcherBuilder::max_wait) old. Where nothing is announced, at once.
    Announced,
    /// At once.
    ///
    /// tokio runs a task that was just woken before those that wait already. So the first of many
    /// submitters that are about to submit gets a batch for itself.
    Immediate,
    /// After it has let everybody else run once, so that all who are about to submit are in the
    /// batch. No timer: a lone item goes at once.
    ///
    /// A task wakes itself once and so goes behind the tasks that are ready on its thread; a thread
    /// yields to the operating system's scheduler once, which promises less: there it is close to
    /// `Immediate`.
    #[default]
    Tick,
    /// Once it has that many items, or its first item is
    /// [`max_wait`](crate::BatcherBuilder::max_wait) old, though a worker is free.
    Linger {
        /// From 1 to `max_size`.
        min_size: usize,
    },
}

/// What [`submit`](crate::Batcher::submit) does when as many items wait as there is capacity for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Overload {
    /// Waits for room, first come, first served; though what is more urgent is run before.
    #[default]
    Wait,
    /// Refuses, with the item.
    Reject,
    /// Gives up on the item that has waited longest among the least urgent, whose submitter gets
    /// [`Shed`](crate::SubmitError::Shed) with it: for callers whom a late result does not help.
    /// Refuses where all that wait are more urgent.
    ShedOldest,
}

impl Gather {
    /// Whether it matters when items came.
    pub(crate) fn wants_ages(self) -> bool {
        matches!(self, Self::Adaptive | Self::Announced | Self::Linger { .. })
    }
}

/// The numbers of a batcher, apart from its handler. With the feature `serde` it can be read from
/// a configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; `build` refuses what cannot be.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::{BatchSettings, Batcher};
///
/// let mut settings = BatchSettings::api();
/// settings.workers = 1;
/// let lengths = Batcher::builder()
///     .settings(settings)
///     .build_sync(|words: Vec<&str>| Ok::<_, Infallible>(words.iter().map(|w| w.len()).collect()))?;
/// assert_eq!(lengths.submit_blocking("four")?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct BatchSettings {
    /// See [`BatcherBuilder::max_size`](crate::BatcherBuilder::max_size).
    pub max_size: usize,
    /// See [`BatcherBuilder::max_wait`](crate::BatcherBuilder::max_wait).
    pub max_wait: Duration,
    /// See [`BatcherBuilder::gather`](crate::BatcherBuilder::gather).
    pub gather: Gather,
    /// See [`BatcherBuilder::workers`](crate::BatcherBuilder::workers).
    pub workers: usize,
    /// See [`BatcherBuilder::capacity`](crate::BatcherBuilder::capacity); `None` is its default.
    pub capacity: Option<usize>,
    /// See [`BatcherBuilder::overload`](crate::BatcherBuilder::overload).
    pub overload: Overload,
}

impl BatchSettings {
    const fn standard() -> Self {
        Self {
            max_size: 100,
            max_wait: Duration::from_millis(100),
            gather: Gather::Tick,
            workers: 4,
            capacity: None,
            overload: Overload::Wait,
        }
    }

    /// For what a web page waits for: the defaults, but a visitor beyond 1,000 waiting items is
    /// refused.
    #[must_use]
    pub const fn web() -> Self {
        Self {
            capacity: Some(1_000),
            overload: Overload::Reject,
            ..Self::standard()
        }
    }

    /// For calls of an API: the defaults. Batches of up to 100, four at a time; a caller beyond
    /// 6,400 waiting items waits.
    #[must_use]
    pub const fn api() -> Self {
        Self::standard()
    }

    /// For background work in bulk, where nobody waits for one item: batches of up to 1,000, two
    /// at a time, begun at 100 items or after a second; a caller beyond 100,000 waiting items waits.
    #[must_use]
    pub const fn background() -> Self {
        Self {
            max_size: 1_000,
            max_wait: Duration::from_secs(1),
            gather: Gather::Linger { min_size: 100 },
            workers: 2,
            capacity: Some(100_000),
            overload: Overload::Wait,
        }
    }
}

impl Default for BatchSettings {
    /// The builder's own defaults.
    fn default() -> Self {
        Self::standard()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::Batcher;

    #[test]
    fn every_preset_builds() {
        for settings in [
            BatchSettings::web(),
            BatchSettings::api(),
            BatchSettings::background(),
            BatchSettings::default(),
        ] {
            let builder = Batcher::builder().settings(settings);
            let built = builder.build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items));
            assert!(built.is_ok());
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let text = r#"{"workers": 7, "gather": {"linger": {"min_size": 3}}, "overload": "reject"}"#;
        let settings: BatchSettings = serde_json::from_str(text).unwrap();
        let expected = BatchSettings {
            workers: 7,
            gather: Gather::Linger { min_size: 3 },
            overload: Overload::Reject,
            ..BatchSettings::default()
        };
        assert_eq!(settings, expected);
        let text = serde_json::to_string(&BatchSettings::background()).unwrap();
        assert_eq!(
            serde_json::from_str::<BatchSettings>(&text).unwrap(),
            BatchSettings::background()
        );
        assert!(serde_json::from_str::<BatchSettings>(r#"{"worker": 7}"#).is_err());
    }
}
