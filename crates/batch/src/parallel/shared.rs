//! The parallel map as a shared value, with figures.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use overdrive_core::ConfigError;

use crate::parallel::InOrder;
use crate::parallel::collect::{ItemError, isolated};
use crate::parallel::drive::drive;
use crate::parallel::tally::{Counts, Observer, ParallelBatchStats, Progress, Tally, Verdict};

/// The largest accepted number of items in work at the same time.
pub const MAX_CONCURRENCY: usize = 1 << 20;

/// [`map_ordered`](crate::map_ordered) with a name, a set number and figures. A shared value: any number of tasks may
/// use it at the same time, each with as many items in work as it allows.
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use overdrive_batch::ParallelBatch;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let pages = ParallelBatch::builder().name("pages").concurrency(4).build()?;
/// let sizes = pages.process(&["/", "/about"], |path| async move { path.len() }).await;
/// assert_eq!(sizes, [1, 6]);
///
/// let checked = pages.try_process(&[1, 0, 2], |&n| async move { 6_u32.checked_div(n).ok_or("zero") });
/// assert_eq!(checked.await, Err((1, "zero")));
/// # Ok::<(), overdrive_batch::ConfigError>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ParallelBatch {
    name: Cow<'static, str>,
    concurrency: NonZeroUsize,
    on_progress: Option<Arc<Observer>>,
    counts: Counts,
}

/// Sets a [`ParallelBatch`] up.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ParallelBatchBuilder {
    name: Cow<'static, str>,
    concurrency: usize,
    on_progress: Option<Arc<Observer>>,
}

impl ParallelBatch {
    /// Starts the set-up.
    pub fn builder() -> ParallelBatchBuilder {
        ParallelBatchBuilder {
            name: Cow::Borrowed("parallel"),
            concurrency: 10,
            on_progress: None,
        }
    }

    /// [`map_ordered`](crate::map_ordered) with the number given to the builder. A slice's items come as references.
    ///
    /// # Panics
    /// As `map_ordered`; a panic of the [progress callback](ParallelBatchBuilder::on_progress) too.
    ///
    /// # Cancel safety
    /// As `map_ordered`.
    pub async fn process<I, F, Fut>(&self, items: I, f: F) -> Vec<Fut::Output>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future,
    {
        let sort = |result| (Verdict::Completed, Ok::<_, Infallible>(result));
        match self.run(items, f, sort).await {
            Ok(results) => results,
            Err((_, never)) => match never {},
        }
    }

