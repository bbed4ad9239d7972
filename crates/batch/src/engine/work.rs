//! What the engine does for workers.

use std::task::Waker;
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Deadline, Timestamp};

use super::queue::Batch;
use super::{Cause, Next, Outcome, Ready, Shared, State};
use crate::after::{After, drop_each};
use crate::error::SubmitError;
use crate::observe::Origins;
use crate::settings::Gather;
use crate::stats::Reason;
use crate::sync::Ordering;

/// What became of a batch.
pub(crate) enum Verdict<R, E> {
    /// As many as there were items.
    Results(Vec<R>),
    Failed(Cause<E>),
    /// To each item its own; as many as there were.
    Each(Vec<Result<R, Cause<E>>>),
}

impl<R, E> From<Result<Vec<R>, Cause<E>>> for Verdict<R, E> {
    fn from(returned: Result<Vec<R>, Cause<E>>) -> Self {
        match returned {
            Ok(results) => Self::Results(results),
            Err(cause) => Self::Failed(cause),
        }
    }
}

/// Why there is no batch yet: a tick first, or so long.
enum Unripe {
    Tick,
    For(Duration),
}

impl<T, R, E> Shared<T, R, E> {
    /// Whether a worker lets others run before it takes a batch: also one that was called, before it
    /// asks.
    pub(crate) fn ticks(&self) -> bool {
        matches!(self.rules.gather, Gather::Tick | Gather::Adaptive) && self.rules.max_size > 1
    }

    /// `worker` begins, and is woken by `waker` from now on.
    pub(crate) fn enlist(&self, worker: usize, waker: &Waker) {
        self.wakers[worker].get_or_init(|| waker.clone());
    }

    /// What `worker`, which is free, is to do. `after` is used, and as empty as before.
    pub(crate) fn next(&self, worker: usize, ready: Ready, after: &mut After<T, R, E>) -> Next<T> {
        let now = self.time();
        let next = self.decide(&mut self.lock(), worker, ready, now, after);
        after.run(&self.wakers);
        next
    }

    fn decide(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        ready: Ready,
        now: Option<Timestamp>,
        after: &mut After<T, R, E>,
    ) -> Next<T> {
        state.parked[worker] = false;
        loop {
            if state.queue.is_empty() {
                state.resign(worker);
                if state.closed {
                    return Next::Ended;
                }
                state.parked[worker] = true;
                return Next::Park(Duration::MAX);
            }
            if *state.gatherer.get_or_insert(worker) != worker {
                state.parked[worker] = true;
                return Next::Park(Duration::MAX);
            }
            let reason = match self.ripe(state, ready, now) {
                Ok(reason) => reason,
                Err(_) if ready == Ready::Leased => Reason::Idle,
                Err(Unripe::Tick) => return Next::Tick,
                Err(Unripe::For(left)) => {
                    state.parked[worker] = true;
                    return Next::Park(left);
                }
            };
            if self.rules.leases && ready != Ready::Leased {
                return Next::Lease;
            }
            let (batch, origins) = self.take(state, worker, now, after);
            if !batch.is_empty() {
                let reason = match reason {
                    // A smaller batch of a more urgent lane went before it.
                    Reason::Full if batch.len() < self.rules.max_size => Reason::Idle,
                    reason => reason,
                };
                state.counts.batch_closed(reason, batch.len());
                // Who submits next calls the next submitter; this one comes back itself.
                if !self.rules.inline {
                    state.hand_over(after);
                }
                return Next::Batch(batch, origins);
            }
        }
    }

    /// The time, where it matters. A clock that panics shows nothing: then nothing is too late, and
    /// nothing is lingered over.
    fn time(&self) -> Option<Timestamp> {
        let mut now = None;
        if self.rules.gather.wants_ages() || self.deadlines.load(Ordering::Relaxed) {
            survive(|| now = Some(self.rules.clock.now()));
        }
        now
    }

