//! The same asynchronous function over many items, so many at a time, results in order.

mod collect;
mod crowd;
mod drive;
mod places;
mod ready;
mod shared;
mod tally;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

pub use self::collect::ItemError;
pub use self::shared::{MAX_CONCURRENCY, ParallelBatch, ParallelBatchBuilder};
pub use self::tally::{ParallelBatchStats, Progress};

use self::drive::drive;

/// Room is made beforehand for so many results at most.
const MAX_EXPECTED: usize = 1 << 12;

/// Calls `f` with each item and awaits its futures, at most `concurrency` at the same time; the
/// results come in the order of the items.
///
/// All futures are polled by the caller's task: this is for futures that wait, and what they
/// compute is not spread over threads. They may borrow, need not be `Send`, and no runtime is
/// needed. A wake polls the one future that it is for. After some hundred items that were begun in
/// one poll, other tasks get their turn.
///
/// Allocates for the results. For futures that are ready when they are first polled, nothing else;
/// for others, a few times a call, for the places that they wait in, of which there are
/// `concurrency` at most. Results that came before an earlier item's wait in a queue.
///
/// # Panics
/// A panic of `f` or of a future passes to the caller; the other futures are dropped, and panics of
/// their destructors go no further than the panic hook.
///
/// # Cancel safety
/// Dropped, it drops the futures that it has begun, and the results that it has.
/// [`map_ordered_into`] leaves those to the caller.
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
    let mut results = Vec::new();
    map_ordered_into(&mut results, items, concurrency, f).await;
    results
}

/// As [`map_ordered`], and appends the results to a list, whose memory can so be used again for the
/// next items.
///
/// # Panics
/// As `map_ordered`.
///
/// # Cancel safety
/// Dropped, it drops the futures that it has begun. The list has the results of the first items, up
/// to the first one that had none; later results are lost. So too when it panics.
pub async fn map_ordered_into<I, F, Fut>(
    results: &mut Vec<Fut::Output>,
    items: I,
    concurrency: NonZeroUsize,
    f: F,
) where
    I: IntoIterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future,
{
    let items = items.into_iter();
    let mut results = InOrder::new(results, &items);
    let ended = |position, result| {
        results.put(position, result);
        ControlFlow::<Infallible>::Continue(())
    };
    let _complete = drive(items, concurrency, f, ended).await;
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
    let items = items.into_iter();
    let mut list = Vec::new();
    let mut results = InOrder::new(&mut list, &items);
    let ended = |position, result| match result {
        Ok(result) => {
            results.put(position, result);
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break((position, error)),
    };
    match drive(items, concurrency, f, ended).await {
        ControlFlow::Continue(()) => Ok(list),
        ControlFlow::Break(failed) => Err(failed),
    }
}

/// Results in the order of their positions.
struct InOrder<'a, R> {
    list: &'a mut Vec<R>,
    /// Where the first one is in the list.
    base: usize,
    /// Those from the next position on, which itself has none.
    ahead: VecDeque<Option<R>>,
}

impl<'a, R> InOrder<'a, R> {
    fn new(list: &'a mut Vec<R>, items: &impl Iterator) -> Self {
        // What is promised may be without end, and the first error may come soon.
        list.reserve(items.size_hint().0.min(MAX_EXPECTED));
        Self {
            base: list.len(),
            list,
            ahead: VecDeque::new(),
        }
    }

    fn put(&mut self, position: usize, result: R) {
        let early = position - (self.list.len() - self.base);
        if early > 0 {
            self.wait(early, result);
            return;
        }
        self.list.push(result);
        if self.ahead.pop_front().is_some() {
            while let Some(Some(_)) = self.ahead.front() {
                self.list.extend(self.ahead.pop_front().flatten());
            }
        }
    }

    #[cold]
    fn wait(&mut self, early: usize, result: R) {
        if self.ahead.len() <= early {
            self.ahead.resize_with(early + 1, || None);
        }
        self.ahead[early] = Some(result);
    }
}
