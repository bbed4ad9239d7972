//! One queue: FIFO, LRU and SIEVE.

use super::Policy;
use super::order::Order;
use foldhash::HashSet;

/// First in, first out.
pub(crate) struct Fifo {
    capacity: usize,
    queue: Order,
}

/// The least recently used goes first.
pub(crate) struct Lru(Fifo);

/// Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is simpler than LRU", NSDI 2024.
pub(crate) struct Sieve {
    capacity: usize,
    queue: Order,
    visited: HashSet<u64>,
    hand: Option<u64>,
}

impl Policy for Fifo {
    fn new(capacity: usize) -> Self {
        let queue = Order::default();
        Self { capacity, queue }
    }

    fn access(&mut self, key: u64) -> bool {
        if self.queue.contains(key) {
            return true;
        }
        if self.queue.len() >= self.capacity {
            self.queue.pop();
        }
        self.queue.push(key);
        false
    }
}

impl Policy for Lru {
    fn new(capacity: usize) -> Self {
        Self(Fifo::new(capacity))
    }

    fn access(&mut self, key: u64) -> bool {
        self.0.queue.touch(key) || self.0.access(key)
    }
}

impl Policy for Sieve {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            queue: Order::default(),
            visited: HashSet::default(),
            hand: None,
        }
    }

    fn access(&mut self, key: u64) -> bool {
        if self.queue.contains(key) {
            self.visited.insert(key);
            return true;
        }
        if self.queue.len() >= self.capacity {
            self.evict();
        }
        self.queue.push(key);
        false
    }
}

impl Sieve {
    fn evict(&mut self) {
        let mut at = self.hand.or_else(|| self.queue.first());
        while let Some(key) = at.filter(|key| self.visited.remove(key)) {
            at = self.queue.after(key).or_else(|| self.queue.first());
        }
        if let Some(key) = at {
            self.hand = self.queue.after(key);
            self.queue.remove(key);
        }
    }
}
