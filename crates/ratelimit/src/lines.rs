//! Those who wait for a permit, and who of them is next.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use overdrive_core::{Deadline, Priority, Timestamp};

use crate::fifo::Fifo;

/// After so many permits went past those of a lower priority, one goes to them.
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
    lines: [Line; 3],
    /// How many permits went past each of them since it got one.
    passed: [u32; 3],
    /// What those who left have not yet heard.
    settled: BTreeMap<u64, Outcome>,
    shedding: Option<Shedding>,
    last_empty: Timestamp,
    /// Those who gave a deadline.
    deadlines: usize,
}

/// Those of one priority, by whom they ask for: each of these in turn, and of one of them, first
/// come first. (Deficit round robin, Shreedhar and Varghese, 1995, where all that is asked for is
/// one permit.)
#[derive(Debug, Default)]
struct Line {
    /// None is empty, unless it is the only one.
    shares: BTreeMap<u64, Share>,
    turns: BTreeMap<u64, u64>,
    next_turn: u64,
    len: usize,
}

#[derive(Debug)]
struct Share {
    turn: u64,
    waiters: Fifo<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    since: Timestamp,
    deadline: Deadline,
    waker: Option<Waker>,
}

/// Where somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) priority: Priority,
    /// For whom, by the hash of the name.
    pub(crate) share: u64,
}

impl Place {
    fn line(self) -> usize {
        match self.priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        }
    }
}

impl Line {
    fn push(&mut self, share: u64, id: u64, waiter: Waiter) {
        if self.len == 0 && !self.shares.contains_key(&share) {
            self.shares.clear();
            self.turns.clear();
        }
        let Self {
            shares,
            turns,
            next_turn,
            len,
        } = self;
        let entry = shares.entry(share).or_insert_with(|| {
            let turn = *next_turn;
            *next_turn += 1;
            turns.insert(turn, share);
            let waiters = Fifo::default();
            Share { turn, waiters }
        });
        entry.waiters.push(id, waiter);
        *len += 1;
    }

    fn first(&self) -> Option<(u64, u64, &Waiter)> {
        let (_, share) = self.turns.first_key_value()?;
        let (id, waiter) = self.shares.get(share)?.waiters.first()?;
        Some((*share, id, waiter))
    }

    fn get_mut(&mut self, share: u64, id: u64) -> Option<&mut Waiter> {
        self.shares.get_mut(&share)?.waiters.get_mut(id)
    }

    fn remove(&mut self, share: u64, id: u64) -> Option<Waiter> {
        let entry = self.shares.get_mut(&share)?;
        let waiter = entry.waiters.remove(id)?;
        self.len -= 1;
        let (is_empty, turn) = (entry.waiters.is_empty(), entry.turn);
        if is_empty && self.shares.len() > 1 {
            self.turns.remove(&turn);
            self.shares.remove(&share);
        }
        Some(waiter)
    }

    /// The next turn is another's.
    fn rotate(&mut self, share: u64) {
        let Some(entry) = self.shares.get_mut(&share) else {
            return;
        };
        self.turns.remove(&entry.turn);
        entry.turn = self.next_turn;
        self.next_turn += 1;
        self.turns.insert(entry.turn, share);
    }
}

impl Lines {
    pub(crate) fn new(shedding: Option<Shedding>, now: Timestamp) -> Self {
        Self {
            lines: Default::default(),
            passed: [0; 3],
            settled: BTreeMap::new(),
            shedding,
            last_empty: now,
            deadlines: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.len == 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.len).sum()
    }

    /// Whether it matters what time it is.
    pub(crate) fn watch_time(&self) -> bool {
        self.shedding.is_some() || self.deadlines > 0
    }

    /// Puts somebody at the end of a line. Ids grow.
    pub(crate) fn push(
        &mut self,
        id: u64,
        place: Place,
        since: Timestamp,
        deadline: Deadline,
        waker: Waker,
    ) {
        if self.is_empty() {
            self.last_empty = since;
        }
        self.deadlines += usize::from(deadline != Deadline::NEVER);
        let waiter = Waiter {
            since,
            deadline,
            waker: Some(waker),
        };
        self.lines[place.line()].push(place.share, id, waiter);
    }

