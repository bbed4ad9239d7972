//! S3-FIFO: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction",
//! SOSP 2023.

use foldhash::HashMap;

use super::Policy;
use super::order::Order;

/// A tenth for the small queue, as many ghosts as the main one has keys.
pub(crate) struct S3Fifo {
    capacity: usize,
    small: Order,
    main: Order,
    ghosts: Order,
    uses: HashMap<u64, u8>,
}

impl Policy for S3Fifo {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            small: Order::default(),
            main: Order::default(),
            ghosts: Order::default(),
            uses: HashMap::default(),
        }
    }

    fn access(&mut self, key: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.uses.len() >= self.capacity {
            if self.small.len() > self.small_size() || self.main.len() == 0 {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        self.uses.insert(key, 0);
        if self.ghosts.remove(key) {
            self.main.push(key);
        } else {
            self.small.push(key);
        }
        false
    }
}

impl S3Fifo {
    fn small_size(&self) -> usize {
        (self.capacity / 10).max(1)
    }

    fn evict_small(&mut self) {
        while let Some(key) = self.small.pop() {
            if self.uses.get(&key).is_some_and(|uses| *uses > 1) {
                self.uses.insert(key, 0);
                self.main.push(key);
                continue;
            }
            self.uses.remove(&key);
            self.ghosts.push(key);
            if self.ghosts.len() > self.capacity - self.small_size() {
                self.ghosts.pop();
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop() {
            match self.uses.get_mut(&key) {
                Some(uses) if *uses > 0 => {
                    *uses -= 1;
                    self.main.push(key);
                }
                _ => {
                    self.uses.remove(&key);
                    return;
                }
            }
        }
    }
}
