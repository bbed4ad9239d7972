//! One quota for all callers.

mod inner;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::{Clock, ConfigError, Timestamp};

use self::inner::{ALLOWED, DENIED, MORE};
use crate::cell::{Answer, Busy};
use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::quota::{Carry, Quota};
use crate::stats::LimiterStats;
use crate::tsc::TscClock;

pub(crate) use self::inner::{Ahead, Held, Inner};

/// A rate limiter: a [`Quota`] shared by all who ask.
///
/// [`check`](Self::check) answers at once, [`wait`](Self::wait) when the answer is yes. Those
/// who wait are served in the order in which they came, and a check does not take what they wait
/// for. Clones are handles to the same limiter.
///
/// GCRA in one word: a check costs a reading of the clock and, if it is allowed, one
/// compare-exchange; a denial writes nothing that is shared, but that one of a millisecond or more is
/// remembered for those who ask meanwhile. (Beside the word there are counters, a line of 64 bytes for
/// each of twice as many threads as the machine has cores, 64 at most.) While somebody waits, and during
/// [`refund`](Self::refund), [`reserve`](Self::reserve) and [`set_quota`](Self::set_quota), checks
/// take a lock. Nothing is allocated but a place in the queue for those who wait.
///
/// In no window of length `t` it gives out more than `burst + rate * t` tokens, and it gives a token
/// at most 4 ns, or 2^-17 of a token, after it was earned. (By the clock: a thread may be kept
/// from running between its reading and its answer. A refund counts as tokens less when it is made,
/// and a wait as of when it was due, [`TIMER_SLACK`](crate::TIMER_SLACK) ago at most.)
///
/// ```
/// use overdrive_ratelimit::{Quota, RateLimiter};
///
/// let limiter = RateLimiter::builder().quota(Quota::per_hour(2)).build()?;
/// assert!(limiter.check().is_ok());
/// assert!(limiter.check().is_ok());
/// let denied = limiter.check().unwrap_err();
/// assert!(denied.retry_after.as_secs() > 1700);
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct RateLimiter<C: Clock = TscClock> {
    pub(crate) inner: Arc<Inner<C>>,
}

