//! Waiting for tokens without blocking the thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use overdrive_core::{Clock, Deadline};
use tokio::time::{Sleep, sleep};

use crate::error::WaitError;
use crate::limiter::RateLimiter;
use crate::tsc::TscClock;
use crate::wait::{Step, Turn};

/// Waits for tokens, from [`RateLimiter::wait`] and [`RateLimiter::wait_n`].
///
/// # Errors
/// With nothing taken: [`WaitError::DeadlineExceeded`] if the tokens will not be there by the
/// deadline, which is known at the first poll unless the quota is changed or those in front do not
/// go; [`WaitError::ExceedsBurst`], [`WaitError::QueueFull`].
///
/// # Panics
/// When polled outside a tokio runtime with its timer enabled, if it has to sleep; when polled after
/// it was ready.
///
/// # Cancel safety
/// Dropped before it is ready, it has taken nothing: its place in the queue is given up, and
/// those behind it move up. One that is kept and not polled holds up those behind it, until their
/// deadlines.
#[must_use = "a future does nothing until it is awaited"]
pub struct Wait<'l, C: Clock = TscClock> {
    turn: Turn<'l, C>,
    sleep: Option<Timer>,
}

/// A timer for the turn, or for the deadline.
struct Timer {
    for_turn: bool,
    sleep: Pin<Box<Sleep>>,
}

impl<C: Clock> Wait<'_, C> {
    /// Fails rather than wait beyond that moment of the limiter's clock. A [`Duration`] counts
    /// from now in real time. Set it before the first poll; later it has no effect.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.turn.set_deadline(deadline.into());
        self
    }
}

impl<C: Clock> Future for Wait<'_, C> {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (for_turn, delay) = match self.turn.step(context.waker()) {
                Step::Done(result) => {
                    self.sleep = None;
                    return Poll::Ready(result);
                }
                Step::Behind(Duration::MAX) => return Poll::Pending,
                Step::Behind(left) => (false, left),
                Step::First(delay) => (true, delay),
            };
            // The one for the deadline holds until it is first.
            let kept = self
                .sleep
                .take()
                .filter(|timer| !for_turn && !timer.for_turn && !timer.sleep.is_elapsed());
            let timer = self.sleep.insert(kept.unwrap_or_else(|| Timer {
                for_turn,
                sleep: Box::pin(sleep(delay)),
            }));
            if timer.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<C: Clock> fmt::Debug for Wait<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("limiter", &self.turn.limiter().name())
            .finish_non_exhaustive()
    }
}

impl<C: Clock> RateLimiter<C> {
    /// Waits until one token is taken.
    ///
    /// ```
    /// use overdrive_ratelimit::{Quota, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder().quota(Quota::per_second(1000).burst(1)).build()?;
    /// for _ in 0..3 {
    ///     limiter.wait().await?;
    /// }
    /// assert_eq!(limiter.stats().allowed, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self) -> Wait<'_, C> {
        self.wait_n(1)
    }

    /// Waits until `n` tokens are taken at once. None are always there.
    pub fn wait_n(&self, n: u64) -> Wait<'_, C> {
        Wait {
            turn: Turn::new(self, n, Deadline::NEVER),
            sleep: None,
        }
    }

    /// Waits until one token is taken, unless it is further away than `timeout` on the limiter's
    /// clock: then it fails at once.
    pub fn wait_timeout(&self, timeout: Duration) -> Wait<'_, C> {
        self.wait()
            .deadline(Deadline::after_on(&self.inner.clock, timeout))
    }
}
