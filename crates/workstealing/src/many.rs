//! Many closures in one call.

use std::iter::{Chain, Once, once};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{PanicPayload, SpawnError, TaskError};
use crate::pool::ThreadPool;
use crate::sync::{Mutex, lock};

/// What [`ThreadPool::spawn_batch`] did not accept: the closure that was refused, then those that
/// were not asked for yet.
pub type Rest<F, I> = Chain<Once<F>, I>;

impl ThreadPool {
    /// [Spawns](Self::spawn) one after the other, until one is refused. Says how many were
    /// accepted.
    ///
    /// # Errors
    /// The pool is closed, or its queue is full and it rejects then. The closure that was refused
    /// and those after it are in the error, as an iterator.
    ///
    /// ```
    /// let pool = overdrive_workstealing::ThreadPool::builder().workers(2).build()?;
    /// let spawned = pool.spawn_batch((0..10).map(|n| move || println!("{n}")));
    /// assert_eq!(spawned.unwrap(), 10);
    /// # Ok::<(), overdrive_workstealing::ConfigError>(())
    /// ```
    pub fn spawn_batch<I, F>(&self, tasks: I) -> Result<usize, SpawnError<Rest<F, I::IntoIter>>>
    where
        I: IntoIterator<Item = F>,
        F: FnOnce() + Send + 'static,
    {
        let mut tasks = tasks.into_iter();
        let mut accepted = 0;
        while let Some(task) = tasks.next() {
            match self.spawn(task) {
                Ok(()) => accepted += 1,
                Err(refused) => return Err(refused.map(|task| once(task).chain(tasks))),
            }
        }
        Ok(accepted)
    }

    /// Calls `f` with each item, at most `limit` at a time, on the workers and on this thread, and
    /// returns the results in the order of the items. `f` may borrow.
    ///
    /// A panic is the result of its item, [`TaskError::Panicked`], and ends nothing else. Cost: per
    /// item two turns of a lock, so give it microseconds of work.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    ///
    /// let pool = overdrive_workstealing::ThreadPool::builder().workers(2).build()?;
    /// let words = ["fan", "out"];
    /// let limit = NonZeroUsize::new(2).unwrap();
    /// let lengths = pool.fan_out(words, limit, |word| word.len());
    /// assert_eq!(lengths.into_iter().map(Result::unwrap).sum::<usize>(), 6);
    /// # Ok::<(), overdrive_workstealing::ConfigError>(())
    /// ```
    ///
    /// # Panics
    /// If the iterator does: when all calls have ended.
    pub fn fan_out<I, R, F>(&self, items: I, limit: NonZeroUsize, f: F) -> Vec<Result<R, TaskError>>
    where
        I: IntoIterator<IntoIter: Send, Item: Send>,
        R: Send,
        F: Fn(I::Item) -> R + Sync,
    {
        let items = Mutex::new(items.into_iter().enumerate());
        let results = Mutex::new(Vec::new());
        let work = || {
            loop {
                // The iterator is a user's: after its panic there are no more items.
                let next = match items.lock() {
                    Ok(mut items) => items.next(),
                    Err(_) => None,
                };
                let Some((n, item)) = next else {
                    return;
                };
                let result = catch_unwind(AssertUnwindSafe(|| f(item)))
                    .map_err(|payload| TaskError::Panicked(PanicPayload::new(payload)));
                let mut results = lock(&results);
                if results.len() <= n {
                    results.resize_with(n + 1, || None);
                }
                results[n] = Some(result);
            }
        };
        let helpers = (limit.get() - 1).min(self.workers());
        let work = &work;
        self.scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(move |_| work());
            }
            work();
        });
        let results = results
            .into_inner()
            .expect("nothing of a user's runs under it");
        results.into_iter().flatten().collect()
    }
}
