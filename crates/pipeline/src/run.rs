//! Running a pipeline.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{ConfigError, park};
use overdrive_workstealing::{Scope, ThreadPool};

use crate::error::PipelineError;
use crate::item::{BoxError, Cause, Item};
use crate::monitor::{PipelineStats, Watch};
use crate::pipeline::{Pipeline, Segment, Setup};
use crate::plan::{DeadLetter, DeadLetters, ErrorPolicy, Plan};
use crate::stage::{BoxStage, Job, Threads};

/// How many items a future takes from the source, and how many results it delivers, before it
/// lets others run.
const BUDGET: usize = 64;

/// A pipeline that is put together, and on its way.
struct Drive<'env, T> {
    /// `None` once it is over.
    stage: Option<BoxStage<'env, T>>,
    dead_letters: Option<DeadLetters<'env>>,
    plan: Plan,
}

/// Why it ended early.
enum End {
    Cancelled,
    Failed {
        sequence: u64,
        stage: usize,
        cause: Cause,
    },
    Sink {
        sequence: u64,
        source: BoxError,
    },
}

impl<'env, T> Drive<'env, T> {
    fn new<I>(pipeline: Pipeline<Segment<'env, I, T>>, drive: bool) -> Result<Self, PipelineError>
    where
        I: Send + 'env,
        T: Send + 'env,
    {
        let Pipeline {
            mut segment,
            mut plan,
        } = pipeline;
        if let Some(fault) = plan.fault.take() {
            return Err(PipelineError::Config(fault));
        }
        let dead_letters = segment.dead_letters.take();
        if dead_letters.is_some() && plan.policy == ErrorPolicy::FailFast {
            return Err(PipelineError::Config(ConfigError::Contradiction {
                field: "dead_letter",
                other: "on_error",
                reason: "needs items to be skipped, unlike",
            }));
        }
        let bound = plan.in_flight.map_or(u64::MAX, |items| items as u64);
        let stage = segment.serial()(Setup { bound, drive });
        Ok(Self {
            stage: Some(stage),
            dead_letters,
            plan,
        })
    }

    fn pool(&self) -> Option<ThreadPool> {
        let given = self.plan.pool.as_ref();
        let pool = || given.unwrap_or_else(|| ThreadPool::global()).clone();
        self.plan.needs_pool.then(pool)
    }

    /// Delivers until the end, or until nothing is ready.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
        sink: &mut dyn FnMut(T) -> Result<(), BoxError>,
        mut budget: usize,
    ) -> Poll<Result<PipelineStats, PipelineError>> {
        self.plan.watch.driven_by(context.waker());
        self.plan.watch.allow(budget);
        let end = loop {
            if self.plan.watch.is_cancelled() {
                break Some(End::Cancelled);
            }
            if budget == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            budget -= 1;
            let Some(stage) = &mut self.stage else {
                break None;
            };
            match stage.poll_next(context, threads) {
                // The source gives nothing any more.
                Poll::Pending if self.plan.watch.is_cancelled() => {}
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => break None,
                Poll::Ready(Some(item)) => {
                    if let Err(end) = self.deliver(item, sink) {
                        break Some(end);
                    }
                }
            }
        };
        Poll::Ready(self.finish(end))
    }

    fn deliver(
        &mut self,
        item: Item<T>,
        sink: &mut dyn FnMut(T) -> Result<(), BoxError>,
    ) -> Result<(), End> {
        let (value, token) = item.into_parts();
        let failure = match value {
            Ok(value) => {
                let sequence = token.sequence();
                let unfinished = Unfinished(&self.plan.watch);
                let taken = sink(value);
                mem::forget(unfinished);
                match taken {
                    Ok(()) => self.plan.watch.delivered(),
                    Err(_) => self.plan.watch.failed(),
                }
                return taken.map_err(|source| End::Sink { sequence, source });
            }
            Err(failure) => failure,
        };
        match failure.cause {
            Cause::Panicked(_) => self.plan.watch.panicked(),
            Cause::Error(_) => self.plan.watch.failed(),
        }
        let (sequence, stage) = (token.sequence(), failure.stage);
        match (failure.cause, self.plan.policy) {
            (Cause::Error(error), ErrorPolicy::Skip) => {
                let Some(letters) = &mut self.dead_letters else {
                    survive(|| drop(error));
                    return Ok(());
                };
                let stage = self.plan.stages[stage].clone();
                letters(DeadLetter {
                    stage,
                    sequence,
                    error,
                });
                Ok(())
            }
            (cause, _) => Err(End::Failed {
                sequence,
                stage,
                cause,
            }),
        }
    }

    /// Drops what is on its way, and counts it.
    fn abandon(&mut self) {
        if self.stage.is_some() {
            self.plan.watch.abandon(self.plan.watch.in_flight());
        }
        self.stage = None;
    }

    /// Ends it; the stages, and what is in them, are dropped here.
    fn finish(&mut self, end: Option<End>) -> Result<PipelineStats, PipelineError> {
        if end.is_none() {
            self.stage = None;
        }
        self.abandon();
        let stats = self.plan.watch.stats();
        let Some(end) = end else {
            return Ok(stats);
        };
        Err(match end {
            End::Cancelled => PipelineError::Cancelled { stats },
            End::Sink { sequence, source } => PipelineError::Sink {
                sequence,
                source,
                stats,
            },
            End::Failed {
                sequence,
                stage,
                cause: Cause::Error(source),
            } => PipelineError::Stage {
                stage: self.plan.stages[stage].clone(),
                sequence,
                source,
                stats,
            },
            End::Failed {
                sequence,
                stage,
                cause: Cause::Panicked(message),
            } => PipelineError::Panicked {
                stage: self.plan.stages[stage].clone(),
                sequence,
                message,
                stats,
            },
        })
    }
}

