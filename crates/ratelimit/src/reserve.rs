//! Tokens taken ahead of their time.

use std::fmt;
use std::time::Duration;

use overdrive_core::{Clock, Deadline, Timestamp};

use crate::error::WaitError;
use crate::limiter::RateLimiter;
use crate::tsc::TscClock;

/// Tokens that are the caller's from a certain moment on, from [`RateLimiter::reserve`].
///
/// Dropping it changes nothing: the tokens are used. [`cancel`](Self::cancel) gives them back.
#[must_use = "says when the tokens may be used; `cancel` gives them back"]
pub struct Reservation<'l, C: Clock = TscClock> {
    limiter: &'l RateLimiter<C>,
    tokens: u64,
    ready_at: Timestamp,
}

impl<C: Clock> Reservation<'_, C> {
    /// The moment of the limiter's clock from which the tokens may be used.
    #[must_use]
    pub fn ready_at(&self) -> Timestamp {
        self.ready_at
    }

    /// How long until then.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.ready_at
            .saturating_since(self.limiter.inner.clock.now())
    }

    /// The tokens reserved.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Gives all of them back, for others to take. What was reserved after it keeps its moment.
    pub fn cancel(self) {
        self.limiter.refund(self.tokens);
    }
}

impl<C: Clock> fmt::Debug for Reservation<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("limiter", &self.limiter.name())
            .field("tokens", &self.tokens)
            .field("ready_at", &self.ready_at)
            .finish_non_exhaustive()
    }
}

impl<C: Clock> RateLimiter<C> {
    /// Takes `n` tokens, if need be before they are there: from the moment that it says they may
    /// be used. For a caller with a schedule of its own; [`wait`](Self::wait) waits.
    ///
    /// # Errors
    /// With nothing taken: [`WaitError::DeadlineExceeded`] if they may not be used by the
    /// deadline, or if others wait for this limiter, past whom nothing is reserved;
    /// [`WaitError::ExceedsBurst`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use overdrive_ratelimit::{Deadline, Quota, RateLimiter};
    ///
    /// let limiter = RateLimiter::builder().quota(Quota::per_minute(60).burst(1)).build()?;
    /// let now = limiter.reserve(1, Deadline::NEVER)?;
    /// let later = limiter.reserve(1, Duration::from_secs(5))?;
    /// assert!(now.delay().is_zero() && later.delay() > Duration::from_millis(900));
    /// later.cancel();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(
        &self,
        n: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<Reservation<'_, C>, WaitError> {
        let deadline = deadline.into();
        let now = self.inner.clock.now();
        let mut held = self.inner.hold();
        let gcra = held.state.gcra;
        let delay = gcra.delay(held.arrival, now, held.state.queue.tokens(), n);
        let ready_at = now.saturating_add(delay);
        let refused = if n > gcra.burst {
            let (asked, burst) = (n, gcra.burst);
            WaitError::ExceedsBurst { asked, burst }
        } else if ready_at > deadline.moment() || !held.state.queue.is_empty() {
            WaitError::DeadlineExceeded { needed: delay }
        } else {
            held.arrival = gcra.charge(held.arrival, now, n);
            drop(held);
            self.inner.count_allowed(n);
            return Ok(Reservation {
                limiter: self,
                tokens: n,
                ready_at,
            });
        };
        held.state.waits.refused += 1;
        Err(refused)
    }
}
