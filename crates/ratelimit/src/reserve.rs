//! Tokens taken ahead of their time.

use std::fmt;
use std::time::Duration;

use overdrive_core::{Clock, Deadline, Timestamp};

use crate::error::WaitError;
use crate::gcra::Arrival;
use crate::limiter::{Ahead, RateLimiter};
use crate::tsc::TscClock;
use crate::wait::wake;

/// Tokens that are the caller's from a certain moment on, from [`RateLimiter::reserve`].
///
/// Dropping it changes nothing: the tokens are used. [`cancel`](Self::cancel) gives them back.
#[must_use = "says when the tokens may be used; `cancel` gives them back"]
pub struct Reservation<'l, C: Clock = TscClock> {
    limiter: &'l RateLimiter<C>,
    tokens: u64,
    ready_at: Timestamp,
    made: Made,
}

/// What it takes to undo a reservation.
#[derive(Clone, Copy, Debug)]
struct Made {
    /// The cell's time after it, what had been given back by then, and the number of the quota.
    arrival: Arrival,
    lowered: u64,
    changes: u64,
    /// What was reserved before it.
    ahead: Ahead,
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

    /// Gives them back, for others to take: how many. As many as were taken since, reserved or used,
    /// are not given back: that was given its moment behind these tokens, keeps it, and would come on
    /// top of them. None are once the quota was changed.
    pub fn cancel(self) -> u64 {
        let (inner, made) = (&self.limiter.inner, self.made);
        let now = inner.clock.now();
        let mut held = inner.hold();
        if held.state.changes != made.changes || self.tokens == 0 {
            return 0;
        }
        let cost = held.state.gcra.cost;
        let lowered = held.state.lowered.wrapping_sub(made.lowered);
        let since = held
            .arrival
            .saturating_add(lowered)
            .saturating_sub(made.arrival);
        let own = self.tokens.saturating_mul(cost);
        // Whole tokens.
        let back = own.saturating_sub(since) / cost * cost;
        let back = held.give_back(back, now);
        if since > 0 {
            held.state.lowered = held.state.lowered.wrapping_add(back);
        } else {
            // The last of all: as if it had not been.
            held.state.ahead = made.ahead;
        }
        let arrival = held.arrival;
        let ahead = &mut held.state.ahead.arrival;
        *ahead = arrival.min(*ahead);
        let tokens = back / cost;
        held.state.waits.refunded = held.state.waits.refunded.saturating_add(tokens);
        let first = held.state.queue.first();
        drop(held);
        if let Some(first) = first {
            wake(first);
        }
        tokens
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
    /// Takes `n` tokens, if need be before they are there: from the moment that it says, rounded up to
    /// a nanosecond, they may be used. For a caller with a schedule of its own; [`wait`](Self::wait) waits. The deadline
    /// is one of the limiter's clock; a [`Duration`] counts from now in real time.
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
        let now = self.inner.clock.now();
        let deadline = self.inner.deadline(deadline.into(), now);
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
            let ahead = held.state.ahead;
            held.arrival = gcra.charge(held.arrival, now, n);
            if n > 0 && !delay.is_zero() {
                held.state.ahead = Ahead {
                    arrival: held.arrival,
                    until: ready_at.max(ahead.until),
                };
            }
            let made = Made {
                arrival: held.arrival,
                lowered: held.state.lowered,
                changes: held.state.changes,
                ahead,
            };
            drop(held);
            self.inner.count_allowed(n);
            return Ok(Reservation {
                limiter: self,
                tokens: n,
                ready_at,
                made,
            });
        };
        held.state.waits.refused += 1;
        Err(refused)
    }
}
