//! What the engine does for workers.

use std::task::Waker;
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Deadline, Timestamp};

use super::{After, Cause, Next, Running, Shared, State};
use crate::error::SubmitError;
use crate::settings::Gather;
use crate::stats::Reason;

impl<T, R, E> Shared<T, R, E> {
    /// What `worker`, which is free, is to do. It is woken by `waker`.
    pub(crate) fn next(&self, worker: usize, waker: &Waker) -> Next<T> {
        let now = self.time();
        let waker = waker.clone();
        self.with(|state, after| {
            state.parked[worker] = None;
            loop {
                if state.queue.is_empty() {
                    if state.gatherer == Some(worker) {
                        state.gatherer = None;
                        state.ticked = false;
                    }
                    if state.closed {
                        return Next::Ended;
                    }
                    state.parked[worker] = Some(waker);
                    return Next::Park(Duration::MAX);
                }
                if *state.gatherer.get_or_insert(worker) != worker {
                    state.parked[worker] = Some(waker);
                    return Next::Park(Duration::MAX);
                }
                let reason = match self.ripe(state, now) {
                    Ok(reason) => reason,
                    Err(None) => {
                        state.ticked = true;
                        return Next::Tick;
                    }
                    Err(Some(left)) => {
                        state.parked[worker] = Some(waker);
                        return Next::Park(left);
                    }
                };
                let batch = self.take(state, worker, now, after);
                if !batch.is_empty() {
                    state.counts.batch_closed(reason, batch.len());
                    state.hand_over(after);
                    return Next::Batch(batch);
                }
            }
        })
    }

    /// A clock that panics shows nothing: then nothing is too late, and nothing is lingered over.
    fn time(&self) -> Option<Timestamp> {
        let mut now = None;
        survive(|| now = Some(self.rules.clock.now()));
        now
    }

    /// Why the batch at the front is to be closed, or how long to wait: a tick, or so long.
    fn ripe(
        &self,
        state: &State<T, R, E>,
        now: Option<Timestamp>,
    ) -> Result<Reason, Option<Duration>> {
        let first = &state.queue[0];
        if state.queue.len() >= self.rules.max_size {
            return Ok(Reason::Full);
        }
        if state.closed {
            return Ok(Reason::AtEnd);
        }
        if first.seq < state.flush_mark {
            return Ok(Reason::Flush);
        }
        match self.rules.gather {
            Gather::Immediate => Ok(Reason::Idle),
            Gather::Tick if state.ticked => Ok(Reason::Idle),
            Gather::Tick => Err(None),
            Gather::Linger { min_size } if state.queue.len() >= min_size => Ok(Reason::Idle),
            Gather::Linger { .. } => {
                let end = first.at.saturating_add(self.rules.max_wait);
                let left = end.saturating_since(now.unwrap_or(end));
                if left.is_zero() {
                    Ok(Reason::Linger)
                } else {
                    Err(Some(left))
                }
            }
        }
    }

    /// Takes up to `max_size` items whose deadline has not passed. Ends the gatherer's role.
    fn take(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        now: Option<Timestamp>,
        after: &mut After<T, R, E>,
    ) -> Vec<T> {
        state.gatherer = None;
        state.ticked = false;
        let size = state.queue.len().min(self.rules.max_size);
        let (mut items, mut cells) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let mut first = None;
        while items.len() < self.rules.max_size {
            let Some(entry) = state.queue.pop_front() else {
                break;
            };
            let deadline = entry.deadline;
            if deadline != Deadline::NEVER && now.is_some_and(|now| deadline.moment() <= now) {
                state.counts.expired += 1;
                let late = Err(SubmitError::DeadlineExceeded(entry.item));
                after.finish(&entry.cell, late);
                continue;
            }
            first.get_or_insert(entry.seq);
            items.push(entry.item);
            cells.push(entry.cell);
        }
        state.running[worker] = first.map(|first| Running { first, cells });
        state.settle(after);
        items
    }

    /// Gives each submitter of the worker's batch its own.
    pub(crate) fn publish(&self, worker: usize, size: usize, verdict: Result<Vec<R>, Cause<E>>) {
        let (verdict, surplus) = match verdict {
            Ok(results) if results.len() != size => {
                let (expected, got) = (size, results.len());
                (Err(Cause::WrongResultCount { expected, got }), results)
            }
            verdict => (verdict, Vec::new()),
        };
        let left_over = self.with(|state, after| {
            let Some(running) = state.running[worker].take() else {
                // It was abandoned meanwhile.
                return Some(verdict);
            };
            let left_over = match verdict {
                Ok(results) => {
                    state.counts.completed += size as u64;
                    for (cell, result) in running.cells.iter().zip(results) {
                        after.finish(cell, Ok(result));
                    }
                    None
                }
                Err(cause) => {
                    state.counts.failed += size as u64;
                    for cell in &running.cells {
                        after.finish(cell, Err(cause.error()));
                    }
                    Some(Err(cause))
                }
            };
            state.settle(after);
            left_over
        });
        drop_each(surplus);
        match left_over {
            Some(Ok(results)) => drop_each(results),
            left_over => survive(|| drop(left_over)),
        }
    }

    /// The worker has ended, or was dropped by its runtime.
    pub(crate) fn worker_gone(&self, worker: usize) {
        self.with(|state, after| {
            state.parked[worker] = None;
            state.abandon_running(worker, after);
            state.alive -= 1;
            if state.gatherer == Some(worker) {
                state.gatherer = None;
                state.ticked = false;
            }
            if state.alive == 0 {
                state.close(self.rules.capacity, after);
                state.abandon_queue(after);
            } else {
                state.hand_over(after);
            }
            state.settle(after);
        });
    }
}

/// As one, they would end the process if the destructors of two panicked.
fn drop_each<R>(results: Vec<R>) {
    for result in results {
        survive(|| drop(result));
    }
}