    /// [`try_map_ordered`](crate::try_map_ordered) with the number given to the builder.
    ///
    /// # Errors
    /// The first error to happen, with its item's position.
    ///
    /// # Panics
    /// As [`process`](Self::process).
    ///
    /// # Cancel safety
    /// As `map_ordered`.
    pub async fn try_process<I, F, Fut, R, E>(&self, items: I, f: F) -> Result<Vec<R>, (usize, E)>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        self.run(items, f, |result| (Verdict::of(&result), result))
            .await
    }

    /// As [`process`](Self::process), and to each item its own outcome: one that fails or panics
    /// keeps no other from its result. Costs a little more for each poll.
    ///
    /// A panic is reported by the panic hook, and is the item's [`ItemError::Panicked`], be it of
    /// `f` or of the future; one of the destructor of a future that has ended is reported only.
    ///
    /// # Panics
    /// Those of the iterator and of the progress callback pass to the caller.
    ///
    /// # Cancel safety
    /// As `map_ordered`.
    ///
    #[cfg_attr(feature = "tokio", doc = "```")]
    #[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
    /// use overdrive_batch::{ItemError, ParallelBatch};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let batch = ParallelBatch::builder().build()?;
    /// let divide = |&n: &u32| async move { 6_u32.checked_div(n).ok_or("zero") };
    /// let results = batch.process_collect(&[1, 0, 2], divide).await;
    /// assert_eq!(results, [Ok(6), Err(ItemError::Failed("zero")), Ok(3)]);
    /// # Ok::<(), overdrive_batch::ConfigError>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn process_collect<I, F, Fut, R, E>(
        &self,
        items: I,
        f: F,
    ) -> Vec<Result<R, ItemError<E>>>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let f = |item| isolated(|| f(item));
        let sort = |result: Result<R, ItemError<E>>| {
            let verdict = match &result {
                Err(ItemError::Panicked(_)) => Verdict::Panicked,
                other => Verdict::of(other),
            };
            (verdict, Ok::<_, Infallible>(result))
        };
        match self.run(items, f, sort).await {
            Ok(results) => results,
            Err((_, never)) => match never {},
        }
    }

    /// `sort` says what became of an item, and whether to stop.
    async fn run<I, F, Fut, R, E>(
        &self,
        items: I,
        f: F,
        sort: impl Fn(Fut::Output) -> (Verdict, Result<R, E>),
    ) -> Result<Vec<R>, (usize, E)>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future,
    {
        let items = items.into_iter();
        let tally = Tally::new(
            &self.name,
            &self.counts,
            self.on_progress.as_deref(),
            &items,
        );
        let f = |item| {
            tally.begin();
            f(item)
        };
        let mut list = Vec::new();
        let mut results = InOrder::new(&mut list, &items);
        let ended = |position, result| {
            let (verdict, result) = sort(result);
            tally.end(verdict);
            match result {
                Ok(result) => {
                    results.put(position, result);
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break((position, error)),
            }
        };
        match drive(items, self.concurrency, f, ended).await {
            ControlFlow::Continue(()) => Ok(list),
            ControlFlow::Break(failed) => Err(failed),
        }
    }

    /// The figures.
    #[must_use]
    pub fn stats(&self) -> ParallelBatchStats {
        self.counts.read()
    }

    /// Sets the counters `overdrive_parallel_items_total` (by `outcome`: completed, failed, panicked,
    /// dropped) of the facade `metrics` to the [`stats`](Self::stats), with the label `batch`, this
    /// one's name.
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        let stats = self.stats();
        for (outcome, items) in [
            ("completed", stats.completed),
            ("failed", stats.failed),
            ("panicked", stats.panicked),
            ("dropped", stats.dropped),
        ] {
            let name = self.name().to_owned();
            metrics::counter!("overdrive_parallel_items_total", "batch" => name, "outcome" => outcome)
                .absolute(items);
        }
    }

    /// The label given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many items of one call are in work at the same time.
    #[must_use]
    pub fn concurrency(&self) -> NonZeroUsize {
        self.concurrency
    }
}

impl ParallelBatchBuilder {
    /// A label for figures. Default `"parallel"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How many items of one call are in work at the same time. Default 10, at most
    /// [`MAX_CONCURRENCY`].
    pub fn concurrency(mut self, n: usize) -> Self {
        self.concurrency = n;
        self
    }

    /// What is told of each call's progress, after each item that ends.
    ///
    /// It is called from the polls of the call, by the task that awaits it, and should be quick; no
    /// lock is held. Its panic passes to the caller, as one of an item's function does. Costs an
    /// indirect call for each item.
    ///
    /// ```
    /// use overdrive_batch::ParallelBatch;
    ///
    /// let pages = ParallelBatch::builder().name("pages").on_progress(|progress| {
    ///     println!("{}: {} of {:?}", progress.name, progress.done, progress.total);
    /// });
    /// assert!(pages.build().is_ok());
    /// ```
    pub fn on_progress(mut self, f: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(f));
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// `concurrency` is zero, or above [`MAX_CONCURRENCY`].
    pub fn build(self) -> Result<ParallelBatch, ConfigError> {
        const FIELD: &str = "concurrency";
        let n = ConfigError::within(FIELD, self.concurrency, MAX_CONCURRENCY)?;
        let concurrency = NonZeroUsize::new(n).ok_or(ConfigError::Zero { field: FIELD })?;
        Ok(ParallelBatch {
            name: self.name,
            concurrency,
            on_progress: self.on_progress,
            counts: Counts::default(),
        })
    }
}

impl fmt::Debug for ParallelBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParallelBatch")
            .field("name", &self.name)
            .field("concurrency", &self.concurrency)
            .field("stats", &self.stats())
            .finish()
    }
}

impl fmt::Debug for ParallelBatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParallelBatchBuilder")
            .field("name", &self.name)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
