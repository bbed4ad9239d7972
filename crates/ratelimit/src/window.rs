//! Limits on what happens within a window that moves with the time.
//!
//! A [`RateLimiter`](crate::RateLimiter) allows a burst and the rate on top, up to twice as much as a
//! period's tokens within one period. Where a contract says "no more than so many within any hour",
//! that is too much.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::error::{CheckError, Denied};
use crate::quota::MAX_PERIOD;
use crate::tsc::TscClock;

/// The most that a [`SlidingLog`] can allow within its window.
pub const MAX_LOGGED: u64 = 1 << 24;

fn validate(limit: u64, most: u64, window: Duration) -> Result<u64, ConfigError> {
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    if limit == 0 {
        return Err(ConfigError::Zero { field: "limit" });
    }
    if limit > most {
        let (field, value, max) = ("limit", limit, most);
        return Err(ConfigError::TooLarge { field, value, max });
    }
    if nanos == 0 {
        return Err(ConfigError::Zero { field: "window" });
    }
    if window > MAX_PERIOD {
        return Err(ConfigError::TooLarge {
            field: "window",
            value: nanos,
            max: u64::try_from(MAX_PERIOD.as_nanos()).unwrap_or(u64::MAX),
        });
    }
    Ok(nanos)
}

fn denied(nanos: u64) -> CheckError {
    CheckError::Denied(Denied::after(Duration::from_nanos(nanos)))
}

/// Never more than `limit` tokens in any window, exactly: it remembers when each was taken.
///
/// Eight bytes for each token of the limit, once it is used; one lock and a look at the oldest for
/// each check. For small limits that are to be kept to the letter.
///
/// ```
/// use std::time::Duration;
/// use overdrive_ratelimit::SlidingLog;
///
/// let codes = SlidingLog::new(3, Duration::from_secs(3600))?;
/// assert!(codes.check_n(3).is_ok());
/// assert!(codes.check().is_err());
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct SlidingLog<C: Clock = TscClock> {
    limit: u64,
    window: u64,
    clock: C,
    taken: Mutex<VecDeque<u64>>,
}

impl SlidingLog {
    /// So many in any window of that length.
    ///
    /// # Errors
    /// A zero, more than [`MAX_LOGGED`] or [`MAX_PERIOD`].
    pub fn new(limit: u64, window: Duration) -> Result<Self, ConfigError> {
        Self::with_clock(limit, window, TscClock::new())
    }
}

impl<C: Clock> SlidingLog<C> {
    /// [`new`](SlidingLog::new) on another clock.
    ///
    /// # Errors
    /// As of [`new`](SlidingLog::new).
    pub fn with_clock(limit: u64, window: Duration, clock: C) -> Result<Self, ConfigError> {
        Ok(Self {
            limit,
            window: validate(limit, MAX_LOGGED, window)?,
            clock,
            taken: Mutex::default(),
        })
    }

    /// Takes one token, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    pub fn check(&self) -> Result<(), Denied> {
        self.check_n(1)
            .map_err(|error| Denied::after(error.retry_after().unwrap_or_default()))
    }

    /// Takes `n` tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
        self.check_n_at(n).map(drop)
    }

    /// Whether [`check_n`](Self::check_n) would be allowed now. Takes nothing.
    ///
    /// # Errors
    /// As of [`check_n`](Self::check_n).
    pub fn peek(&self, n: u64) -> Result<(), CheckError> {
        let now = self.clock.now();
        self.look(&mut self.lock(), now, n)
    }

    /// Takes back `n` of the tokens that are still in the window: the oldest of them count no more,
    /// whichever were not used, so that no window ever holds more than the limit.
    pub fn refund(&self, n: u64) {
        let now = self.clock.now();
        let mut taken = self.lock();
        self.forget(&mut taken, now);
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(taken.len());
        taken.drain(..n);
    }

    /// Takes back `n` tokens of that moment.
    pub(crate) fn refund_at(&self, n: u64, at: u64) {
        let mut taken = self.lock();
        let (from, to) = (
            taken.partition_point(|stamp| *stamp < at),
            taken.partition_point(|stamp| *stamp <= at),
        );
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(to - from);
        taken.drain(from..from + n);
    }

    /// [`check_n`](Self::check_n), with the moment that the tokens count as of.
    pub(crate) fn check_n_at(&self, n: u64) -> Result<u64, CheckError> {
        let now = self.clock.now();
        let mut taken = self.lock();
        self.look(&mut taken, now, n)?;
        // A clock that went back: as of the latest.
        let at = taken
            .back()
            .map_or(now.as_nanos(), |last| now.as_nanos().max(*last));
        taken.extend((0..n).map(|_| at));
        Ok(at)
    }

    fn forget(&self, taken: &mut VecDeque<u64>, now: Timestamp) {
        let ends = |at: u64| at.saturating_add(self.window);
        while taken.front().is_some_and(|at| ends(*at) <= now.as_nanos()) {
            taken.pop_front();
        }
    }

    /// Forgets what is out of the window: whether there is room for `n` more.
    fn look(&self, taken: &mut VecDeque<u64>, now: Timestamp, n: u64) -> Result<(), CheckError> {
        let (asked, burst) = (n, self.limit);
        if asked > burst {
            return Err(CheckError::ExceedsBurst { asked, burst });
        }
        self.forget(taken, now);
        let ends = |at: u64| at.saturating_add(self.window);
        let room = self.limit - taken.len() as u64;
        if n <= room {
            return Ok(());
        }
        // Once so many of the oldest are out of the window.
        let last = taken
            .get((n - room - 1) as usize)
            .copied()
            .unwrap_or_default();
        Err(denied(ends(last).saturating_sub(now.as_nanos())))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> fmt::Debug for SlidingLog<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlidingLog")
            .field("limit", &self.limit)
            .field("window", &Duration::from_nanos(self.window))
            .finish_non_exhaustive()
    }
}

