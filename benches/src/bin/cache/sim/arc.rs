//! ARC: Megiddo, Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003.

use super::Policy;
use super::order::Order;

pub(crate) struct Arc {
    capacity: usize,
    /// How many of the keys seen once are kept.
    target: usize,
    once: Order,
    often: Order,
    once_ghosts: Order,
    often_ghosts: Order,
}

impl Policy for Arc {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            target: 0,
            once: Order::default(),
            often: Order::default(),
            once_ghosts: Order::default(),
            often_ghosts: Order::default(),
        }
    }

    fn access(&mut self, key: u64) -> bool {
        if self.once.remove(key) || self.often.remove(key) {
            self.often.push(key);
            return true;
        }
        let (b1, b2) = (self.once_ghosts.len(), self.often_ghosts.len());
        if self.once_ghosts.contains(key) {
            self.target = (self.target + (b2 / b1).max(1)).min(self.capacity);
            self.replace(false);
            self.once_ghosts.remove(key);
            self.often.push(key);
            return false;
        }
        if self.often_ghosts.contains(key) {
            self.target = self.target.saturating_sub((b1 / b2).max(1));
            self.replace(true);
            self.often_ghosts.remove(key);
            self.often.push(key);
            return false;
        }
        let seen_once = self.once.len() + b1;
        if seen_once == self.capacity {
            if self.once.len() < self.capacity {
                self.once_ghosts.pop();
                self.replace(false);
            } else {
                self.once.pop();
            }
        } else {
            let all = seen_once + self.often.len() + b2;
            if all >= self.capacity {
                if all == 2 * self.capacity {
                    self.often_ghosts.pop();
                }
                self.replace(false);
            }
        }
        self.once.push(key);
        false
    }
}

impl Arc {
    fn replace(&mut self, often_ghost: bool) {
        let once = self.once.len();
        if once > 0 && (once > self.target || (often_ghost && once == self.target)) {
            if let Some(key) = self.once.pop() {
                self.once_ghosts.push(key);
            }
        } else if let Some(key) = self.often.pop() {
            self.often_ghosts.push(key);
        }
    }
}
