//! Putting a pipeline together.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use overdrive_core::ConfigError;
use overdrive_workstealing::ThreadPool;

use crate::asynchronous::Asynchronous;
use crate::channel::{Ingress, channel};
use crate::item::{BoxError, Cause, Failure};
use crate::monitor::Monitor;
use crate::parallel::Parallel;
use crate::plan::{DeadLetter, DeadLetters, ErrorPolicy, Plan};
use crate::settings::PipelineSettings;
use crate::stage::{At, Batches, BoxStage, Iter, Serial, Work};

/// How many items per worker of a parallel segment may be under way or wait for their turn.
const WINDOW_PER_WORKER: usize = 4;

/// Items from a source, through stages, into a sink.
///
/// Stages in a row are fused: each item goes through all of them before the next is taken.
/// [`parallel`](Self::parallel) lets the stages so far work on several items at once, on the
/// threads of a [`ThreadPool`]; [`map_async`](Self::map_async) keeps several futures in flight.
/// Both keep the order of the source, unless told [otherwise](Self::unordered), and both are
/// bounded: the source is asked for an item only when there is room for it.
///
/// Nothing happens until a run: [`run`](Self::run), [`try_run`](Self::try_run),
/// [`collect`](Self::collect) on this thread, [`run_async`](Self::run_async) as a future. What is
/// wrong with the settings is the error of the run, and then nothing was taken from the source.
///
/// Cost of this engine per item: an allocation for its count, another two and a task of the pool
/// in each parallel segment, another one in each asynchronous stage.
///
/// ```
/// use overdrive_pipeline::Pipeline;
///
/// let lines = ["4", "8", "x", "15"];
/// let mut sum = 0;
/// let stats = Pipeline::from_iter(lines)
///     .filter(|line| *line != "x")
///     .try_map(|line| line.parse::<u32>())
///     .parallel(2)
///     .map(|n| n * 10)
///     .run(|n| sum += n)?;
/// assert_eq!(sum, 270);
/// assert_eq!((stats.received, stats.delivered), (4, 3));
/// # Ok::<(), overdrive_pipeline::PipelineError>(())
/// ```
#[must_use = "a pipeline does nothing until it is run"]
pub struct Pipeline<S> {
    pub(crate) segment: S,
    pub(crate) plan: Plan,
}

/// The source of a pipeline and the fused stages behind it: items of `I` become results of `T`.
/// You do not name it.
pub struct Segment<'env, I, T> {
    source: Build<'env, I>,
    work: Work<'env, I, T>,
    /// No work yet: the source's items as they are.
    bare: Option<fn(BoxStage<'env, I>) -> BoxStage<'env, T>>,
    pub(crate) dead_letters: Option<DeadLetters<'env>>,
}

/// What is known only when the pipeline is run.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// The most items in flight.
    pub(crate) bound: u64,
    /// Whether the thread that drives the pipeline may do work of parallel segments.
    pub(crate) drive: bool,
}

type Build<'env, T> = Box<dyn FnOnce(Setup) -> BoxStage<'env, T> + Send + 'env>;

impl<'env, T: Send + 'env> Segment<'env, T, T> {
    fn bare(source: Build<'env, T>, dead_letters: Option<DeadLetters<'env>>) -> Self {
        Self {
            source,
            work: Arc::new(|item, _, emit| emit(Ok(item))),
            bare: Some(|source| source),
            dead_letters,
        }
    }
}

impl<'env, I: Send + 'env, T: Send + 'env> Segment<'env, I, T> {
    /// The stage that does its work on the driving thread.
    pub(crate) fn serial(self) -> Build<'env, T> {
        let Self {
            source, work, bare, ..
        } = self;
        Box::new(move |setup| {
            let upstream = source(setup);
            match bare {
                Some(as_it_is) => as_it_is(upstream),
                None => Box::new(Serial {
                    upstream,
                    work,
                    ready: VecDeque::new(),
                }),
            }
        })
    }
}

impl Pipeline<()> {
    /// A pipeline of what the iterator gives. It is asked on the thread that runs the pipeline,
    /// and may borrow.
    #[expect(
        clippy::should_implement_trait,
        reason = "it makes a pipeline to be run, not a collection"
    )]
    pub fn from_iter<'env, I>(items: I) -> Pipeline<Segment<'env, I::Item, I::Item>>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'env,
        I::Item: Send + 'env,
    {
        let plan = Plan::new("source");
        let watch = Arc::clone(&plan.watch);
        let iter = items.into_iter();
        let source: Build<'env, I::Item> = Box::new(move |setup| {
            Box::new(Iter {
                iter,
                ended: false,
                bound: setup.bound,
                watch,
            })
        });
        let segment = Segment::bare(source, None);
        Pipeline { segment, plan }
    }

    /// A pipeline of what is sent through the [`Ingress`], of which up to `capacity` items wait until
    /// the pipeline takes them. It ends when the ingress is closed or dropped.
    pub fn from_channel<T: Send + 'static>(
        capacity: usize,
    ) -> (Ingress<T>, Pipeline<Segment<'static, T, T>>) {
        let mut plan = Plan::new("channel");
        let capacity = plan.count("capacity", capacity);
        let (ingress, receiver) = channel(capacity, &plan.watch);
        let source: Build<'static, T> =
            Box::new(move |setup| Box::new(receiver.bounded(setup.bound)));
        let segment = Segment::bare(source, None);
        (ingress, Pipeline { segment, plan })
    }
}

