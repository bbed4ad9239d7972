//! Those who wait for a permit, and who of them is next.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use overdrive_core::{Deadline, Priority, Timestamp};

/// After so many permits to others in a row, one goes to somebody of a lower priority.
pub const MAX_PASSED: u32 = 16;

/// When to turn away those who have waited too long to be of use.
///
/// After the controlled delay of the Facebook web tier (Ben Maurer, "Fail at Scale", ACM Queue 13(8),
/// 2015), which follows CoDel (Nichols and Jacobson, 2012): a queue that was empty within the last
/// `interval` is a burst, and everybody may wait for `interval`. One that was not is a standing
/// queue, which serves nobody: whoever has waited longer than `target` is turned away, so that
/// those who come now are served in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shedding {
    /// The longest wait in a standing queue.
    pub target: Duration,
    /// The longest wait in a burst, and how long a queue stands before it is no burst.
    pub interval: Duration,
}

impl Shedding {
    /// Those two.
    #[must_use]
    pub const fn new(target: Duration, interval: Duration) -> Self {
        Self { target, interval }
    }
}

impl Default for Shedding {
    /// 5 ms and 100 ms, as published.
    fn default() -> Self {
        Self::new(Duration::from_millis(5), Duration::from_millis(100))
    }
}

/// What became of somebody who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted,
    Closed,
    TimedOut,
    Shed,
}

/// One line for each priority.
#[derive(Debug)]
pub(crate) struct Lines {
    /// By priority, highest first.
    lines: [VecDeque<Waiter>; 3],
    /// What those who left have not yet heard.
    settled: BTreeMap<u64, Outcome>,
    shedding: Option<Shedding>,
    last_empty: Timestamp,
    /// Those who gave a deadline.
    deadlines: usize,
    /// How many permits went past those of a lower priority.
    passed: u32,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    since: Timestamp,
    deadline: Deadline,
    waker: Option<Waker>,
}

