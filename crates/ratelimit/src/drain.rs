//! Waiting until all permits are back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use overdrive_core::park::block_on;
use overdrive_core::{Deadline, DrainReport};

use crate::concurrency::ConcurrencyLimit;

/// Ready when no permit is out and nobody waits for one.
pub(crate) struct Idle<'l> {
    limit: &'l ConcurrencyLimit,
    id: Option<u64>,
    released_before: u64,
}

impl<'l> Idle<'l> {
    pub(crate) fn new(limit: &'l ConcurrencyLimit) -> Self {
        Self {
            limit,
            id: None,
            released_before: limit.stats().released,
        }
    }

    fn report(&self) -> DrainReport {
        let stats = self.limit.stats();
        let finished = stats.released.saturating_sub(self.released_before);
        DrainReport::new(finished, stats.in_flight as u64)
    }
}

impl Future for Idle<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A waker is code of others: cloned before the lock, dropped after it.
        let waker = context.waker().clone();
        let inner = &*self.limit.inner;
        let mut state = inner.lock();
        inner.listen();
        let (poll, spare) = if inner.is_idle(&state) {
            (Poll::Ready(()), Some(waker))
        } else {
            let id = self.id.unwrap_or_else(|| state.next_id());
            let old = state.drains.insert(id, waker);
            self.id = Some(id);
            (Poll::Pending, old)
        };
        // For others who listened, and for nobody if none does any more.
        inner.settle(state, None);
        drop(spare);
        poll
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.limit.inner.lock();
            let waker = state.drains.remove(&id);
            self.limit.inner.settle(state, None);
            drop(waker);
        }
    }
}

impl ConcurrencyLimit {
    /// Waits until all permits are back and nobody waits for one, until the deadline at most. A
    /// [`Duration`](std::time::Duration) counts from now. It does not close the limit: what is acquired meanwhile is
    /// waited for too.
    ///
    /// `finished` counts the permits that came back, `abandoned` those that are out at the
    /// deadline; they stay good.
    ///
    /// ```
    /// use std::time::Duration;
    /// use overdrive_ratelimit::ConcurrencyLimit;
    ///
    /// let requests = ConcurrencyLimit::builder().limit(10).build()?;
    /// let permit = requests.try_acquire()?;
    /// requests.close();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| drop(permit));
    ///     assert!(requests.drain_blocking(Duration::from_secs(30)).is_complete());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        let mut idle = Idle::new(self);
        let _in_time = block_on(&mut idle, || deadline.remaining());
        idle.report()
    }

    /// As [`drain_blocking`](Self::drain_blocking), without blocking the thread.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled, unless the deadline is
    /// [`Deadline::NEVER`].
    ///
    /// # Cancel safety
    /// Nothing is lost: it only watches.
    #[cfg(feature = "tokio")]
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        let mut idle = Idle::new(self);
        if deadline == Deadline::NEVER {
            (&mut idle).await;
        } else {
            let _in_time = tokio::time::timeout(deadline.remaining(), &mut idle).await;
        }
        idle.report()
    }
}
