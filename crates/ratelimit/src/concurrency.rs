//! So many at once.
//!
//! # Who may do what
//! 1. `word` holds the number of permits that are out, and two marks: somebody has to be told of
//!    changes ([`LISTENED`]), and the limit is closed.
//! 2. Without a mark, anyone may take a permit by one compare-exchange that finds fewer out than
//!    the limit; where far fewer are, by an addition, which is taken back as by 4 if it was too much
//!    or met a mark.
//! 3. With a mark, permits are taken by the holder of the lock only. So while somebody waits nobody
//!    passes: the mark is set before the last look for a free permit, and taken away with the last
//!    who waits.
//! 4. Whoever gives a permit back and finds [`LISTENED`] takes the lock, and hands out what is free.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::RandomState;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use overdrive_core::unwind::survive;
use overdrive_core::{Clock, ConfigError, TimeBudget, Timestamp};

use crate::counts::Counts;
use crate::lines::{Lines, Outcome};
use crate::stats::ConcurrencyStats;
use crate::sync::{AtomicU64, Mutant, Mutex, MutexGuard, Ordering, removed};
use crate::wait::wake;

/// The highest limit.
pub const MAX_CONCURRENCY: usize = 1 << 40;

/// A limit on how much goes on at the same time: requests in work, open downloads, calls of a
/// service that takes no more.
///
/// Whoever holds a [`Permit`](crate::Permit) may go on; dropping it lets the next one in. Those who
/// wait are served by [`Priority`](overdrive_core::Priority), and within one in the order in which
/// they came. A permit that comes back is handed to the first of them, past everybody who comes
/// later. Clones are handles to the same limit.
///
/// One word, beside the counters, while nobody waits: a permit costs one atomic operation each way.
/// Waiting takes a lock. It needs no runtime: waiting works under any executor, and with
/// [`acquire_blocking`](Self::acquire_blocking) without one.
///
/// ```
/// use overdrive_ratelimit::{ConcurrencyLimit, TryAcquireError};
///
/// let limit = ConcurrencyLimit::builder().limit(2).build()?;
/// let first = limit.try_acquire()?;
/// let second = limit.try_acquire()?;
/// assert_eq!(limit.try_acquire().unwrap_err(), TryAcquireError::Full);
/// drop(first);
/// assert!(limit.try_acquire().is_ok());
/// # drop(second);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ConcurrencyLimit {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    word: Word,
    limit: AtomicU64,
    counts: Counts<2>,
    name: Cow<'static, str>,
    pub(crate) max_waiters: usize,
    pub(crate) budget: Option<TimeBudget>,
    /// Hashes those for whom permits are asked.
    pub(crate) shares: RandomState,
    pub(crate) clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// Alone on its line.
#[repr(align(64))]
struct Word(AtomicU64);

/// Somebody waits for a permit, or for all of them to be back.
const LISTENED: u64 = 1;
const CLOSED: u64 = 2;
/// One permit that is out.
const ONE: u64 = 4;

/// How many permits must be free for one to be taken by an addition: more than threads are at it.
const PLENTY: u64 = if cfg!(overdrive_loom) { 0 } else { 64 };

/// Permits given out without a wait.
const ACQUIRED: usize = 0;
/// Calls that got none, without a wait.
const REFUSED: usize = 1;

pub(crate) struct State {
    pub(crate) lines: Lines,
    next_id: u64,
    /// Those who wait for all permits to be back.
    pub(crate) drains: BTreeMap<u64, Waker>,
    pub(crate) waits: Waits,
}

/// The figures that are kept under the lock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// Permits without a wait.
    pub(crate) acquired: u64,
    /// Permits after a wait.
    pub(crate) granted: u64,
    pub(crate) refused: u64,
    pub(crate) shed: u64,
    pub(crate) abandoned: u64,
}

/// What a word says.
pub(crate) enum Taken {
    Yes,
    Full,
    Closed,
    /// Ask under the lock.
    Listened,
}

impl Inner {
    pub(crate) fn new(
        name: Cow<'static, str>,
        limit: usize,
        max_waiters: usize,
        budget: Option<TimeBudget>,
        clock: Arc<dyn Clock>,
        lines: Lines,
    ) -> Self {
        Self {
            word: Word(AtomicU64::new(0)),
            limit: AtomicU64::new(limit as u64),
            counts: Counts::new(),
            name,
            max_waiters,
            budget,
            shares: RandomState::new(),
            clock,
            state: Mutex::new(State {
                lines,
                next_id: 0,
                drains: BTreeMap::new(),
                waits: Waits::default(),
            }),
        }
    }

