//! LIRS: Jiang, Zhang, "LIRS: an efficient low inter-reference recency set replacement policy",
//! SIGMETRICS 2002.

use foldhash::HashMap;

use super::Policy;
use super::order::Order;

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Comes again soon; always in the cache.
    Low,
    /// In the cache for now.
    High,
    /// Remembered only.
    Gone,
}

/// A hundredth for keys of high recency; as many keys again are remembered, at most twice.
pub(crate) struct Lirs {
    low_size: usize,
    high_size: usize,
    states: HashMap<u64, State>,
    stack: Order,
    queue: Order,
    gone: Order,
    low: usize,
}

impl Policy for Lirs {
    fn new(capacity: usize) -> Self {
        let high_size = (capacity / 100).max(1);
        Self {
            low_size: (capacity - high_size).max(1),
            high_size,
            states: HashMap::default(),
            stack: Order::default(),
            queue: Order::default(),
            gone: Order::default(),
            low: 0,
        }
    }

    fn access(&mut self, key: u64) -> bool {
        match self.states.get(&key).copied() {
            Some(State::Low) => {
                self.stack.touch(key);
                self.prune();
                true
            }
            Some(State::High) => {
                if self.stack.touch(key) {
                    self.queue.remove(key);
                    self.promote(key);
                } else {
                    self.stack.push(key);
                    self.queue.touch(key);
                }
                true
            }
            Some(State::Gone) => {
                self.make_room();
                self.gone.remove(key);
                if self.stack.touch(key) {
                    self.promote(key);
                } else {
                    self.enter(key);
                }
                false
            }
            None => {
                if self.low < self.low_size {
                    self.low += 1;
                    self.states.insert(key, State::Low);
                    self.stack.push(key);
                } else {
                    self.make_room();
                    self.enter(key);
                }
                false
            }
        }
    }
}

impl Lirs {
    fn enter(&mut self, key: u64) {
        self.states.insert(key, State::High);
        self.stack.push(key);
        self.queue.push(key);
    }

    fn promote(&mut self, key: u64) {
        self.states.insert(key, State::Low);
        self.low += 1;
        while self.low > self.low_size {
            let Some(bottom) = self.stack.pop() else {
                break;
            };
            if self.states.get(&bottom) == Some(&State::Low) {
                self.low -= 1;
                self.states.insert(bottom, State::High);
                self.queue.push(bottom);
            }
            self.prune();
        }
    }

    fn make_room(&mut self) {
        if self.low < self.low_size || self.queue.len() < self.high_size {
            return;
        }
        if let Some(key) = self.queue.pop() {
            if self.stack.contains(key) {
                self.states.insert(key, State::Gone);
                self.gone.push(key);
                if self.gone.len() > 2 * (self.low_size + self.high_size)
                    && let Some(old) = self.gone.pop()
                {
                    self.stack.remove(old);
                    self.states.remove(&old);
                }
            } else {
                self.states.remove(&key);
            }
        }
    }

    /// The bottom of the stack is always one of low recency.
    fn prune(&mut self) {
        while let Some(key) = self.stack.first() {
            match self.states.get(&key) {
                Some(State::Low) => return,
                Some(State::Gone) => {
                    self.states.remove(&key);
                    self.gone.remove(key);
                }
                _ => {}
            }
            self.stack.pop();
        }
    }
}