    /// Keeps the newest waker: the old one. Or what became of the wait, and the waker back.
    pub(crate) fn look(
        &mut self,
        id: u64,
        place: Place,
        waker: Waker,
    ) -> Result<Option<Waker>, (Outcome, Waker)> {
        if let Some(outcome) = self.settled.remove(&id) {
            return Err((outcome, waker));
        }
        match self.lines[place.line()].get_mut(place.share, id) {
            Some(waiter) => Ok(waiter.waker.replace(waker)),
            None => unreachable!("who waits is in line or was told"),
        }
    }

    /// Takes somebody out who gives up: what had become of the wait, or the waker.
    pub(crate) fn leave(&mut self, id: u64, place: Place) -> Result<Outcome, Option<Waker>> {
        if let Some(outcome) = self.settled.remove(&id) {
            return Ok(outcome);
        }
        let waiter = self.lines[place.line()].remove(place.share, id);
        Err(waiter.and_then(|waiter| self.left(waiter)))
    }

    fn left(&mut self, waiter: Waiter) -> Option<Waker> {
        self.deadlines -= usize::from(waiter.deadline != Deadline::NEVER);
        waiter.waker
    }

    /// The line whose first is next: the highest, or of those passed too often the one that was
    /// most often.
    fn next(&self) -> Option<usize> {
        let first = (0..3).find(|line| self.lines[*line].len > 0)?;
        let waiting = (first + 1..3).filter(|line| self.lines[*line].len > 0);
        let passed = waiting.filter(|line| self.passed[*line] >= MAX_PASSED);
        Some(
            passed
                .max_by_key(|line| self.passed[*line])
                .unwrap_or(first),
        )
    }

    /// Turns the next away, if it is too late for it.
    pub(crate) fn turn_away(&mut self, now: Timestamp) -> Option<(Outcome, Option<Waker>)> {
        let at = self.next()?;
        let (share, id, waiter) = self.lines[at].first()?;
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
        Some((outcome, self.settle(at, share, id, outcome)))
    }

    /// Gives the next a permit: its waker.
    pub(crate) fn grant(&mut self) -> Option<Waker> {
        let at = self.next()?;
        let (share, id, _) = self.lines[at].first()?;
        self.passed[at] = 0;
        for line in at + 1..3 {
            let waits = self.lines[line].len > 0;
            self.passed[line] = if waits { self.passed[line] + 1 } else { 0 };
        }
        self.lines[at].rotate(share);
        self.settle(at, share, id, Outcome::Granted)
    }

    fn settle(&mut self, line: usize, share: u64, id: u64, outcome: Outcome) -> Option<Waker> {
        let waiter = self.lines[line].remove(share, id)?;
        self.settled.insert(id, outcome);
        self.left(waiter)
    }

    /// Nobody waits any more.
    pub(crate) fn emptied(&mut self, now: Timestamp) {
        self.last_empty = self.last_empty.max(now);
    }

    /// Turns all away: their wakers.
    pub(crate) fn close(&mut self) -> Vec<Option<Waker>> {
        let mut wakers = Vec::new();
        for line in 0..3 {
            while let Some((share, id, _)) = self.lines[line].first() {
                wakers.push(self.settle(line, share, id, Outcome::Closed));
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
        join_for(lines, id, priority, 0, since);
    }

    fn join_for(lines: &mut Lines, id: u64, priority: Priority, share: u64, since: u64) {
        let waker = Waker::noop().clone();
        let place = Place { priority, share };
        lines.push(id, place, at(since), Deadline::NEVER, waker);
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
    fn each_share_has_its_turn_and_each_its_own_order() {
        let mut lines = Lines::new(None, at(0));
        for id in 0..6 {
            join_for(&mut lines, id, Priority::Normal, 1, 0);
        }
        for id in 6..8 {
            join_for(&mut lines, id, Priority::Normal, 2, 0);
        }
        join_for(&mut lines, 8, Priority::Normal, 3, 0);
        // One gives up: its share keeps its turn.
        let place = Place {
            priority: Priority::Normal,
            share: 1,
        };
        assert!(lines.leave(1, place).is_err());
        let mut order = Vec::new();
        while !lines.is_empty() {
            let _waker = lines.grant();
            order.extend((0..9).filter(|id| outcome(&mut lines, *id).is_some()));
        }
        assert_eq!(order, [0, 6, 8, 2, 7, 3, 4, 5]);
        assert_eq!(lines.lines[1].shares.len(), lines.lines[1].turns.len());
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
