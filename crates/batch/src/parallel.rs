//! The same asynchronous function over many items, so many at a time, results in order.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use overdrive_core::ConfigError;

/// The largest accepted number of items in work at the same time.
pub const MAX_CONCURRENCY: usize = 1 << 20;

/// Room is made beforehand for so many results at most.
const MAX_EXPECTED: usize = 1 << 12;

/// Calls `f` with each item and awaits its futures, at most `concurrency` at the same time; the
/// results come in the order of the items.
///
/// All futures are polled by the caller's task: this is for futures that wait, and what they
/// compute is not spread over threads. They may borrow, need not be `Send`, and no runtime is
/// needed. Costs an allocation for each item.
///
/// # Panics
/// A panic of `f` or of a future passes to the caller; the other futures are dropped.
///
/// # Cancel safety
/// Dropped, it drops the futures that it has begun, and the results that it has.
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use std::num::NonZeroUsize;
/// use overdrive_batch::map_ordered;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let words = ["a", "bb", "ccc"];
/// let ten = NonZeroUsize::new(10).unwrap();
/// let lengths = map_ordered(&words, ten, |word| async move { word.len() }).await;
/// assert_eq!(lengths, [1, 2, 3]);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn map_ordered<I, F, Fut>(items: I, concurrency: NonZeroUsize, f: F) -> Vec<Fut::Output>
where
    I: IntoIterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future,
{
    let f = &f;
    let sure = |item| {
        let future = f(item);
        async move { Ok::<_, std::convert::Infallible>(future.await) }
    };
    match try_map_ordered(items, concurrency, sure).await {
        Ok(results) => results,
        Err((_, never)) => match never {},
    }
}

/// As [`map_ordered`], until the first failure: then the futures in work are dropped, no further
/// ones are begun, and the error comes with its item's position.
///
/// # Errors
/// The first error to happen, which need not be the one of the first failing item.
///
/// # Panics
/// As `map_ordered`.
///
/// # Cancel safety
/// As `map_ordered`.
pub async fn try_map_ordered<I, F, Fut, R, E>(
    items: I,
    concurrency: NonZeroUsize,
    f: F,
) -> Result<Vec<R>, (usize, E)>
where
    I: IntoIterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    let numbered = |(index, item)| {
        let future = f(item);
        async move { (index, future.await) }
    };
    let mut waiting = items.into_iter().enumerate();
    let mut working = FuturesUnordered::new();
    // What is promised may be without end, and the first error may come soon.
    let expected = waiting.size_hint().0.min(MAX_EXPECTED);
    let mut results = Vec::with_capacity(expected);
    loop {
        while working.len() < concurrency.get() {
            let Some(next) = waiting.next() else {
                break;
            };
            results.push(None);
            working.push(numbered(next));
        }
        match working.next().await {
            Some((index, Ok(result))) => results[index] = Some(result),
            Some((index, Err(error))) => return Err((index, error)),
            None => break,
        }
    }
    let all = results.into_iter().map(|result| result.expect("all ended"));
    Ok(all.collect())
}

/// [`map_ordered`] with a name, a set number and figures. A shared value: any number of tasks may
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
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Sets a [`ParallelBatch`] up.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ParallelBatchBuilder {
    name: Cow<'static, str>,
    concurrency: usize,
}

/// The figures of a [`ParallelBatch`]. At rest `begun = completed + failed + dropped`, otherwise
/// `begun` is more: the difference is in work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParallelBatchStats {
    /// Items whose future was begun.
    pub begun: u64,
    /// Items with a result.
    pub completed: u64,
    /// Items with an error, in [`try_process`](ParallelBatch::try_process).
    pub failed: u64,
    /// Items whose future panicked, or was dropped: by another's error or panic, or with the whole.
    pub dropped: u64,
}

impl ParallelBatch {
    /// Starts the set-up.
    pub fn builder() -> ParallelBatchBuilder {
        ParallelBatchBuilder {
            name: Cow::Borrowed("parallel"),
            concurrency: 10,
        }
    }

    /// [`map_ordered`] with the number given to the builder. A slice's items come as references.
    ///
    /// # Panics
    /// As `map_ordered`.
    ///
    /// # Cancel safety
    /// As `map_ordered`.
    pub async fn process<I, F, Fut>(&self, items: I, f: F) -> Vec<Fut::Output>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future,
    {
        let counted = |item| {
            let (ticket, future) = (Begun::new(&self.counts), f(item));
            async move {
                let result = future.await;
                ticket.end(&self.counts.completed);
                result
            }
        };
        map_ordered(items, self.concurrency, counted).await
    }

    /// [`try_map_ordered`] with the number given to the builder.
    ///
    /// # Errors
    /// The first error to happen, with its item's position.
    ///
    /// # Panics
    /// As `map_ordered`.
    ///
    /// # Cancel safety
    /// As `map_ordered`.
    pub async fn try_process<I, F, Fut, R, E>(&self, items: I, f: F) -> Result<Vec<R>, (usize, E)>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let counted = |item| {
            let (ticket, future) = (Begun::new(&self.counts), f(item));
            async move {
                let result = future.await;
                ticket.end(match result {
                    Ok(_) => &self.counts.completed,
                    Err(_) => &self.counts.failed,
                });
                result
            }
        };
        try_map_ordered(items, self.concurrency, counted).await
    }

    /// The figures.
    #[must_use]
    pub fn stats(&self) -> ParallelBatchStats {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        // What was begun last: so it is never less than what has ended.
        ParallelBatchStats {
            completed: read(&self.counts.completed),
            failed: read(&self.counts.failed),
            dropped: read(&self.counts.dropped),
            begun: read(&self.counts.begun),
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

/// An item that is counted as dropped unless it ends.
struct Begun<'a>(Option<&'a Counts>);

impl<'a> Begun<'a> {
    fn new(counts: &'a Counts) -> Self {
        counts.begun.fetch_add(1, Ordering::Relaxed);
        Self(Some(counts))
    }

    fn end(mut self, as_what: &AtomicU64) {
        self.0 = None;
        as_what.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0 {
            counts.dropped.fetch_add(1, Ordering::Release);
        }
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