impl<C: Clock> RateLimiter<C> {
    /// Takes one token, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    // Inlined so that a caller who does not look at the time to retry does not pay for it.
    #[inline(always)]
    pub fn check(&self) -> Result<(), Denied> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let denied_for = inner.cell.denied_for(now);
        if denied_for > 0 {
            inner.count_denied();
            return Err(Denied::after(Duration::from_nanos(denied_for)));
        }
        match inner.cell.check(now, 1) {
            Ok(Answer::Allowed) => {
                inner.count_allowed(1);
                Ok(())
            }
            Ok(Answer::Denied(gcra, arrival)) => {
                inner.count_denied();
                // That long it is worth a lock.
                if gcra.is_far(arrival, now) {
                    self.remember_denial(now);
                }
                let retry_after = gcra.delay(arrival, now, 0, 1);
                Err(Denied::after(retry_after))
            }
            // A burst is at least one.
            Ok(Answer::ExceedsBurst(_)) | Err(Busy) => self.check_held(now, 1),
        }
    }

    /// Takes `n` tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    #[inline(always)]
    pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
        let inner = &*self.inner;
        if n == 0 {
            inner.count_allowed(0);
            return Ok(());
        }
        let now = inner.clock.now();
        match inner.cell.check(now, n) {
            Ok(Answer::Allowed) => {
                inner.count_allowed(n);
                Ok(())
            }
            Ok(Answer::Denied(gcra, arrival)) => {
                inner.count_denied();
                let retry_after = gcra.delay(arrival, now, 0, n);
                Err(CheckError::Denied(Denied::after(retry_after)))
            }
            Ok(Answer::ExceedsBurst(burst)) => {
                inner.count_denied();
                Err(CheckError::ExceedsBurst { asked: n, burst })
            }
            Err(Busy) => self.check_n_held(now, n),
        }
    }

    /// Checks that come until then need not look at the quota.
    #[cold]
    fn remember_denial(&self, now: Timestamp) {
        if let Ok(state) = self.inner.state.try_lock() {
            // While somebody waits the cell is taken.
            if state.kept.is_none() {
                self.inner.cell.remember_denial(now);
            }
        }
    }

    /// As [`check_n`](Self::check_n) while the cell is taken: behind those who wait.
    #[cold]
    fn check_n_held(&self, now: Timestamp, n: u64) -> Result<(), CheckError> {
        let mut held = self.inner.hold();
        let gcra = held.state.gcra;
        let answer = if n > gcra.burst {
            let (asked, burst) = (n, gcra.burst);
            Err(CheckError::ExceedsBurst { asked, burst })
        } else {
            let reserved = held.state.queue.tokens();
            let retry_after = gcra.delay(held.arrival, now, reserved, n);
            if retry_after.is_zero() {
                held.arrival = gcra.charge(held.arrival, now, n);
                Ok(())
            } else {
                Err(CheckError::Denied(Denied::after(retry_after)))
            }
        };
        drop(held);
        match answer {
            Ok(()) => self.inner.count_allowed(n),
            Err(_) => self.inner.count_denied(),
        }
        answer
    }

    #[cold]
    fn check_held(&self, now: Timestamp, n: u64) -> Result<(), Denied> {
        self.check_n_held(now, n)
            .map_err(|error| Denied::after(error.retry_after().unwrap_or(Duration::MAX)))
    }

    /// Takes as many tokens as are there now, `n` at most: how many. For shaping a flow of bytes.
    pub fn check_up_to(&self, n: u64) -> u64 {
        let now = self.inner.clock.now();
        let taken = self.take_up_to(now, n, 1);
        match taken {
            0 if n > 0 => self.inner.count_denied(),
            _ => self.inner.count_allowed(taken),
        }
        taken
    }

    /// See [`SharedCell::check_up_to`]. Not counted.
    pub(crate) fn take_up_to(&self, now: Timestamp, n: u64, share: u64) -> u64 {
        if let Ok(taken) = self.inner.cell.check_up_to(now, n, share) {
            return taken;
        }
        let mut held = self.inner.hold();
        let gcra = held.state.gcra;
        let reserved = held.state.queue.tokens();
        let there = gcra.remaining(held.arrival, now).saturating_sub(reserved);
        let taken = n.min((there / share).max(1)).min(there);
        held.arrival = gcra.charge(held.arrival, now, taken);
        taken
    }

    /// Whether [`check_n`](Self::check_n) would be allowed now. Takes nothing and counts nothing.
    ///
    /// # Errors
    /// As of [`check_n`](Self::check_n).
    pub fn peek(&self, n: u64) -> Result<(), CheckError> {
        let now = self.inner.clock.now();
        let (gcra, arrival, reserved) = self.look();
        if n > gcra.burst {
            let (asked, burst) = (n, gcra.burst);
            return Err(CheckError::ExceedsBurst { asked, burst });
        }
        let retry_after = gcra.delay(arrival, now, reserved, n);
        if n == 0 || retry_after.is_zero() {
            return Ok(());
        }
        Err(CheckError::Denied(Denied::after(retry_after)))
    }

    /// Gives back `n` tokens of those that were taken, for work that was not done after all. What
    /// exceeds the burst is lost, so it never makes for more than a full one; and so is, while tokens
    /// are [reserved](Self::reserve) ahead of their time, what was taken before them, which would
    /// come on top of them.
    ///
    /// Giving back what was never taken allows as much more.
    pub fn refund(&self, n: u64) {
        let now = self.inner.clock.now();
        let mut held = self.inner.hold();
        let mut units = n.saturating_mul(held.state.gcra.cost);
        if now < held.state.ahead.until {
            units = units.min(held.arrival.saturating_sub(held.state.ahead.arrival));
        }
        let back = held.give_back(units, now);
        held.state.lowered = held.state.lowered.wrapping_add(back);
        held.state.waits.refunded = held.state.waits.refunded.saturating_add(n);
        let first = held.state.queue.first();
        drop(held);
        // Its tokens may be there before its timer rings.
        if let Some(first) = first {
            crate::wait::wake(first);
        }
    }

    /// Sets another quota, for those who wait too: who cannot have its tokens by its deadline any
    /// more, or never, is told at once. `carry` says what becomes of the tokens that are there.
    ///
    /// # Errors
    /// As of [`build`](crate::RateLimiterBuilder::build), or a burst that is too small for what
    /// threads hold of a [`LeasedLimiter`](crate::LeasedLimiter): then nothing is changed.
    ///
    /// ```
    /// use overdrive_ratelimit::{Carry, Quota, RateLimiter};
    ///
    /// let limiter = RateLimiter::builder().quota(Quota::per_hour(100)).build()?;
    /// limiter.check_n(60)?;
    /// limiter.set_quota(Quota::per_hour(10), Carry::Proportional)?;
    /// assert_eq!(limiter.snapshot().remaining, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_quota(&self, quota: Quota, carry: Carry) -> Result<(), ConfigError> {
        let quota = quota.validate()?;
        let now = self.inner.clock.now();
        let mut held = self.inner.hold();
        let leased = held.state.leased;
        if quota.burst / 2 < leased {
            return Err(ConfigError::TooSmall {
                field: "burst",
                value: quota.burst,
                min: 2 * leased,
            });
        }
        let next = Gcra::new(quota).less(leased);
        let before = held.state.gcra;
        let shown = held.state.highest.max(held.arrival);
        let next = self.inner.cell.change(&before, shown, &next, now);
        let ahead = now < held.state.ahead.until;
        held.arrival = carry.apply(&before, held.arrival, &next, now, ahead);
        let state = &mut *held.state;
        state.highest = held.arrival;
        state.gcra = next;
        state.quota = quota;
        // What was reserved ahead of its time still is.
        state.ahead.arrival = held.arrival;
        state.changes += 1;
        state.lowered = 0;
        state.waits.refused += state.queue.judge(&next, held.arrival, now);
        let wakers = state.queue.wakers();
        drop(held);
        wakers.into_iter().for_each(crate::wait::wake);
        Ok(())
    }

    /// What a check would find now, without taking anything. What is kept for those who wait
    /// counts as taken.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.inner.clock.now();
        let (gcra, arrival, reserved) = self.look();
        snapshot(&gcra, gcra.charge(arrival, now, reserved), now)
    }

    /// The cell without taking it, and the tokens of those who wait.
    fn look(&self) -> (Gcra, Arrival, u64) {
        if let Ok((gcra, arrival)) = self.inner.cell.look() {
            return (gcra, arrival, 0);
        }
        let held = self.inner.hold();
        (held.state.gcra, held.arrival, held.state.queue.tokens())
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let state = self.inner.lock();
        let counts = &self.inner.counts;
        let allowed = counts.sum(ALLOWED);
        LimiterStats {
            allowed,
            tokens: allowed.wrapping_add(counts.sum(MORE)),
            denied: counts.sum(DENIED),
            refunded: state.waits.refunded,
            waited: state.waits.waited,
            refused_waits: state.waits.refused,
            abandoned_waits: state.waits.abandoned,
            waiting: state.queue.len(),
        }
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The quota of now.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.inner.lock().quota
    }
}

pub(crate) fn snapshot(gcra: &Gcra, arrival: Arrival, now: Timestamp) -> Snapshot {
    Snapshot {
        limit: gcra.burst,
        remaining: gcra.remaining(arrival, now),
        retry_after: gcra.delay(arrival, now, 0, 1),
        reset_after: gcra.reset_after(arrival, now),
    }
}

impl<C: Clock> Clone for RateLimiter<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C: Clock> fmt::Debug for RateLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("name", &self.name())
            .field("quota", &self.quota())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a limiter would answer at one moment: the figures of HTTP's `RateLimit` header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The most tokens that can be had at once.
    pub limit: u64,
    /// The tokens that are there now.
    pub remaining: u64,
    /// How long until there is one; zero if there is.
    pub retry_after: Duration,
    /// How long until all are there, if nobody takes any.
    pub reset_after: Duration,
}
