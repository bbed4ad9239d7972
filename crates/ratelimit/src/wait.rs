//! Waiting for tokens, in the order of arrival.
//!
//! Only the first of those who wait has a timer; the others are told when they become first.
//! A token is taken when it is granted and not before, so one who gives up has nothing to give
//! back.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;
use std::time::Duration;

use overdrive_core::park::Parker;
use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Deadline, Timestamp};

use crate::error::WaitError;
use crate::limiter::{RateLimiter, State};

/// How late a timer may be without its lateness costing throughput: a grant counts as of when it
/// was due, but as of no longer ago than this. Timers of async runtimes tick in milliseconds.
pub const TIMER_SLACK: Duration = Duration::from_millis(5);

/// Those who wait, first come first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: VecDeque<Waiter>,
    tokens: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    tokens: u64,
    since: Timestamp,
    waker: Waker,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// What all of them wait for.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    fn push(&mut self, tokens: u64, since: Timestamp, waker: Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        // At most 2^40 each, and 2^23 of them.
        self.tokens += tokens;
        self.waiters.push_back(Waiter {
            id,
            tokens,
            since,
            waker,
        });
        id
    }

    /// Takes one out: it, and the waker of whoever became first by that.
    fn remove(&mut self, id: u64) -> Option<(Waiter, Option<Waker>)> {
        let at = self.waiters.binary_search_by_key(&id, |w| w.id).ok()?;
        let waiter = self.waiters.remove(at)?;
        self.tokens -= waiter.tokens;
        let next = self.waiters.front().filter(|_| at == 0);
        Some((waiter, next.map(|next| next.waker.clone())))
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
    /// Not first: step again when woken.
    Behind,
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
        let now = self.limiter.inner.clock.now();
        let waker = waker.clone();
        let mut state = self.limiter.inner.lock();
        match self.id {
            None => match self.enter(&mut state, now, waker) {
                Ok(step) => step,
                Err((step, spare)) => {
                    drop(state);
                    drop(spare);
                    step
                }
            },
            Some(id) => {
                let (step, outside) = self.look(id, &mut state, now, waker);
                drop(state);
                outside.settle();
                step
            }
        }
    }

    /// The first step. Gives the waker back where it is not kept.
    fn enter(
        &mut self,
        state: &mut State,
        now: Timestamp,
        waker: Waker,
    ) -> Result<Step, (Step, Waker)> {
        let inner = &self.limiter.inner;
        let (asked, burst) = (self.tokens, inner.gcra.burst());
        let delay = inner
            .gcra
            .delay(state.cell, now, state.queue.tokens(), asked);
        let refused = if asked > burst {
            WaitError::ExceedsBurst { asked, burst }
        } else if asked == 0 || (delay.is_zero() && state.queue.len() == 0) {
            state.cell = inner.gcra.charge(state.cell, now, asked);
            state.stats.allowed += 1;
            state.stats.took(asked);
            return Err((Step::Done(Ok(())), waker));
        } else if now.saturating_add(delay) > self.deadline.moment() {
            WaitError::DeadlineExceeded { needed: delay }
        } else if state.queue.len() >= inner.max_waiters {
            let max_waiters = inner.max_waiters;
            WaitError::QueueFull { max_waiters }
        } else {
            let first = state.queue.len() == 0;
            self.id = Some(state.queue.push(asked, now, waker));
            return Ok(if first {
                Step::First(delay)
            } else {
                Step::Behind
            });
        };
        state.stats.refused_waits += 1;
        Err((Step::Done(Err(refused)), waker))
    }

    /// A later step.
    fn look(
        &mut self,
        id: u64,
        state: &mut State,
        now: Timestamp,
        waker: Waker,
    ) -> (Step, Outside) {
        let inner = &self.limiter.inner;
        let first = state.queue.waiters.front().is_some_and(|w| w.id == id);
        if first {
            let delay = inner.gcra.delay(state.cell, now, 0, self.tokens);
            if delay.is_zero() {
                self.id = None;
                let Some((waiter, next)) = state.queue.remove(id) else {
                    unreachable!("the first of the queue is in it");
                };
                let slack = u64::try_from(TIMER_SLACK.as_nanos()).unwrap_or(u64::MAX);
                let oldest = Timestamp::from_nanos(now.as_nanos().saturating_sub(slack));
                let since = waiter.since.max(oldest);
                state.cell = inner.gcra.charge(state.cell, since, self.tokens);
                state.stats.allowed += 1;
                state.stats.took(self.tokens);
                state.stats.waited += 1;
                return (
                    Step::Done(Ok(())),
                    Outside {
                        wake: next,
                        spare: [Some(waiter.waker), Some(waker)],
                    },
                );
            }
            let spare = state.queue.replace_waker(id, waker);
            return (Step::First(delay), Outside::spare(spare));
        }
        let spare = state.queue.replace_waker(id, waker);
        (Step::Behind, Outside::spare(spare))
    }
}

impl Queue {
    /// Keeps the newest waker: the old one.
    fn replace_waker(&mut self, id: u64, waker: Waker) -> Waker {
        match self.waiters.binary_search_by_key(&id, |w| w.id) {
            Ok(at) => mem::replace(&mut self.waiters[at].waker, waker),
            Err(_) => waker,
        }
    }
}

/// What is left to do once the lock is released.
struct Outside {
    wake: Option<Waker>,
    spare: [Option<Waker>; 2],
}

impl Outside {
    fn spare(waker: Waker) -> Self {
        Self {
            wake: None,
            spare: [Some(waker), None],
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
        let Some(id) = self.id else { return };
        let mut state = self.limiter.inner.lock();
        let removed = state.queue.remove(id);
        state.stats.abandoned_waits += 1;
        drop(state);
        if let Some((_, Some(next))) = removed {
            wake(next);
        }
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
    /// At once, with nothing taken: [`WaitError::DeadlineExceeded`] if the tokens will not be
    /// there by then, [`WaitError::ExceedsBurst`], [`WaitError::QueueFull`].
    pub fn wait_n_blocking(&self, n: u64, deadline: impl Into<Deadline>) -> Result<(), WaitError> {
        let (parker, waker) = Parker::new();
        let mut turn = Turn::new(self, n, deadline.into());
        loop {
            match turn.step(&waker) {
                Step::Done(result) => return result,
                Step::First(delay) => parker.park(delay),
                Step::Behind => parker.park(Duration::MAX),
            }
        }
    }
}

/// A waker is code of others: if one panics, the rest go on.
pub(crate) fn wake(waker: Waker) {
    survive(|| waker.wake());
}