fn line(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Lines {
    pub(crate) fn new(shedding: Option<Shedding>, now: Timestamp) -> Self {
        Self {
            lines: Default::default(),
            settled: BTreeMap::new(),
            shedding,
            last_empty: now,
            deadlines: 0,
            passed: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// Whether it matters what time it is.
    pub(crate) fn watch_time(&self) -> bool {
        self.shedding.is_some() || self.deadlines > 0
    }

    /// Puts somebody at the end of a line. Ids grow.
    pub(crate) fn push(
        &mut self,
        id: u64,
        priority: Priority,
        since: Timestamp,
        deadline: Deadline,
        waker: Waker,
    ) {
        if self.is_empty() {
            self.last_empty = since;
        }
        self.deadlines += usize::from(deadline != Deadline::NEVER);
        self.lines[line(priority)].push_back(Waiter {
            id,
            since,
            deadline,
            waker: Some(waker),
        });
    }

    /// Keeps the newest waker: the old one. Or what became of the wait, and the waker back.
    pub(crate) fn look(
        &mut self,
        id: u64,
        priority: Priority,
        waker: Waker,
    ) -> Result<Option<Waker>, (Outcome, Waker)> {
        if let Some(outcome) = self.settled.remove(&id) {
            return Err((outcome, waker));
        }
        let line = &mut self.lines[line(priority)];
        match line.binary_search_by_key(&id, |waiter| waiter.id) {
            Ok(at) => Ok(line[at].waker.replace(waker)),
            Err(_) => unreachable!("who waits is in line or was told"),
        }
    }

    /// Takes somebody out who gives up: what had become of the wait, or the waker.
    pub(crate) fn leave(&mut self, id: u64, priority: Priority) -> Result<Outcome, Option<Waker>> {
        if let Some(outcome) = self.settled.remove(&id) {
            return Ok(outcome);
        }
        let line = &mut self.lines[line(priority)];
        let at = line.binary_search_by_key(&id, |waiter| waiter.id);
        let waiter = at.ok().and_then(|at| line.remove(at));
        Err(waiter.and_then(|waiter| self.left(waiter)))
    }

    fn left(&mut self, waiter: Waiter) -> Option<Waker> {
        self.deadlines -= usize::from(waiter.deadline != Deadline::NEVER);
        waiter.waker
    }

    /// The line whose first is next.
    fn next(&self) -> Option<usize> {
        let mut waiting = (0..3).filter(|line| !self.lines[*line].is_empty());
        let first = waiting.next()?;
        let lower = waiting.next_back();
        Some(lower.filter(|_| self.passed >= MAX_PASSED).unwrap_or(first))
    }

    /// Turns the next away, if it is too late for it.
    pub(crate) fn turn_away(&mut self, now: Timestamp) -> Option<(Outcome, Option<Waker>)> {
        let at = self.next()?;
        let waiter = self.lines[at].front()?;
        let waited = now.saturating_since(waiter.since);
        let outcome = if waiter.deadline != Deadline::NEVER && now >= waiter.deadline.moment() {
            Outcome::TimedOut
        } else if self.shedding.is_some_and(|shedding| {
            let standing = now.saturating_since(self.last_empty) > shedding.interval;
            waited
                > if standing {
                    shedding.target
                } else {
                    shedding.interval
                }
        }) {
            Outcome::Shed
        } else {
            return None;
        };
        Some((outcome, self.settle(at, outcome)))
    }

    /// Gives the next a permit: its waker.
    pub(crate) fn grant(&mut self) -> Option<Waker> {
        let at = self.next()?;
        let lower = self.lines[at + 1..].iter().any(|line| !line.is_empty());
        self.passed = if lower { self.passed + 1 } else { 0 };
        self.settle(at, Outcome::Granted)
    }

    fn settle(&mut self, line: usize, outcome: Outcome) -> Option<Waker> {
        let waiter = self.lines[line].pop_front()?;
        self.settled.insert(waiter.id, outcome);
        self.left(waiter)
    }

    /// Nobody waits any more.
    pub(crate) fn emptied(&mut self, now: Timestamp) {
        self.last_empty = now;
    }

    /// Turns all away: their wakers.
    pub(crate) fn close(&mut self) -> Vec<Option<Waker>> {
        let mut wakers = Vec::new();
        for line in 0..3 {
            while !self.lines[line].is_empty() {
                wakers.push(self.settle(line, Outcome::Closed));
            }
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn join(lines: &mut Lines, id: u64, priority: Priority, since: u64) {
        let waker = Waker::noop().clone();
        lines.push(id, priority, at(since), Deadline::NEVER, waker);
    }

    fn outcome(lines: &mut Lines, id: u64) -> Option<Outcome> {
        lines.settled.remove(&id)
    }

    #[test]
    fn the_higher_go_first_and_the_lower_are_not_forgotten() {
        let mut lines = Lines::new(None, at(0));
        for id in 0..40 {
            join(&mut lines, id, Priority::High, 0);
        }
        join(&mut lines, 40, Priority::Low, 0);
        let mut order = Vec::new();
        while !lines.is_empty() {
            let _waker = lines.grant();
            order.extend((0..41).filter(|id| outcome(&mut lines, *id).is_some()));
        }
        let low = order.iter().position(|id| *id == 40);
        assert_eq!(low, Some(MAX_PASSED as usize));
        order.retain(|id| *id != 40);
        assert!(order.is_sorted());
    }

    #[test]
    fn a_burst_may_wait_for_the_interval_and_a_standing_queue_for_the_target() {
        let shedding = Shedding::default();
        let mut lines = Lines::new(Some(shedding), at(0));
        join(&mut lines, 0, Priority::Normal, 10);
        join(&mut lines, 1, Priority::Normal, 60);
        join(&mut lines, 2, Priority::Normal, 104);
        join(&mut lines, 3, Priority::Normal, 109);
        // Empty at 10, so at 100 this is a burst.
        assert!(lines.turn_away(at(100)).is_none());
        // And at 111 it stands.
        for id in [0, 1, 2] {
            let (what, _) = lines.turn_away(at(111)).unwrap();
            assert_eq!(
                (what, outcome(&mut lines, id)),
                (Outcome::Shed, Some(Outcome::Shed))
            );
        }
        assert!(lines.turn_away(at(111)).is_none());
    }
}
