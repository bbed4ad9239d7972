//! What the handles of a limiter share: the cell, and the lock of those who wait or change it.

use std::borrow::Cow;
use std::sync::PoisonError;
use std::time::Duration;

use overdrive_core::{Deadline, TimeBudget, Timestamp};

use crate::cell::SharedCell;
use crate::counts::Counts;
use crate::gcra::{Arrival, Gcra};
use crate::quota::Quota;
use crate::sync::{Mutex, MutexGuard};
use crate::wait::Queue;

pub(crate) struct Inner<C> {
    pub(crate) cell: SharedCell,
    pub(crate) clock: C,
    pub(super) counts: Counts<3>,
    pub(super) name: Cow<'static, str>,
    pub(crate) max_waiters: usize,
    pub(super) budget: Option<TimeBudget>,
    pub(super) state: Mutex<State>,
}

/// Calls that got their tokens.
pub(super) const ALLOWED: usize = 0;
/// Calls that got none.
pub(super) const DENIED: usize = 1;
/// The tokens given out beyond one per call; below zero for calls that asked for none.
pub(super) const MORE: usize = 2;

pub(crate) struct State {
    pub(crate) quota: Quota,
    pub(crate) gcra: Gcra,
    /// Tokens of the burst that are kept back for what threads hold.
    pub(super) leased: u64,
    /// The cell's time while it is taken, which it is between locks only while somebody waits.
    pub(super) kept: Option<Arrival>,
    /// The latest time that the cell has shown of this quota.
    pub(super) highest: Arrival,
    /// The last tokens that were reserved ahead of their time.
    pub(crate) ahead: Ahead,
    /// All units that were given back while others had been charged since.
    pub(crate) lowered: u64,
    /// How many quotas there were before this.
    pub(crate) changes: u64,
    pub(crate) queue: Queue,
    pub(crate) waits: Waits,
}

/// Tokens that were reserved ahead of their time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// The cell's time after them, less what was given back since.
    pub(crate) arrival: Arrival,
    /// From when on they may be used.
    pub(crate) until: Timestamp,
}

/// The figures that are kept under the lock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) waited: u64,
    pub(crate) refused: u64,
    pub(crate) abandoned: u64,
    pub(crate) refunded: u64,
}

/// The lock, with the cell taken; given back at the end, unless somebody waits.
pub(crate) struct Held<'l> {
    cell: &'l SharedCell,
    pub(crate) state: MutexGuard<'l, State>,
    pub(crate) arrival: Arrival,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.state.highest = self.state.highest.max(self.arrival);
        if self.state.queue.is_empty() {
            self.state.kept = None;
            self.cell.put(self.arrival);
        } else {
            self.state.kept = Some(self.arrival);
        }
    }
}

impl Held<'_> {
    /// Gives units back: how many. What lies before the present is not given to those who wait, to
    /// whom a grant counts as of when it was due.
    pub(crate) fn give_back(&mut self, units: u64, now: Timestamp) -> u64 {
        let present = self.state.gcra.units(now);
        let least = match self.state.queue.is_empty() {
            true => self.state.gcra.base,
            false => present,
        };
        let before = self.arrival;
        self.arrival = before.saturating_sub(units).max(least.min(before));
        before - self.arrival
    }
}

impl<C> Inner<C> {
    pub(crate) fn new(
        name: Cow<'static, str>,
        quota: Quota,
        leased: u64,
        max_waiters: usize,
        budget: Option<TimeBudget>,
        clock: C,
    ) -> Self {
        let gcra = Gcra::new(quota).less(leased);
        Self {
            cell: SharedCell::new(&gcra),
            clock,
            counts: Counts::new(),
            name,
            max_waiters,
            budget,
            state: Mutex::new(State {
                quota,
                gcra,
                leased,
                kept: None,
                highest: gcra.base,
                ahead: Ahead {
                    arrival: gcra.base,
                    until: Timestamp::ZERO,
                },
                lowered: 0,
                changes: 0,
                queue: Queue::default(),
                waits: Waits::default(),
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a user runs under it, so it is consistent even if poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody else from the cell.
    pub(crate) fn hold(&self) -> Held<'_> {
        let mut state = self.lock();
        let arrival = state.kept.take().unwrap_or_else(|| self.cell.take());
        // Between two holders it only grows.
        state.highest = state.highest.max(arrival);
        Held {
            cell: &self.cell,
            state,
            arrival,
        }
    }

    /// The deadline of a wait that begins now and asks for that one.
    pub(crate) fn deadline(&self, asked: Deadline, now: Timestamp) -> Deadline {
        let Some(budget) = self.budget else {
            return asked;
        };
        let wanted = (asked != Deadline::NEVER).then_some(Duration::MAX);
        asked.min(Deadline::at(now.saturating_add(budget.of(wanted))))
    }

    #[inline(always)]
    pub(crate) fn count_allowed(&self, tokens: u64) {
        self.counts.add(ALLOWED, 1);
        if tokens != 1 {
            self.counts.add(MORE, tokens.wrapping_sub(1));
        }
    }

    #[inline(always)]
    pub(super) fn count_denied(&self) {
        self.counts.add(DENIED, 1);
    }
}
