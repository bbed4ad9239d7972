//! What those see who watch from outside: a span for each batch, and its figures. Nothing of it is
//! there without the features.

#[cfg(feature = "tracing")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(any(feature = "metrics", feature = "tracing"))]
use overdrive_core::unwind::survive;

#[cfg(feature = "tracing")]
type Link = tracing::Span;
#[cfg(not(feature = "tracing"))]
type Link = ();

/// Where an item comes from: the span it was submitted in.
#[derive(Clone)]
pub(crate) struct Origin(Link);

/// Where the items of a batch come from.
#[derive(Default)]
pub(crate) struct Origins(Vec<Origin>);

/// A batch that is being run.
pub(crate) struct Observed<'a> {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    #[cfg(feature = "metrics")]
    begun: Instant,
    #[cfg(feature = "metrics")]
    name: &'a str,
    #[cfg(not(feature = "metrics"))]
    _name: std::marker::PhantomData<&'a str>,
}

impl Origin {
    /// Here. Calls the subscriber, so not under a lock.
    #[inline]
    pub(crate) fn here() -> Self {
        #[cfg(feature = "tracing")]
        return Self(tracing::Span::current());
        #[cfg(not(feature = "tracing"))]
        Self(())
    }

    /// Nowhere that could be told.
    pub(crate) fn nowhere() -> Self {
        #[cfg(feature = "tracing")]
        return Self(tracing::Span::none());
        #[cfg(not(feature = "tracing"))]
        Self(())
    }
}

impl Origins {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    pub(crate) fn add(&mut self, origin: Origin) {
        self.0.push(origin);
    }

    /// Lets go of all, which calls the subscriber, so not under a lock.
    #[inline]
    pub(crate) fn clear(&mut self) {
        // Each for itself: a subscriber that panics twice would end the process.
        #[cfg(feature = "tracing")]
        self.0.drain(..).for_each(|origin| survive(|| drop(origin)));
        #[cfg(not(feature = "tracing"))]
        self.0.clear();
    }
}

#[cfg(feature = "tracing")]
impl Drop for Origins {
    fn drop(&mut self) {
        self.clear();
    }
}

// What panics in a recorder or a subscriber costs the batch nothing but what they would have seen.
impl<'a> Observed<'a> {
    /// A batch of that batcher, of so many items, begins.
    #[inline]
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "without the features")
    )]
    pub(crate) fn begin(name: &'a str, size: usize, origins: Origins) -> Self {
        #[cfg(feature = "metrics")]
        survive(|| {
            metrics::histogram!("overdrive_batch_size", "batcher" => name.to_owned())
                .record(size as f64);
        });
        Self {
            #[cfg(feature = "tracing")]
            span: {
                let mut span = tracing::Span::none();
                survive(|| {
                    span = tracing::info_span!(parent: None, "batch", batcher = name, size);
                    for origin in &origins.0 {
                        span.follows_from(&origin.0);
                    }
                });
                span
            },
            #[cfg(feature = "metrics")]
            begun: Instant::now(),
            #[cfg(feature = "metrics")]
            name,
            #[cfg(not(feature = "metrics"))]
            _name: std::marker::PhantomData,
        }
    }

    /// Runs some of it.
    #[inline]
    pub(crate) fn run<O>(&self, f: impl FnOnce() -> O) -> O {
        #[cfg(feature = "tracing")]
        {
            let mut entered = None;
            survive(|| entered = Some(self.span.enter()));
            let output = catch_unwind(AssertUnwindSafe(f));
            survive(|| drop(entered));
            output.unwrap_or_else(|payload| resume_unwind(payload))
        }
        #[cfg(not(feature = "tracing"))]
        f()
    }
}

/// What `make` makes, as a batch of that batcher, of so many items.
#[cfg(all(feature = "tokio", any(feature = "metrics", feature = "tracing")))]
pub(crate) async fn observed<F: Future>(
    name: &str,
    size: usize,
    origins: Origins,
    make: impl FnOnce() -> F,
) -> F::Output {
    let observed = Observed::begin(name, size, origins);
    let mut future = std::pin::pin!(observed.run(make));
    std::future::poll_fn(|cx| observed.run(|| future.as_mut().poll(cx))).await
}

#[cfg(all(feature = "tokio", not(any(feature = "metrics", feature = "tracing"))))]
pub(crate) fn observed<F: Future>(_: &str, _: usize, _: Origins, make: impl FnOnce() -> F) -> F {
    make()
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Drop for Observed<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        survive(|| drop(std::mem::replace(&mut self.span, tracing::Span::none())));
        #[cfg(feature = "metrics")]
        survive(|| {
            let name = self.name.to_owned();
            metrics::histogram!("overdrive_batch_handler_seconds", "batcher" => name)
                .record(self.begun.elapsed());
        });
    }
}

/// Sets counters and gauges to the figures of a batcher of that name.
#[cfg(feature = "metrics")]
pub(crate) fn report(name: &str, stats: &crate::stats::BatchStats) {
    for (outcome, items) in [
        ("completed", stats.completed),
        ("failed", stats.failed),
        ("cancelled", stats.cancelled),
        ("expired", stats.expired),
        ("shed", stats.shed),
        ("abandoned", stats.abandoned),
        ("rejected", stats.rejected),
    ] {
        let name = name.to_owned();
        metrics::counter!("overdrive_batch_items_total", "batcher" => name, "outcome" => outcome)
            .absolute(items);
    }
    for (reason, batches) in [
        ("full", stats.closed_full),
        ("idle", stats.closed_idle),
        ("linger", stats.closed_linger),
        ("flush", stats.closed_flush),
        ("at_end", stats.closed_at_end),
    ] {
        let name = name.to_owned();
        metrics::counter!("overdrive_batches_total", "batcher" => name, "reason" => reason)
            .absolute(batches);
    }
    for (state, items) in [
        ("waiting", stats.waiting),
        ("queued", stats.queued),
        ("running", stats.running),
    ] {
        let name = name.to_owned();
        metrics::gauge!("overdrive_batch_items", "batcher" => name, "state" => state)
            .set(items as f64);
    }
}
