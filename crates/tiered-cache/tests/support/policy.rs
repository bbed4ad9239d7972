//! Which entry goes: the rules of one shard of entries that weigh one, in few lines. The tests
//! hold the cache to it, and the benchmarks' simulator runs it.
//!
//! It knows keys by their hashes alone, which must be distinct.

use std::collections::{HashMap, VecDeque};

/// A cache that says what it would keep.
#[derive(Debug)]
pub(crate) struct Policy {
    capacity: usize,
    /// The noted uses of what is in the window, and of what is in the main queue.
    window: HashMap<u32, u8>,
    main: HashMap<u32, u8>,
    window_order: VecDeque<u32>,
    main_order: VecDeque<u32>,
    history: History,
}

impl Policy {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            window: HashMap::new(),
            main: HashMap::new(),
            window_order: VecDeque::new(),
            main_order: VecDeque::new(),
            history: History::new(capacity),
        }
    }

    /// Gets the key, or else stores it: whether it was there.
    pub(crate) fn access(&mut self, key: u32) -> bool {
        self.get(key) || {
            self.insert(key);
            false
        }
    }

    pub(crate) fn contains(&self, key: u32) -> bool {
        self.window.contains_key(&key) || self.main.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.window.len() + self.main.len()
    }

    pub(crate) fn get(&mut self, key: u32) -> bool {
        let uses = self
            .window
            .get_mut(&key)
            .or_else(|| self.main.get_mut(&key));
        let found = uses.map(|uses| *uses = (*uses + 1).min(3));
        found.is_some()
    }

    /// A key that is there is used; it stays where it is.
    pub(crate) fn insert(&mut self, key: u32) {
        if self.get(key) {
            return;
        }
        let full = self.len() == self.capacity;
        if full {
            self.evict();
        }
        self.history.fit(self.len() + 1);
        self.history.count(key);
        let returns = self.history.recall(key);
        self.window.insert(key, u8::from(returns));
        self.window_order.push_back(key);
        while !full && self.window.len() > self.window_size() {
            if let Some(key) = self.window_order.front().copied() {
                self.take_uses(key);
                self.promote();
            }
        }
    }

    pub(crate) fn remove(&mut self, key: u32) -> bool {
        self.window_order.retain(|&other| other != key);
        self.main_order.retain(|&other| other != key);
        self.window.remove(&key).is_some() || self.main.remove(&key).is_some()
    }

    fn window_size(&self) -> usize {
        (self.capacity / 16).max(1)
    }

    fn evict(&mut self) {
        loop {
            let grows = self.window.len() < self.window_size() || self.window.is_empty();
            if let Some(victim) = grows.then(|| self.victim()).flatten() {
                self.main_order.pop_front();
                self.main.remove(&victim);
                return;
            }
            let Some(&candidate) = self.window_order.front() else {
                return;
            };
            let used = self.take_uses(candidate);
            let Some(victim) = self.victim() else {
                if self.window.len() == 1 {
                    self.turn_away();
                    return;
                }
                self.promote();
                continue;
            };
            let frequency = self.history.frequency(victim);
            if used || self.history.frequency(candidate) > frequency.max(1) {
                self.promote();
                self.main_order.pop_front();
                self.main.remove(&victim);
            } else {
                self.history.note(candidate);
                self.turn_away();
            }
            return;
        }
    }

    /// The first of the main queue that was not used; one that was goes to its end, with a use
    /// less.
    fn victim(&mut self) -> Option<u32> {
        loop {
            let key = *self.main_order.front()?;
            match self.main.get_mut(&key) {
                Some(uses) if *uses > 0 => *uses -= 1,
                _ => return Some(key),
            }
            self.history.count(key);
            self.main_order.rotate_left(1);
        }
    }

    fn take_uses(&mut self, key: u32) -> bool {
        let uses = self.window.insert(key, 0).unwrap_or(0);
        for _ in 0..uses {
            self.history.count(key);
        }
        uses > 0
    }

    fn turn_away(&mut self) {
        if let Some(key) = self.window_order.pop_front() {
            self.window.remove(&key);
        }
    }

    fn promote(&mut self) {
        if let Some(key) = self.window_order.pop_front() {
            self.window.remove(&key);
            self.main.insert(key, 0);
            self.main_order.push_back(key);
        }
    }
}

/// Seven words of sixteen counters, four of which are a key's, and a queue of the tags of four
/// keys that were turned away.
#[derive(Clone, Debug, Default)]
struct Line {
    counters: [[u8; 16]; 7],
    queue: [u16; 4],
}

#[derive(Debug)]
struct History {
    entries: usize,
    capacity: usize,
    lines: Vec<Line>,
    uses: usize,
}

impl History {
    fn new(capacity: usize) -> Self {
        let mut entries = capacity;
        while entries > 1024 {
            entries = entries.div_ceil(2);
        }
        Self {
            entries,
            capacity,
            lines: vec![Line::default(); (entries * 5).div_ceil(56).max(32)],
            uses: 0,
        }
    }

    fn fit(&mut self, entries: usize) {
        while entries > self.entries && self.entries < self.capacity {
            self.entries *= 2;
            let lines = self.lines.iter();
            self.lines = lines
                .flat_map(|line| [line.clone(), line.clone()])
                .collect();
        }
    }

    fn line(&mut self, key: u32) -> &mut Line {
        let mixed = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let line = (mixed * self.lines.len() as u64) >> 32;
        &mut self.lines[line as usize]
    }

    fn mixed(key: u32) -> usize {
        u64::from(key).wrapping_mul(0xd6e8_feb8_6659_fd93) as usize
    }

    /// The word that counts it, and which of its counters do: one in each quarter.
    fn counters(&mut self, key: u32) -> (&mut [u8; 16], [usize; 4]) {
        let mixed = Self::mixed(key);
        let word = (((mixed >> 40) & 0xffff) * 7) >> 16;
        let of = [0, 1, 2, 3].map(|quarter| 4 * quarter + ((mixed >> (32 + 2 * quarter)) & 3));
        (&mut self.line(key).counters[word], of)
    }

    fn frequency(&mut self, key: u32) -> u8 {
        let (word, of) = self.counters(key);
        of.map(|at| word[at]).into_iter().min().unwrap_or(0)
    }

    fn count(&mut self, key: u32) {
        let least = self.frequency(key);
        let (word, of) = self.counters(key);
        for at in of {
            if word[at] == least && least < 15 {
                word[at] += 1;
            }
        }
        self.uses += 1;
        if self.uses >= 5 * self.entries {
            self.uses /= 2;
            let words = self.lines.iter_mut().flat_map(|line| &mut line.counters);
            for counter in words.flatten() {
                *counter /= 2;
            }
        }
    }

    fn note(&mut self, key: u32) {
        let queue = &mut self.line(key).queue;
        queue.rotate_right(1);
        queue[0] = Self::mixed(key) as u16 | 1;
    }

    fn recall(&mut self, key: u32) -> bool {
        let tag = Self::mixed(key) as u16 | 1;
        let queue = &mut self.line(key).queue;
        let at = queue.iter().position(|&other| other == tag);
        at.is_some_and(|at| {
            queue[at..].rotate_left(1);
            queue[3] = 0;
            true
        })
    }
}
