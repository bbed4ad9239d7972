//! W-TinyLFU: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy",
//! ACM ToS 2017.

use foldhash::HashMap;

use super::Policy;
use super::order::Order;

/// A window of a hundredth, four fifths of the rest protected, exact frequencies that are halved
/// after ten uses for each entry.
pub(crate) struct TinyLfu {
    capacity: usize,
    window: Order,
    probation: Order,
    protected: Order,
    frequencies: HashMap<u64, u8>,
    uses: usize,
}

impl Policy for TinyLfu {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            window: Order::default(),
            probation: Order::default(),
            protected: Order::default(),
            frequencies: HashMap::default(),
            uses: 0,
        }
    }

    fn access(&mut self, key: u64) -> bool {
        self.count(key);
        if self.window.touch(key) || self.protected.touch(key) {
            return true;
        }
        let main = self.capacity - self.window_size();
        if self.probation.remove(key) {
            self.protected.push(key);
            if self.protected.len() > main * 4 / 5
                && let Some(key) = self.protected.pop()
            {
                self.probation.push(key);
            }
            return true;
        }
        self.window.push(key);
        if self.window.len() > self.window_size()
            && let Some(candidate) = self.window.pop()
        {
            self.admit(candidate, main);
        }
        false
    }
}

impl TinyLfu {
    fn window_size(&self) -> usize {
        (self.capacity / 100).max(1)
    }

    fn admit(&mut self, candidate: u64, main: usize) {
        if self.probation.len() + self.protected.len() < main {
            self.probation.push(candidate);
            return;
        }
        let victim = self.probation.first().or_else(|| self.protected.first());
        let Some(victim) = victim else { return };
        let frequency = |key| self.frequencies.get(&key).copied();
        if frequency(candidate) > frequency(victim) {
            if !self.probation.remove(victim) {
                self.protected.remove(victim);
            }
            self.probation.push(candidate);
        }
    }

    fn count(&mut self, key: u64) {
        let count = self.frequencies.entry(key).or_insert(0);
        *count = (*count + 1).min(15);
        self.uses += 1;
        if self.uses >= 10 * self.capacity {
            self.uses /= 2;
            self.frequencies.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }
}
