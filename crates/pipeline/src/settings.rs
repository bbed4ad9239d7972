//! Numbers for a pipeline as a plain value, to be kept in a service's configuration.

/// The numbers of a pipeline. With the feature `serde` it can be read from a configuration file;
/// missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; the run refuses what cannot be.
///
/// ```
/// use overdrive_pipeline::{Pipeline, PipelineSettings};
///
/// let mut settings = PipelineSettings::web();
/// settings.in_flight = Some(16);
/// let run = Pipeline::from_iter(0..100).settings(settings).map(|n| n + 1).parallel(2);
/// assert!(run.run(drop)?.peak_in_flight <= 16);
/// # Ok::<(), overdrive_pipeline::PipelineError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PipelineSettings {
    /// See [`Pipeline::in_flight`](crate::Pipeline::in_flight); `None` is its default.
    pub in_flight: Option<usize>,
}

impl PipelineSettings {
    const fn of(items: usize) -> Self {
        Self {
            in_flight: Some(items),
        }
    }

    /// For what a web page waits for: 1,000 items on their way.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(1_000)
    }

    /// For an API: 5,000 items on their way.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(5_000)
    }

    /// For background work in bulk: as many as the concurrent parts have room for.
    #[must_use]
    pub const fn background() -> Self {
        Self { in_flight: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pipeline;

    #[test]
    fn every_preset_runs() {
        for settings in [
            PipelineSettings::web(),
            PipelineSettings::api(),
            PipelineSettings::background(),
        ] {
            let run = Pipeline::from_iter(0..10).settings(settings);
            assert_eq!(run.run(drop).unwrap().delivered, 10);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: PipelineSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(settings, PipelineSettings::default());
        let settings: PipelineSettings = serde_json::from_str(r#"{"in_flight": 7}"#).unwrap();
        assert_eq!(settings, PipelineSettings::of(7));
        assert!(serde_json::from_str::<PipelineSettings>(r#"{"inflight": 7}"#).is_err());
    }
}