/// An item in the hands of the sink; dropped if that panics.
struct Unfinished<'w>(&'w Watch);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.panicked();
    }
}

impl<T> Drop for Drive<'_, T> {
    fn drop(&mut self) {
        self.abandon();
        self.plan.watch.driven_by_nobody();
    }
}

impl<'env, I: Send + 'env, T: Send + 'env> Pipeline<Segment<'env, I, T>> {
    /// Runs on this thread until the source has ended, with the help of the pool's threads where
    /// there are parallel segments. The sink is called on this thread.
    ///
    /// # Errors
    /// The settings make no sense, a stage refused an item or panicked, or the
    /// [`Monitor`](crate::Monitor) ended it. When it returns nothing of it is running any more.
    ///
    /// # Panics
    /// If the source or the sink does.
    pub fn run(self, mut sink: impl FnMut(T)) -> Result<PipelineStats, PipelineError> {
        self.drive(&mut |item| {
            sink(item);
            Ok(())
        })
    }

    /// As [`run`](Self::run), but the sink may refuse a result, which ends the run.
    ///
    /// # Errors
    /// As of [`run`](Self::run), or what the sink returned.
    ///
    /// # Panics
    /// If the source or the sink does.
    pub fn try_run<E: Into<BoxError>>(
        self,
        mut sink: impl FnMut(T) -> Result<(), E>,
    ) -> Result<PipelineStats, PipelineError> {
        self.drive(&mut |item| sink(item).map_err(Into::into))
    }

    /// Runs, and collects the results.
    ///
    /// ```
    /// use overdrive_pipeline::Pipeline;
    ///
    /// let squares: Vec<u64> = Pipeline::from_iter(1..=4).map(|n| n * n).collect()?;
    /// assert_eq!(squares, [1, 4, 9, 16]);
    /// # Ok::<(), overdrive_pipeline::PipelineError>(())
    /// ```
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    ///
    /// # Panics
    /// If the source does.
    pub fn collect<C: FromIterator<T>>(self) -> Result<C, PipelineError> {
        let mut results = Vec::new();
        self.run(|item| results.push(item))?;
        Ok(results.into_iter().collect())
    }

    fn drive(
        self,
        sink: &mut dyn FnMut(T) -> Result<(), BoxError>,
    ) -> Result<PipelineStats, PipelineError> {
        let mut drive = Drive::new(self, true)?;
        let Some(pool) = drive.pool() else {
            return block_on(|context| drive.poll(context, &NoThreads, sink, usize::MAX));
        };
        let watch = Arc::clone(&drive.plan.watch);
        let ended = pool.scope(|scope| {
            // Dropped before the scope waits, on each way out, so that it waits for nothing that
            // nobody needs.
            let mut drive = drive;
            let threads = Scoped(scope);
            block_on(|context| drive.poll(context, &threads, sink, usize::MAX))
        });
        // Workers may have been at work when it ended; now they are not.
        match ended {
            Ok(_) => Ok(watch.stats()),
            Err(error) => Err(error.with_stats(watch.stats())),
        }
    }
}

impl<I: Send + 'static, T: Send + 'static> Pipeline<Segment<'static, I, T>> {
    /// Runs as a future, of any executor. Parallel segments leave their work to the pool's threads;
    /// what the pool refuses, full or closed, is done where the future is polled. Do not block a
    /// worker of that pool on this future: the worker may be the one that it waits for.
    ///
    /// # Errors
    /// As of [`run`](Self::run), but stages that are at work on the pool may still be when it
    /// returns early.
    ///
    /// # Panics
    /// If the source or the sink does.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the pipeline has ended: what it took from its source and had
    /// not delivered is dropped.
    ///
    /// ```
    /// use overdrive_pipeline::Pipeline;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), overdrive_pipeline::PipelineError> {
    /// let mut seen = Vec::new();
    /// Pipeline::from_iter(0..3)
    ///     .map_async(2, |n| async move { n * 2 })
    ///     .run_async(|n| seen.push(n))
    ///     .await?;
    /// assert_eq!(seen, [0, 2, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_async(
        self,
        mut sink: impl FnMut(T) + Send,
    ) -> Result<PipelineStats, PipelineError> {
        let mut drive = Drive::new(self, false)?;
        let threads = Pooled(drive.pool());
        let mut sink = |item| {
            sink(item);
            Ok(())
        };
        poll_fn(|context| drive.poll(context, &threads, &mut sink, BUDGET)).await
    }
}

/// Where there is no parallel segment.
struct NoThreads;

impl<'env> Threads<'env> for NoThreads {
    fn give(&self, job: Job<'env>) -> Result<(), Job<'env>> {
        Err(job)
    }
}

/// The pool, for jobs that borrow.
struct Scoped<'s, 'env>(&'s Scope<'env>);

impl<'env> Threads<'env> for Scoped<'_, 'env> {
    fn give(&self, job: Job<'env>) -> Result<(), Job<'env>> {
        self.0.spawn(move |_| job());
        Ok(())
    }
}

/// The pool, for jobs that do not.
struct Pooled(Option<ThreadPool>);

impl Threads<'static> for Pooled {
    fn give(&self, job: Job<'static>) -> Result<(), Job<'static>> {
        let Some(pool) = &self.0 else {
            return Err(job);
        };
        pool.try_spawn(job).map_err(|error| error.into_inner())
    }
}

/// The thread's own token would not do: a stage that runs on it may park too, in a channel, and
/// take the token away.
fn block_on<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    match park::block_on(poll_fn(poll), || Duration::MAX) {
        Some(result) => result,
        None => unreachable!("there is no limit"),
    }
}
