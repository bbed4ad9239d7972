//! Waiting for tokens, in the order of arrival.
//!
//! Only the first of those who wait has a timer for its turn; the others are told when they become
//! first, and have one for their deadline, if they gave one.
//! A token is taken when it is granted and not before, so one who gives up has nothing to give
//! back.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use overdrive_core::park::Parker;
use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Deadline, Timestamp};

use crate::cell::Answer;
use crate::error::WaitError;
use crate::fifo::Fifo;
use crate::gcra::{Arrival, Gcra};
use crate::limiter::{Held, RateLimiter};

/// How late a timer may be without its lateness costing throughput: a grant counts as of when it
/// was due, but as of no longer ago than this. Timers of async runtimes tick in milliseconds.
pub const TIMER_SLACK: Duration = Duration::from_millis(5);

/// Those who wait, first come first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: Fifo<Waiter>,
    /// What was decided about those whom a change of quota turned away.
    turned_away: BTreeMap<u64, (WaitError, Option<Waker>)>,
    tokens: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    tokens: u64,
    since: Timestamp,
    deadline: Deadline,
    /// None once it was woken, until it looks again.
    waker: Option<Waker>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// What all of them wait for.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    fn push(&mut self, tokens: u64, since: Timestamp, deadline: Deadline, waker: Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        // At most 2^40 each, and 2^23 of them.
        self.tokens += tokens;
        let waiter = Waiter {
            tokens,
            since,
            deadline,
            waker: Some(waker),
        };
        self.waiters.push(id, waiter);
        id
    }

    fn is_first(&self, id: u64) -> bool {
        self.waiters.first().is_some_and(|(first, _)| first == id)
    }

    /// The waker of the first, for it to look again.
    pub(crate) fn first(&mut self) -> Option<Waker> {
        self.waiters.first_mut()?.waker.take()
    }

    /// The wakers of all, for them to look again; of those turned away too.
    pub(crate) fn wakers(&mut self) -> Vec<Waker> {
        let turned_away = self.turned_away.values_mut();
        let turned_away = turned_away.filter_map(|(_, waker)| waker.take());
        let waiting = self.waiters.iter_mut();
        let waiting = waiting.filter_map(|(_, waiter)| waiter.waker.take());
        turned_away.chain(waiting).collect()
    }

    /// Turns away all who cannot have their tokens in time by this quota: how many.
    pub(crate) fn judge(&mut self, gcra: &Gcra, arrival: Arrival, now: Timestamp) -> u64 {
        let mut ahead = 0;
        let mut refused = Vec::new();
        for (id, waiter) in self.waiters.iter_mut() {
            let (asked, burst) = (waiter.tokens, gcra.burst);
            let needed = gcra.delay(arrival, now, ahead, asked);
            if asked > burst {
                refused.push((id, WaitError::ExceedsBurst { asked, burst }));
            } else if now.saturating_add(needed) > waiter.deadline.moment() {
                refused.push((id, WaitError::DeadlineExceeded { needed }));
            } else {
                ahead += asked;
            }
        }
        let n = refused.len() as u64;
        for (id, error) in refused {
            if let Some(waiter) = self.waiters.remove(id) {
                self.tokens -= waiter.tokens;
                self.turned_away.insert(id, (error, waiter.waker));
            }
        }
        n
    }

    /// Keeps the newest waker: the old one.
    fn replace_waker(&mut self, id: u64, waker: Waker) -> Option<Waker> {
        match self.waiters.get_mut(id) {
            Some(waiter) => waiter.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Takes one out: it, and the waker of whoever became first by that.
    fn remove(&mut self, id: u64) -> Option<(Waiter, Option<Waker>)> {
        let was_first = self.is_first(id);
        let waiter = self.waiters.remove(id)?;
        self.tokens -= waiter.tokens;
        let next = if was_first { self.first() } else { None };
        Some((waiter, next))
    }
}

/// One wait: a state machine that is stepped by a future or by a blocked thread.
#[derive(Debug)]
pub(crate) struct Turn<'l, C: Clock> {
    limiter: &'l RateLimiter<C>,
    tokens: u64,
    deadline: Deadline,
    /// While it is in the queue.
    id: Option<u64>,
    over: bool,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The wait is over.
    Done(Result<(), WaitError>),
    /// First in the queue: step again after that, or when woken.
    First(Duration),
    /// Not first: step again when woken, or after that, when its time is up.
    Behind(Duration),
}