    /// Why the batch at the front is to be taken, or why not yet.
    fn ripe(
        &self,
        state: &State<T, R, E>,
        ready: Ready,
        now: Option<Timestamp>,
    ) -> Result<Reason, Unripe> {
        let live = state.queue.live();
        if live >= self.rules.max_size {
            return Ok(Reason::Full);
        }
        if state.closed {
            return Ok(Reason::AtEnd);
        }
        if state.queue.oldest() < Some(state.flush_mark) {
            return Ok(Reason::Flush);
        }
        if state.queue.has_complete(self.bounds()) {
            return Ok(Reason::Full);
        }
        let max_wait = self.rules.max_wait;
        let linger = match self.rules.gather {
            Gather::Immediate => return Ok(Reason::Idle),
            Gather::Tick | Gather::Adaptive if ready == Ready::Called => return Err(Unripe::Tick),
            Gather::Tick => return Ok(Reason::Idle),
            Gather::Adaptive => {
                now.map_or(Duration::ZERO, |now| state.pace.linger(live, now, max_wait))
            }
            Gather::Announced if state.announced > 0 => max_wait,
            Gather::Linger { min_size } if live < min_size => max_wait,
            Gather::Announced | Gather::Linger { .. } => Duration::ZERO,
        };
        if linger.is_zero() {
            return Ok(Reason::Idle);
        }
        let end = state.queue.since().saturating_add(linger);
        match end.saturating_since(now.unwrap_or(end)) {
            Duration::ZERO => Ok(Reason::Linger),
            left => Err(Unripe::For(left)),
        }
    }

    /// Takes up to `max_size` items whose deadline has not passed. Ends the gatherer's role.
    fn take(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        now: Option<Timestamp>,
        after: &mut After<T, R, E>,
    ) -> (Vec<T>, Origins) {
        state.resign(worker);
        let bounds = self.bounds();
        let mut items = Vec::new();
        let mut origins = Origins::new();
        let mut weight = 0_usize;
        while let Some(mut batch) = if items.is_empty() {
            state.queue.pop()
        } else if state.queue.is_empty() {
            None
        } else {
            state.queue.pop_fitting(items.len(), weight, bounds)
        } {
            if let Some(now) = now {
                let late =
                    |deadline: Deadline| deadline != Deadline::NEVER && deadline.moment() <= now;
                let error = |item| Err(SubmitError::DeadlineExceeded(item));
                let expired = batch
                    .slots
                    .end_where(|entry| late(entry.deadline), error, after);
                batch.live -= expired;
                state.counts.expired += expired as u64;
            }
            if batch.live == 0 {
                self.retire(state, Some(batch));
                continue;
            }
            if items.is_empty() {
                items = Vec::with_capacity(batch.live);
            } else {
                items.reserve(batch.live);
            }
            for slot in batch.slots.iter_mut() {
                if let Some((item, origin)) = slot.take() {
                    items.push(item);
                    origins.add(origin);
                }
            }
            weight = weight.saturating_add(batch.weight);
            state.desks[worker].batches.push(batch);
        }
        if !items.is_empty() {
            if let (Gather::Adaptive, Some(now)) = (self.rules.gather, now) {
                state.pace.taken(items.len(), now);
            }
            let desk = &mut state.desks[worker];
            desk.size = items.len();
            desk.since = now.unwrap_or(Timestamp::ZERO);
        }
        state.settle(after);
        (items, origins)
    }

    /// Gives each submitter of the worker's batch its own; what the worker is to do next.
    pub(crate) fn publish(
        &self,
        worker: usize,
        verdict: Verdict<R, E>,
        after: &mut After<T, R, E>,
    ) -> Next<T> {
        let now = self.time();
        let mut state = self.lock();
        let size = state.desks[worker].size;
        let left_over = self.hand_out(&mut state, worker, verdict, now, after);
        state.settle(after);
        let next = if size > 1 && self.stays(&state) {
            state.gatherer = Some(worker);
            Next::Tick
        } else {
            self.decide(&mut state, worker, Ready::Called, now, after)
        };
        drop(state);
        after.run(&self.wakers);
        if let Some(verdict) = left_over {
            discard(verdict);
        }
        next
    }

    /// Whether a worker that has published a batch lets its submitters run and then looks again,
    /// without being called: they are likely to submit more, and all of it goes into one batch. A
    /// worker that is called by the first of them runs on that one's thread, before the others.
    fn stays(&self, state: &State<T, R, E>) -> bool {
        self.ticks() && state.queue.is_empty() && state.gatherer.is_none() && !state.closed
    }

    /// As [`publish`](Self::publish), without a next batch; whether the worker is to ask for one.
    /// If not, it is woken when it is.
    pub(crate) fn deliver(
        &self,
        worker: usize,
        verdict: Verdict<R, E>,
        after: &mut After<T, R, E>,
    ) -> bool {
        let now = self.time();
        let mut state = self.lock();
        let left_over = self.hand_out(&mut state, worker, verdict, now, after);
        state.settle(after);
        let asks = state.closed || !state.queue.is_empty();
        state.parked[worker] = !asks;
        drop(state);
        after.run(&self.wakers);
        if let Some(verdict) = left_over {
            discard(verdict);
        }
        asks
    }

