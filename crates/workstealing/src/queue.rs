//! What waits for a worker: one queue per priority, and which task comes next.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use overdrive_core::Priority;

const LEVELS: usize = 3;

/// The place of a queued job, by which it can be taken out again. Of one level, later tickets are
/// larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    level: usize,
    number: u64,
}

/// Three queues, each first in first out, the higher ones first; but when so many jobs in a row
/// came before a waiting lower one, it is the lower one's turn.
///
/// A job is in the queue or it is not: whoever takes it out, by `next` or by its ticket, has it,
/// and nothing of it stays behind.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    levels: [BTreeMap<u64, J>; LEVELS],
    next_number: u64,
    bound: u32,
    /// Per level: how many higher jobs were taken since its oldest one became the oldest.
    passed: [u32; LEVELS],
}

impl<J> Queue<J> {
    pub(crate) fn new(bound: NonZeroU32) -> Self {
        Self {
            levels: [const { BTreeMap::new() }; LEVELS],
            next_number: 0,
            bound: bound.get(),
            passed: [0; LEVELS],
        }
    }

    pub(crate) fn push(&mut self, priority: Priority, job: J) -> Ticket {
        let level = level(priority);
        if self.levels[level].is_empty() {
            self.passed[level] = 0;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.levels[level].insert(number, job);
        Ticket { level, number }
    }

    /// Takes out the job whose turn it is.
    pub(crate) fn next(&mut self) -> Option<(Ticket, J)> {
        let level = self.due().or_else(|| self.highest())?;
        let (number, job) = self.levels[level].pop_first()?;
        self.passed[level] = 0;
        for passed in &mut self.passed[level + 1..] {
            *passed = passed.saturating_add(1);
        }
        Some((Ticket { level, number }, job))
    }

    /// Takes out that job, if it still waits.
    pub(crate) fn claim(&mut self, ticket: Ticket) -> Option<J> {
        self.levels[ticket.level].remove(&ticket.number)
    }

    /// Takes out all jobs of that kind.
    pub(crate) fn claim_all(&mut self, mut wanted: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut claimed = Vec::new();
        for level in &mut self.levels {
            let (out, stay) = std::mem::take(level)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|(_, job)| wanted(job));
            *level = stay;
            claimed.extend(out.into_values());
        }
        claimed
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(BTreeMap::len).sum()
    }

    pub(crate) fn len_of(&self, priority: Priority) -> usize {
        self.levels[level(priority)].len()
    }

    /// The lowest level that has waited long enough.
    fn due(&self) -> Option<usize> {
        (1..LEVELS)
            .rev()
            .find(|&level| !self.levels[level].is_empty() && self.passed[level] >= self.bound)
    }

    fn highest(&self) -> Option<usize> {
        (0..LEVELS).find(|&level| !self.levels[level].is_empty())
    }
}

fn level(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use Priority::{High, Low, Normal};

    use super::*;

    fn queue(bound: u32) -> Queue<u32> {
        Queue::new(NonZeroU32::new(bound).unwrap())
    }

    fn order(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.next().map(|(_, job)| job)).collect()
    }

    #[test]
    fn higher_levels_come_first_and_each_is_first_in_first_out() {
        let mut queue = queue(100);
        for (priority, job) in [(Low, 5), (Normal, 3), (High, 1), (Normal, 4), (High, 2)] {
            queue.push(priority, job);
        }
        assert_eq!(order(&mut queue), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_lower_job_is_passed_over_no_more_often_than_the_bound() {
        let mut queue = queue(2);
        for job in 0..6 {
            queue.push(High, job);
        }
        queue.push(Normal, 10);
        queue.push(Normal, 11);
        queue.push(Low, 20);
        queue.push(Low, 21);
        assert_eq!(order(&mut queue), [0, 1, 20, 10, 2, 21, 3, 11, 4, 5]);
    }

    #[test]
    fn waiting_starts_anew_when_a_level_was_empty() {
        let mut queue = queue(2);
        for job in 0..6 {
            queue.push(High, job);
        }
        queue.next();
        queue.next();
        queue.push(Normal, 10);
        assert_eq!(order(&mut queue), [2, 3, 10, 4, 5]);
    }

    #[test]
    fn a_claimed_job_is_gone_and_leaves_nothing_behind() {
        let mut queue = queue(2);
        let first = queue.push(Normal, 1);
        let second = queue.push(Normal, 2);
        assert_eq!(queue.claim(first), Some(1));
        assert_eq!(queue.claim(first), None);
        assert_eq!((queue.len(), queue.len_of(Normal)), (1, 1));
        assert_eq!(queue.next(), Some((second, 2)));
        assert_eq!(queue.claim(second), None);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn jobs_of_a_kind_are_claimed_from_all_levels() {
        let mut queue = queue(9);
        for (priority, job) in [(Low, 1), (Normal, 2), (High, 3), (Low, 4)] {
            queue.push(priority, job);
        }
        assert_eq!(queue.claim_all(|job| job % 2 == 0), [2, 4]);
        assert_eq!(order(&mut queue), [3, 1]);
    }
}