/// About `limit` tokens in a window, in a few words of memory: it counts those of the present
/// period, and takes those of the one before as if they had come evenly (the sliding window counter
/// of Cloudflare, 2017).
///
/// **Approximate.** If those of the period before all came at its end, there can be up to twice the
/// limit in one window; never more than the limit within one of its periods. One lock for each
/// check.
///
/// ```
/// use std::time::Duration;
/// use overdrive_ratelimit::SlidingWindow;
///
/// let requests = SlidingWindow::new(10_000, Duration::from_secs(60))?;
/// assert!(requests.check_n(10_000).is_ok());
/// assert!(requests.check().is_err());
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct SlidingWindow<C: Clock = TscClock> {
    limit: u64,
    window: u64,
    clock: C,
    counted: Mutex<Counted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    period: u64,
    now: u64,
    before: u64,
}

impl SlidingWindow {
    /// About so many in a window of that length.
    ///
    /// # Errors
    /// A zero, more than [`MAX_TOKENS`](crate::MAX_TOKENS) or [`MAX_PERIOD`].
    pub fn new(limit: u64, window: Duration) -> Result<Self, ConfigError> {
        Self::with_clock(limit, window, TscClock::new())
    }
}

impl<C: Clock> SlidingWindow<C> {
    /// [`new`](SlidingWindow::new) on another clock.
    ///
    /// # Errors
    /// As of [`new`](SlidingWindow::new).
    pub fn with_clock(limit: u64, window: Duration, clock: C) -> Result<Self, ConfigError> {
        Ok(Self {
            limit,
            window: validate(limit, crate::MAX_TOKENS, window)?,
            clock,
            counted: Mutex::default(),
        })
    }

    /// Takes one token, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    pub fn check(&self) -> Result<(), Denied> {
        self.check_n(1)
            .map_err(|error| Denied::after(error.retry_after().unwrap_or_default()))
    }

    /// Takes `n` tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
        let now = self.clock.now();
        let mut counted = self.lock();
        self.look(&mut counted, now, n)?;
        counted.now += n;
        Ok(())
    }

    /// Whether [`check_n`](Self::check_n) would be allowed now. Takes nothing.
    ///
    /// # Errors
    /// As of [`check_n`](Self::check_n).
    pub fn peek(&self, n: u64) -> Result<(), CheckError> {
        let now = self.clock.now();
        self.look(&mut self.lock(), now, n)
    }

    /// Takes back `n` of the tokens of the present period.
    pub fn refund(&self, n: u64) {
        let mut counted = self.lock();
        counted.now = counted.now.saturating_sub(n);
    }

    fn look(&self, counted: &mut Counted, now: Timestamp, n: u64) -> Result<(), CheckError> {
        let (asked, burst) = (n, self.limit);
        if asked > burst {
            return Err(CheckError::ExceedsBurst { asked, burst });
        }
        // A clock that went back stays in the latest period, at its start.
        let period = (now.as_nanos() / self.window).max(counted.period);
        match period - counted.period {
            0 => {}
            1 => (counted.before, counted.now) = (counted.now, 0),
            _ => (counted.before, counted.now) = (0, 0),
        }
        counted.period = period;
        let into = now.as_nanos().saturating_sub(period * self.window);
        let room = self.limit.saturating_sub(counted.now);
        if n == 0 || self.weight(counted.before, into) + u128::from(n) <= u128::from(room) {
            return Ok(());
        }
        Err(denied(self.wait(*counted, n) - into))
    }

    /// What those of the period before still count for, rounded up.
    fn weight(&self, before: u64, into: u64) -> u128 {
        let left = u128::from(self.window - into.min(self.window));
        (u128::from(before) * left).div_ceil(u128::from(self.window))
    }

    /// How long after the start of the period there is room for `n`.
    fn wait(&self, counted: Counted, n: u64) -> u64 {
        let after = |before: u64, room: u64| {
            // The weight is `before * left / window`, and must come down to the room.
            let left = u128::from(room) * u128::from(self.window) / u128::from(before.max(1));
            self.window - u64::try_from(left).unwrap_or(u64::MAX).min(self.window)
        };
        match self.limit.saturating_sub(counted.now).checked_sub(n) {
            Some(room) => after(counted.before, room),
            // Not in this period: those of it count as those before then.
            None => self.window + after(counted.now, self.limit - n),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> fmt::Debug for SlidingWindow<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlidingWindow")
            .field("limit", &self.limit)
            .field("window", &Duration::from_nanos(self.window))
            .finish_non_exhaustive()
    }
}