    /// A worker that is a submitter, free after it has run so many items, goes and leaves what is
    /// queued to those who wait for it. Not if nobody does; then the count begins anew.
    pub(crate) fn leave_the_rest(
        &self,
        worker: usize,
        items_run: &mut usize,
        after: &mut After<T, R, E>,
    ) -> bool {
        let mut state = self.lock();
        if items_run.saturating_mul(4) < state.queue.live() || state.queue.is_empty() {
            return false;
        }
        let submitter = state.queue.wake_all(after);
        let watcher = !state.watchers.is_empty();
        // They come back if they still want to know.
        state
            .watchers
            .tell(|_| true, |waker| after.wake(Some(waker)));
        if !submitter && !watcher {
            *items_run = 0;
            return false;
        }
        state.parked[worker] = true;
        drop(state);
        after.run(&self.wakers);
        true
    }

    /// A worker that was called goes back to sleep: another on the same thread is at it.
    pub(crate) fn sit_down(&self, worker: usize) {
        let mut state = self.lock();
        state.parked[worker] = true;
        state.resign(worker);
    }

    /// Ends the worker's batch; what is left of the verdict is to be dropped.
    fn hand_out(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        verdict: Verdict<R, E>,
        now: Option<Timestamp>,
        after: &mut After<T, R, E>,
    ) -> Option<Verdict<R, E>> {
        let desk = &mut state.desks[worker];
        let size = std::mem::take(&mut desk.size);
        if size == 0 {
            // It was abandoned meanwhile.
            return Some(verdict);
        }
        if let (Gather::Adaptive, Some(now)) = (self.rules.gather, now) {
            state.pace.ran(now.saturating_since(desk.since));
        }
        let batches = &mut desk.batches;
        let (completed, left_over) = match verdict {
            Verdict::Results(results) if results.len() == size => {
                finish(batches, results.into_iter().map(Ok), after);
                (size, None)
            }
            Verdict::Results(results) => {
                let (expected, got) = (size, results.len());
                let cause = Cause::WrongResultCount { expected, got };
                finish(batches, repeated(&cause), after);
                (0, Some(Verdict::Results(results)))
            }
            Verdict::Failed(cause) => {
                finish(batches, repeated(&cause), after);
                (0, Some(Verdict::Failed(cause)))
            }
            Verdict::Each(each) => {
                let completed = each.iter().filter(|one| one.is_ok()).count();
                let each = each.into_iter().map(|one| one.map_err(Cause::error));
                finish(batches, each, after);
                (completed, None)
            }
        };
        state.counts.completed += completed as u64;
        state.counts.failed += (size - completed) as u64;
        while let Some(batch) = state.desks[worker].batches.pop() {
            self.retire(state, Some(batch));
        }
        left_over
    }

    /// The worker has ended, or was dropped by its runtime.
    pub(crate) fn worker_gone(&self, worker: usize) {
        self.with(|state, after| {
            state.parked[worker] = false;
            self.abandon_running(state, worker, after);
            state.alive -= 1;
            state.resign(worker);
            if state.alive == 0 {
                self.close_state(state, after);
                self.abandon_queue(state, after);
            } else {
                state.hand_over(after);
            }
            state.settle(after);
        });
    }
}

impl<T, R, E> State<T, R, E> {
    /// The worker is no longer the gatherer, if it was.
    fn resign(&mut self, worker: usize) {
        if self.gatherer == Some(worker) {
            self.gatherer = None;
        }
    }
}

/// Hands outcomes to the items of batches, in their order.
fn finish<T, R, E>(
    batches: &mut [Batch<T, R, E>],
    mut outcomes: impl Iterator<Item = Outcome<T, R, E>>,
    after: &mut After<T, R, E>,
) {
    for batch in batches {
        batch.slots.finish(&mut outcomes, after);
    }
}

/// That cause, for each item anew.
fn repeated<T, R, E>(cause: &Cause<E>) -> impl Iterator<Item = Outcome<T, R, E>> {
    std::iter::repeat_with(|| Err(cause.clone().error()))
}

/// Drops results that nobody gets.
fn discard<R, E>(verdict: Verdict<R, E>) {
    match verdict {
        Verdict::Results(results) => drop_each(results),
        Verdict::Failed(cause) => survive(|| drop(cause)),
        Verdict::Each(each) => drop_each(each),
    }
}