impl<'l, C: Clock> Turn<'l, C> {
    pub(crate) fn new(limiter: &'l RateLimiter<C>, tokens: u64, deadline: Deadline) -> Self {
        Self {
            limiter,
            tokens,
            deadline,
            id: None,
            over: false,
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn limiter(&self) -> &'l RateLimiter<C> {
        self.limiter
    }

    pub(crate) fn step(&mut self, waker: &Waker) -> Step {
        assert!(
            !self.over,
            "a wait for tokens was polled after it was ready"
        );
        let step = self.try_step(waker);
        self.over = matches!(step, Step::Done(_));
        step
    }

    fn try_step(&mut self, waker: &Waker) -> Step {
        // Clocks and wakers are code of others: read and cloned before the lock, dropped and
        // woken after it.
        if self.tokens == 0 && self.id.is_none() {
            return self.allowed_at_once();
        }
        let now = self.limiter.inner.clock.now();
        if self.id.is_none() {
            if let Ok(Answer::Allowed) = self.limiter.inner.cell.check(now, self.tokens) {
                return self.allowed_at_once();
            }
        }
        let waker = waker.clone();
        let mut held = self.limiter.inner.hold();
        let (step, outside) = match self.id {
            None => self.enter(&mut held, now, waker),
            Some(id) => self.look(id, &mut held, now, waker),
        };
        drop(held);
        outside.settle();
        step
    }

    /// The first step.
    fn enter(&mut self, held: &mut Held<'_>, now: Timestamp, waker: Waker) -> (Step, Outside) {
        let inner = &self.limiter.inner;
        self.deadline = inner.deadline(self.deadline, now);
        let state = &mut *held.state;
        let gcra = state.gcra;
        let (asked, burst) = (self.tokens, gcra.burst);
        let delay = gcra.delay(held.arrival, now, state.queue.tokens(), asked);
        let refused = if asked > burst {
            WaitError::ExceedsBurst { asked, burst }
        } else if delay.is_zero() && state.queue.is_empty() {
            held.arrival = gcra.charge(held.arrival, now, asked);
            inner.count_allowed(asked);
            return (Step::Done(Ok(())), Outside::spare(waker));
        } else if now.saturating_add(delay) > self.deadline.moment() {
            WaitError::DeadlineExceeded { needed: delay }
        } else if state.queue.len() >= inner.max_waiters {
            let max_waiters = inner.max_waiters;
            WaitError::QueueFull { max_waiters }
        } else {
            let first = state.queue.is_empty();
            self.id = Some(state.queue.push(asked, now, self.deadline, waker));
            let step = if first {
                Step::First(delay)
            } else {
                Step::Behind(self.left(now))
            };
            return (step, Outside::default());
        };
        state.waits.refused += 1;
        (Step::Done(Err(refused)), Outside::spare(waker))
    }

    fn left(&self, now: Timestamp) -> Duration {
        if self.deadline == Deadline::NEVER {
            return Duration::MAX;
        }
        self.deadline.moment().saturating_since(now)
    }

    /// A later step.
    fn look(
        &mut self,
        id: u64,
        held: &mut Held<'_>,
        now: Timestamp,
        waker: Waker,
    ) -> (Step, Outside) {
        let state = &mut *held.state;
        if let Some((error, own)) = state.queue.turned_away.remove(&id) {
            self.id = None;
            let spare = [own, Some(waker)];
            return (Step::Done(Err(error)), Outside { wake: None, spare });
        }
        let gcra = state.gcra;
        let first = state.queue.is_first(id);
        let delay = gcra.delay(held.arrival, now, 0, self.tokens);
        if first && delay.is_zero() {
            let slack = u64::try_from(TIMER_SLACK.as_nanos()).unwrap_or(u64::MAX);
            let oldest = Timestamp::from_nanos(now.as_nanos().saturating_sub(slack));
            let since = state
                .queue
                .waiters
                .first()
                .map_or(now, |(_, own)| own.since);
            held.arrival = gcra.charge(held.arrival, since.max(oldest), self.tokens);
            state.waits.waited += 1;
            self.limiter.inner.count_allowed(self.tokens);
            return (Step::Done(Ok(())), self.leave(held, waker));
        }
        let left = self.left(now);
        if left.is_zero() || (first && delay > left) {
            state.waits.refused += 1;
            let error = WaitError::DeadlineExceeded { needed: delay };
            return (Step::Done(Err(error)), self.leave(held, waker));
        }
        let spare = state.queue.replace_waker(id, waker);
        let step = if first {
            Step::First(delay)
        } else {
            Step::Behind(left)
        };
        (step, Outside::spare(spare))
    }

    /// Leaves the queue.
    fn leave(&mut self, held: &mut Held<'_>, waker: Waker) -> Outside {
        let removed = self.id.take().and_then(|id| held.state.queue.remove(id));
        let (own, next) = removed.map_or((None, None), |(own, next)| (own.waker, next));
        Outside {
            wake: next,
            spare: [own, Some(waker)],
        }
    }

    fn allowed_at_once(&self) -> Step {
        self.limiter.inner.count_allowed(self.tokens);
        Step::Done(Ok(()))
    }
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct Outside {
    wake: Option<Waker>,
    spare: [Option<Waker>; 2],
}

impl Outside {
    fn spare(waker: impl Into<Option<Waker>>) -> Self {
        Self {
            wake: None,
            spare: [waker.into(), None],
        }
    }

    fn settle(self) {
        if let Some(next) = self.wake {
            wake(next);
        }
        drop(self.spare);
    }
}

impl<C: Clock> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        let mut held = self.limiter.inner.hold();
        let told = self
            .id
            .and_then(|id| held.state.queue.turned_away.remove(&id));
        held.state.waits.abandoned += u64::from(told.is_none());
        let outside = self.leave(&mut held, Waker::noop().clone());
        drop(held);
        drop(told);
        outside.settle();
    }
}