    #[inline(always)]
    pub(crate) fn take(&self) -> Taken {
        let word = self.word.0.load(Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        // Where there is plenty, an addition that cannot fail; and taken back if it was too much.
        if word & (CLOSED | LISTENED) == 0 && word / ONE + PLENTY < limit {
            let before = self.word.0.fetch_add(ONE, Ordering::Acquire);
            if before & (CLOSED | LISTENED) == 0 && before / ONE < limit {
                self.counts.add(ACQUIRED, 1);
                return Taken::Yes;
            }
            return self.take_back();
        }
        self.take_exactly(word)
    }

    #[cold]
    fn take_back(&self) -> Taken {
        let before = self.word.0.fetch_sub(ONE, Ordering::AcqRel);
        if before & LISTENED != 0 {
            // It may have been missing to somebody for this moment.
            self.look_again();
            return Taken::Listened;
        }
        self.take_exactly(before - ONE)
    }

    fn take_exactly(&self, mut word: u64) -> Taken {
        loop {
            if word & CLOSED != 0 {
                return Taken::Closed;
            }
            if word & LISTENED != 0 {
                return Taken::Listened;
            }
            if word / ONE >= self.limit.load(Ordering::Relaxed) {
                return Taken::Full;
            }
            match self.exchange(word, word + ONE) {
                Ok(()) => {
                    self.counts.add(ACQUIRED, 1);
                    return Taken::Yes;
                }
                Err(now) => word = now,
            }
        }
    }

    #[inline(always)]
    fn exchange(&self, word: u64, next: u64) -> Result<(), u64> {
        self.word
            .0
            .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }

    /// A permit for somebody who waits, or comes while others do. The lock is held.
    pub(crate) fn take_locked(&self) -> bool {
        let mut word = self.word.0.load(Ordering::Relaxed);
        while word / ONE < self.limit.load(Ordering::Relaxed) {
            match self.exchange(word, word + ONE) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline(always)]
    pub(crate) fn count_refused(&self) {
        self.counts.add(REFUSED, 1);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a user runs under it, so it is consistent even if poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on permits are taken and given back under the lock. It is held.
    pub(crate) fn listen(&self) {
        if !removed(Mutant::LookWithoutMark) {
            self.word.0.fetch_or(LISTENED, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.word.0.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(crate) fn in_flight(&self) -> usize {
        let out = self.word.0.load(Ordering::Acquire) / ONE;
        usize::try_from(out).unwrap_or(usize::MAX)
    }

    /// Hands out what is free, takes the mark away if nobody listens any more, and wakes whom that
    /// concerns, once the lock is released. `now` if it was read before.
    pub(crate) fn settle<'l>(&'l self, state: MutexGuard<'l, State>, now: Option<Timestamp>) {
        let mut state = state;
        let mut now = now;
        // Without deadlines and shedding nobody looks at the clock; and it is code of others, so not
        // under the lock.
        if now.is_none() && !state.lines.is_empty() && state.lines.watch_time() {
            drop(state);
            survive(|| now = Some(self.clock.now()));
            state = self.lock();
        }
        let wakers = self.hand_out(&mut state, now.unwrap_or(Timestamp::ZERO));
        drop(state);
        wakers.into_iter().for_each(wake);
    }

    fn hand_out(&self, state: &mut State, now: Timestamp) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !state.lines.is_empty() {
            loop {
                while let Some((outcome, waker)) = state.lines.turn_away(now) {
                    match outcome {
                        Outcome::Shed => state.waits.shed += 1,
                        _ => state.waits.refused += 1,
                    }
                    wakers.extend(waker);
                }
                if state.lines.is_empty() || !self.take_locked() {
                    break;
                }
                state.waits.granted += 1;
                wakers.extend(state.lines.grant());
            }
            if state.lines.is_empty() {
                state.lines.emptied(now);
            }
        }
        if self.is_idle(state) {
            wakers.extend(mem::take(&mut state.drains).into_values());
        }
        if state.lines.is_empty() && state.drains.is_empty() {
            self.word.0.fetch_and(!LISTENED, Ordering::AcqRel);
        }
        wakers
    }

    /// Hands out what is free to those who wait.
    #[cold]
    pub(crate) fn look_again(&self) {
        self.settle(self.lock(), None);
    }

    /// Nobody has a permit or waits for one.
    pub(crate) fn is_idle(&self, state: &State) -> bool {
        state.lines.is_empty() && self.in_flight() == 0
    }
}

impl ConcurrencyLimit {
    /// Gives out no more permits: those who wait get
    /// [`AcquireError::Closed`](crate::AcquireError::Closed). Permits that are out stay good.
    pub fn close(&self) {
        let inner = &*self.inner;
        let mut state = inner.lock();
        inner.word.0.fetch_or(CLOSED, Ordering::AcqRel);
        let wakers = state.lines.close();
        state.waits.refused += wakers.len() as u64;
        inner.settle(state, None);
        wakers.into_iter().flatten().for_each(wake);
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// The number of permits there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        usize::try_from(self.inner.limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Sets another number of permits. Those that are out beyond it stay good, and none is given out
    /// until enough have come back. Zero lets nobody in until there is another limit.
    ///
    /// # Errors
    /// More than [`MAX_CONCURRENCY`].
    pub fn set_limit(&self, permits: usize) -> Result<(), ConfigError> {
        self.store_limit(ConfigError::at_most("limit", permits, MAX_CONCURRENCY)?);
        self.inner.look_again();
        Ok(())
    }

    /// Without a look at those who wait: that is [`Inner::look_again`].
    pub(crate) fn store_limit(&self, permits: usize) {
        self.inner.limit.store(permits as u64, Ordering::Relaxed);
    }

    /// The number of permits that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> ConcurrencyStats {
        let state = self.inner.lock();
        let (waits, counts) = (state.waits, &self.inner.counts);
        let in_flight = self.inner.in_flight();
        let acquired = counts.sum(ACQUIRED) + waits.acquired + waits.granted;
        ConcurrencyStats {
            acquired,
            waited: waits.granted,
            released: acquired.saturating_sub(in_flight as u64),
            refused: counts.sum(REFUSED) + waits.refused,
            shed: waits.shed,
            abandoned_waits: waits.abandoned,
            in_flight,
            waiting: state.lines.len(),
        }
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A permit comes back.
    #[inline(always)]
    pub(crate) fn release(&self) {
        let before = self.inner.word.0.fetch_sub(ONE, Ordering::AcqRel);
        if before & LISTENED != 0 {
            self.inner.look_again();
        }
    }
}

impl State {
    pub(crate) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("name", &self.name())
            .field("limit", &self.limit())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
