//! The set-up of a batcher.

mod build;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::{Clock, ConfigError};

use crate::engine::{Isolate, Rules, Weight};
use crate::settings::{BatchSettings, Gather, Overload};

/// The largest accepted number of items in a batch.
pub const MAX_MAX_SIZE: usize = 1 << 20;

/// The longest accepted wait of a batch's first item.
pub const MAX_MAX_WAIT: Duration = Duration::from_secs(3600);

/// The largest accepted number of workers.
pub const MAX_WORKERS: usize = 1 << 10;

/// The largest accepted number of waiting items.
pub const MAX_CAPACITY: usize = 1 << 26;

/// As many full batches wait in a batcher whose capacity is not set.
const BATCHES_OF_CAPACITY: usize = 64;

/// Sets a [`Batcher`](crate::Batcher) up. Nothing is required but the handler, which `build_sync`, `build_inline` or
/// `build` takes.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::{Batcher, ConfigError};
///
/// let builder = Batcher::builder().max_size(100).capacity(50);
/// let refused = builder.build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items));
/// assert_eq!(refused.unwrap_err().field(), "capacity");
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct BatcherBuilder<T> {
    name: Cow<'static, str>,
    settings: BatchSettings,
    clock: Option<Arc<dyn Clock>>,
    weight: Option<Weight<T>>,
    isolate: Option<Isolate<T>>,
}

impl<T: Send + 'static> BatcherBuilder<T> {
    pub(crate) fn new() -> Self {
        Self {
            name: Cow::Borrowed("batch"),
            settings: BatchSettings::default(),
            clock: None,
            weight: None,
            isolate: None,
        }
    }

    /// A label for figures. Default `"batch"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from a plain value.
    pub fn settings(mut self, settings: BatchSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The most items in one batch. Default 100, at most [`MAX_MAX_SIZE`].
    pub fn max_size(mut self, n: usize) -> Self {
        self.settings.max_size = n;
        self
    }

    /// With [`Gather::Linger`], `Announced` and `Adaptive`: how old the first item of a batch may get,
    /// counted from when it was submitted, until a free worker closes the batch, however few items it
    /// has. Later items do not put it off. Default 100 ms, at most [`MAX_MAX_WAIT`].
    ///
    /// It is an upper bound and not a delay: with `Tick`, the default, and `Immediate` a free worker
    /// takes what there is, so nothing ever waits for it, and a lone item goes at once.
    /// No worker being free, items wait until one is, whatever their age. Timers of tokio are
    /// exact to a millisecond and round up.
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.settings.max_wait = time;
        self
    }

    /// When a free worker closes the open batch. Default [`Gather::Tick`].
    pub fn gather(mut self, gather: Gather) -> Self {
        self.settings.gather = gather;
        self
    }

    /// How many batches run at the same time. Default 4, at most [`MAX_WORKERS`].
    ///
    /// More workers make smaller batches, since a batch grows while all of them are busy: good
    /// for handlers that wait, seldom for handlers that compute.
    pub fn workers(mut self, n: usize) -> Self {
        self.settings.workers = n;
        self
    }

    /// How many items may be accepted and not yet in a running batch. Default 64 times
    /// `max_size`, at least `max_size`, at most [`MAX_CAPACITY`].
    pub fn capacity(mut self, n: usize) -> Self {
        self.settings.capacity = Some(n);
        self
    }

    /// How heavy the items of one batch may be together, and how heavy an item is: bytes of a
    /// statement, say, or the parts of a request. From 1. Default: only their number counts.
    ///
    /// `of` is called once for each item, when it is submitted, on the submitter's thread. An item
    /// that alone is heavier is refused with [`TooHeavy`](crate::SubmitError::TooHeavy).
    pub fn max_weight(
        mut self,
        max: usize,
        of: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> Self {
        let of = Arc::new(of);
        self.weight = Some(Weight { max, of });
        self
    }

    /// Has a batch that fails run again in halves, down to single items, so that one bad item fails
    /// alone: only for handlers that do all of a batch or nothing, such as one statement or one
    /// transaction. `max_calls`, from 2, bounds the calls for one batch; when they are used up, what
    /// is left fails as the part it last ran in. Default: a batch fails as a whole.
    ///
    /// Of `n` items, `k` bad ones take about `2 k log2(n / k) + 2 k` calls (group testing by binary
    /// splitting). It is what fails that is told apart, by error, panic or wrong number of results;
    /// what passes by itself, such as a lost connection, had better not fail a handler that isolates.
    /// The handler is given clones, also of batches that succeed.
    pub fn isolate(mut self, max_calls: u32) -> Self
    where
        T: Clone,
    {
        let clone = T::clone;
        self.isolate = Some(Isolate { max_calls, clone });
        self
    }

    /// What [`submit`](crate::Batcher::submit) does when there is no room. Default [`Overload::Wait`].
    pub fn overload(mut self, overload: Overload) -> Self {
        self.settings.overload = overload;
        self
    }

    /// The clock by which items age and [deadlines](crate::Submit::deadline) pass. Default: the
    /// precise one, or tokio's with `build`, which a paused runtime stops.
    ///
    /// A worker that lingers sleeps for what is left by this clock, in real time or tokio's. A
    /// clock moved by hand wakes nobody: what it shows counts when a worker or submitter next looks.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    pub(crate) fn rules(
        self,
        clock: impl FnOnce() -> Arc<dyn Clock>,
    ) -> Result<Rules<T>, ConfigError> {
        let BatchSettings {
            max_size,
            max_wait,
            gather,
            workers,
            capacity,
            overload,
        } = self.settings;
        ConfigError::within("max_size", max_size, MAX_MAX_SIZE)?;
        ConfigError::within("workers", workers, MAX_WORKERS)?;
        let capacity = capacity.unwrap_or(max_size * BATCHES_OF_CAPACITY);
        ConfigError::within("capacity", capacity, MAX_CAPACITY)?;
        if capacity < max_size {
            return Err(ConfigError::Contradiction {
                field: "capacity",
                other: "max_size",
                reason: "must not be below",
            });
        }
        if max_wait.is_zero() {
            return Err(ConfigError::Zero { field: "max_wait" });
        }
        if max_wait > MAX_MAX_WAIT {
            return Err(ConfigError::TooLarge {
                field: "max_wait",
                value: u64::try_from(max_wait.as_nanos()).unwrap_or(u64::MAX),
                max: MAX_MAX_WAIT.as_nanos() as u64,
            });
        }
        match gather {
            Gather::Linger { min_size: 0 } => return Err(ConfigError::Zero { field: "min_size" }),
            Gather::Linger { min_size } if min_size > max_size => {
                return Err(ConfigError::Contradiction {
                    field: "min_size",
                    other: "max_size",
                    reason: "must not exceed",
                });
            }
            _ => {}
        }
        if matches!(self.weight, Some(Weight { max: 0, .. })) {
            return Err(ConfigError::Zero {
                field: "max_weight",
            });
        }
        if matches!(self.isolate, Some(Isolate { max_calls: ..2, .. })) {
            return Err(ConfigError::Invalid {
                field: "isolate",
                reason: "needs two calls or more to tell items apart",
            });
        }
        Ok(Rules {
            name: self.name,
            max_size,
            max_wait,
            gather,
            workers,
            capacity,
            overload,
            clock: self.clock.unwrap_or_else(clock),
            weight: self.weight,
            isolate: self.isolate,
            leases: false,
            inline: false,
        })
    }
}

impl<T> fmt::Debug for BatcherBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatcherBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