impl<'env, I: Send + 'env, T: Send + 'env> Pipeline<Segment<'env, I, T>> {
    /// Appends work to the fused stages.
    fn fuse<U: Send + 'env>(
        self,
        work: impl Fn(T, &At, &mut dyn FnMut(Result<U, Failure>)) + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, I, U>> {
        let Segment {
            source,
            work: before,
            dead_letters,
            ..
        } = self.segment;
        let both: Work<'env, I, U> = Arc::new(move |item, at, emit| {
            before(item, at, &mut |result| match result {
                Ok(item) => work(item, at, emit),
                Err(failure) => emit(Err(failure)),
            });
        });
        Pipeline {
            segment: Segment {
                source,
                work: both,
                bare: None,
                dead_letters,
            },
            plan: self.plan,
        }
    }

    /// Replaces the source by all so far and a stage behind it.
    fn behind<U: Send + 'env>(
        mut self,
        stage: impl FnOnce(BoxStage<'env, T>) -> BoxStage<'env, U> + Send + 'env,
    ) -> Pipeline<Segment<'env, U, U>> {
        let dead_letters = self.segment.dead_letters.take();
        let before = self.segment.serial();
        let source: Build<'env, U> = Box::new(move |setup| stage(before(setup)));
        Pipeline {
            segment: Segment::bare(source, dead_letters),
            plan: self.plan,
        }
    }

    /// Gives each item to `f`, and what it returns on.
    pub fn map<U: Send + 'env>(
        mut self,
        f: impl Fn(T) -> U + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, I, U>> {
        let stage = self.plan.add("map");
        self.fuse(move |item, at, emit| {
            at.set(stage);
            emit(Ok(f(item)));
        })
    }

    /// As [`map`](Self::map), but `f` may refuse an item: see [`on_error`](Self::on_error).
    pub fn try_map<U: Send + 'env, E: Into<BoxError>>(
        mut self,
        f: impl Fn(T) -> Result<U, E> + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, I, U>> {
        let stage = self.plan.add("try_map");
        self.fuse(move |item, at, emit| {
            at.set(stage);
            let result = f(item).map_err(|error| Failure {
                stage,
                cause: Cause::Error(error.into()),
            });
            emit(result);
        })
    }

    /// Lets through what `keep` says yes to.
    pub fn filter(mut self, keep: impl Fn(&T) -> bool + Send + Sync + 'env) -> Self {
        let stage = self.plan.add("filter");
        self.fuse(move |item, at, emit| {
            at.set(stage);
            if keep(&item) {
                emit(Ok(item));
            }
        })
    }

    /// Makes several items of each, or none. All that `f` makes of one are made before the first
    /// of them is passed on, so it must not make them without end.
    pub fn flat_map<U: Send + 'env, M: IntoIterator<Item = U>>(
        mut self,
        f: impl Fn(T) -> M + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, I, U>> {
        let stage = self.plan.add("flat_map");
        self.fuse(move |item, at, emit| {
            at.set(stage);
            for item in f(item) {
                emit(Ok(item));
                at.set(stage);
            }
        })
    }

    /// Lets the fused stages so far work on several items at once: up to `workers` of them, one of
    /// which is the thread that runs the pipeline (a [`run_async`](Self::run_async) leaves all to
    /// the pool). The stages after it are on the running thread again. Results stay in the order
    /// of the source, unless it is made [`unordered`](Self::unordered); then up to four items per
    /// worker are under way or wait for the one before them.
    pub fn parallel(mut self, workers: usize) -> Pipeline<Segment<'env, T, T>> {
        let workers = self.plan.count("parallel", workers);
        let ordered = self.plan.concurrent();
        self.plan.needs_pool = true;
        let Segment {
            source,
            work,
            dead_letters,
            ..
        } = self.segment;
        let room = workers.saturating_mul(WINDOW_PER_WORKER);
        let source: Build<'env, T> = Box::new(move |setup| {
            let ordered = ordered.load(Ordering::Relaxed);
            let upstream = source(setup);
            Box::new(Parallel::new(
                upstream,
                work,
                workers,
                room,
                ordered,
                setup.drive,
            ))
        });
        Pipeline {
            segment: Segment::bare(source, dead_letters),
            plan: self.plan,
        }
    }

    /// Gives each item to `f`, and what its future returns on, with up to `concurrency` futures in
    /// flight. They are polled on the thread that drives the pipeline; one that needs a runtime
    /// (tokio's timers, sockets) wants the pipeline to be driven there, by
    /// [`run_async`](Self::run_async) or inside `Handle::enter`.
    pub fn map_async<U: Send + 'env, F: Future<Output = U> + Send + 'env>(
        mut self,
        concurrency: usize,
        f: impl Fn(T) -> F + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, U, U>> {
        let stage = self.plan.add("map_async");
        self.asynchronous(stage, concurrency, move |item| {
            let future = f(item);
            async move { Ok(future.await) }
        })
    }

    /// As [`map_async`](Self::map_async), but the future may refuse an item: see
    /// [`on_error`](Self::on_error).
    pub fn try_map_async<U, E, F>(
        mut self,
        concurrency: usize,
        f: impl Fn(T) -> F + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, U, U>>
    where
        U: Send + 'env,
        E: Into<BoxError>,
        F: Future<Output = Result<U, E>> + Send + 'env,
    {
        let stage = self.plan.add("try_map_async");
        self.asynchronous(stage, concurrency, move |item| {
            let future = f(item);
            async move {
                future.await.map_err(|error| Failure {
                    stage,
                    cause: Cause::Error(error.into()),
                })
            }
        })
    }

    fn asynchronous<U: Send + 'env, F>(
        mut self,
        stage: usize,
        concurrency: usize,
        f: impl Fn(T) -> F + Send + Sync + 'env,
    ) -> Pipeline<Segment<'env, U, U>>
    where
        F: Future<Output = Result<U, Failure>> + Send + 'env,
    {
        let concurrency = self.plan.count("concurrency", concurrency);
        let ordered = self.plan.concurrent();
        self.behind(move |upstream| {
            let ordered = ordered.load(Ordering::Relaxed);
            Box::new(Asynchronous::new(
                upstream,
                Arc::new(move |item| Box::pin(f(item))),
                stage,
                concurrency,
                ordered,
            ))
        })
    }

    /// Collects up to `max` items into one. A batch is passed on when it is full, and when nothing
    /// more is to be had at the moment, so nothing waits in it. A refused item closes it.
    pub fn batch(mut self, max: usize) -> Pipeline<Segment<'env, Vec<T>, Vec<T>>> {
        self.plan.add("batch");
        let max = self.plan.count("batch", max);
        let watch = Arc::clone(&self.plan.watch);
        self.behind(move |upstream| {
            Box::new(Batches {
                upstream,
                watch,
                max,
                open: Vec::new(),
                tokens: Vec::new(),
                behind: None,
            })
        })
    }

    /// Results of the latest [`parallel`](Self::parallel) or [`map_async`](Self::map_async) go on
    /// as they are ready, whatever the order of their items.
    pub fn unordered(mut self) -> Self {
        match &self.plan.ordered {
            Some(ordered) => ordered.store(false, Ordering::Relaxed),
            None => self.plan.fault(ConfigError::Invalid {
                field: "unordered",
                reason: "comes after no concurrent part",
            }),
        }
        self
    }

    /// The most items of the source that are on their way at any time. By default as many as the
    /// concurrent parts have room for.
    pub fn in_flight(mut self, items: usize) -> Self {
        self.plan.in_flight = Some(self.plan.count("in_flight", items));
        self
    }

    /// The numbers of a [`PipelineSettings`].
    pub fn settings(mut self, settings: PipelineSettings) -> Self {
        self.plan.in_flight = settings
            .in_flight
            .map(|items| self.plan.count("in_flight", items));
        self
    }

    /// What happens when a stage refuses an item. Default [`ErrorPolicy::FailFast`].
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.plan.policy = policy;
        self
    }

    /// Gives each refused item to `letters`, on the driving thread, and goes on: sets
    /// [`ErrorPolicy::Skip`].
    pub fn dead_letter(mut self, letters: impl FnMut(DeadLetter) + Send + 'env) -> Self {
        self.plan.policy = ErrorPolicy::Skip;
        self.segment.dead_letters = Some(Box::new(letters));
        self
    }

    /// Names the latest stage, for errors. By default it is named after its method.
    pub fn stage(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        if let Some(last) = self.plan.stages.last_mut() {
            *last = name.into();
        }
        self
    }

    /// A label for figures. Default `"pipeline"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.plan.name = name.into();
        self
    }

    /// The pool whose threads do the work of parallel segments. Default
    /// [`ThreadPool::global`].
    pub fn on(mut self, pool: &ThreadPool) -> Self {
        self.plan.pool = Some(pool.clone());
        self
    }

    /// A handle to watch the run with, and to cancel it.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor {
            name: self.plan.name.clone(),
            watch: Arc::clone(&self.plan.watch),
        }
    }
}

impl<I, T> fmt::Debug for Segment<'_, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Pipeline<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.plan.name)
            .field("stages", &self.plan.stages)
            .finish_non_exhaustive()
    }
}