impl<C: Clock> RateLimiter<C> {
    /// Blocks the thread until one token is taken.
    ///
    /// # Errors
    /// [`WaitError::QueueFull`].
    ///
    /// ```
    /// use overdrive_ratelimit::{Quota, RateLimiter};
    ///
    /// let limiter = RateLimiter::builder().quota(Quota::per_second(10_000).burst(1)).build()?;
    /// for _ in 0..3 {
    ///     limiter.wait_blocking()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(&self) -> Result<(), WaitError> {
        self.wait_n_blocking(1, Deadline::NEVER)
    }

    /// Blocks the thread until one token is taken, unless it is further away than `timeout` on the
    /// limiter's clock: then it fails at once.
    ///
    /// # Errors
    /// [`WaitError::DeadlineExceeded`], [`WaitError::QueueFull`].
    pub fn wait_timeout_blocking(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait_n_blocking(1, Deadline::after_on(&self.inner.clock, timeout))
    }

    /// Blocks the thread until `n` tokens are taken at once. The deadline is one of the
    /// limiter's clock; a [`Duration`] counts from now in real time.
    ///
    /// # Errors
    /// With nothing taken: [`WaitError::DeadlineExceeded`] if the tokens will not be there by then,
    /// which is known at once unless the quota is changed or those in front do not go;
    /// [`WaitError::ExceedsBurst`], [`WaitError::QueueFull`].
    pub fn wait_n_blocking(&self, n: u64, deadline: impl Into<Deadline>) -> Result<(), WaitError> {
        let (parker, waker) = Parker::new();
        let mut turn = Turn::new(self, n, deadline.into());
        loop {
            match turn.step(&waker) {
                Step::Done(result) => return result,
                Step::First(delay) => parker.park(delay),
                Step::Behind(left) => parker.park(left),
            }
        }
    }
}

/// A waker is code of others: if one panics, the rest go on.
pub(crate) fn wake(waker: Waker) {
    survive(|| waker.wake());
}
