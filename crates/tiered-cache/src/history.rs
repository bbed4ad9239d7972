//! What a shard remembers of keys, those that it no longer holds included.
//!
//! How often each came lately: a count-min sketch of four-bit counters with conservative updates
//! and halving (Einziger, Friedman, Manes: "TinyLFU", ACM ToS 2017), all four counters of a key in
//! one word. And which were turned away last: tags in queues of four.

/// For how many entries it is first laid out, at most; it doubles as they become more.
const LEAST: usize = 1024;
/// Counters for an entry, in sixteenths of a word.
const COUNTERS: usize = 10;
const LEAST_WORDS: usize = 256;
/// Counters are halved after so many uses for each entry.
const SAMPLE: u64 = 5;
/// Entries for each word of four ghosts.
const GHOSTS: usize = 8;
/// The most that is counted.
pub(crate) const MOST: u64 = 15;

#[derive(Debug)]
pub(crate) struct History {
    /// For how many entries it is laid out, and will be at most.
    entries: usize,
    max: usize,
    counters: Vec<u64>,
    ghosts: Vec<u64>,
    uses: u64,
}

impl History {
    pub(crate) fn new(max: usize) -> Self {
        let mut history = Self {
            entries: 0,
            max: 0,
            counters: Vec::new(),
            ghosts: Vec::new(),
            uses: 0,
        };
        history.reset(max);
        history
    }

    /// Forgets all, and is for up to so many entries from now on.
    pub(crate) fn reset(&mut self, max: usize) {
        let mut entries = max.max(1);
        while entries > LEAST {
            entries = entries.div_ceil(2);
        }
        self.entries = entries;
        self.max = max;
        self.counters = vec![0; (entries * COUNTERS).div_ceil(16).max(LEAST_WORDS)];
        self.ghosts = vec![0; entries.div_ceil(GHOSTS)];
        self.uses = 0;
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Makes it large enough for so many entries; it forgets nothing.
    pub(crate) fn fit(&mut self, entries: usize) {
        while entries > self.entries && self.entries < self.max {
            self.entries *= 2;
            // Where a key's word is grows with the number of words: all double their place.
            self.counters = twice(&self.counters);
            self.ghosts = twice(&self.ghosts);
        }
    }

    /// Counts a use, or several.
    pub(crate) fn count(&mut self, hash: u32, uses: u8) {
        let (at, shifts) = self.place(hash);
        for _ in 0..uses {
            let word = self.counters[at];
            let least = least(word, shifts);
            if least < MOST {
                for shift in shifts {
                    if (word >> shift) & 15 == least {
                        self.counters[at] += 1 << shift;
                    }
                }
            }
            self.uses += 1;
            if self.uses >= SAMPLE * self.entries as u64 {
                self.halve();
            }
        }
    }

    /// How often it came lately, at least as often as it did.
    pub(crate) fn frequency(&self, hash: u32) -> u64 {
        let (at, shifts) = self.place(hash);
        least(self.counters[at], shifts)
    }

    fn halve(&mut self) {
        self.uses /= 2;
        for word in &mut self.counters {
            *word = (*word >> 1) & 0x7777_7777_7777_7777;
        }
    }

    /// The word, and the shifts of one counter in each of its quarters.
    #[inline]
    fn place(&self, hash: u32) -> (usize, [u32; 4]) {
        let mixed = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = (mixed >> 8) as u32;
        let shift = |quarter: u32| 16 * quarter + 4 * ((low >> (2 * quarter)) & 3);
        let at = scale((mixed >> 32) as u32, self.counters.len());
        (at, [shift(0), shift(1), shift(2), shift(3)])
    }

    /// Notes that it was turned away, and forgets the oldest of its queue.
    pub(crate) fn note(&mut self, hash: u32) {
        let (at, tag) = self.ghost(hash);
        self.ghosts[at] = (self.ghosts[at] << 16) | tag;
    }

    /// Whether it was turned away lately. That is forgotten then.
    pub(crate) fn recall(&mut self, hash: u32) -> bool {
        let (at, tag) = self.ghost(hash);
        let queue = self.ghosts[at];
        let place = (0..4).find(|place| (queue >> (16 * place)) & 0xffff == tag);
        let Some(place) = place else {
            return false;
        };
        let newer = queue & !(u64::MAX << (16 * place));
        let older = queue.checked_shr(16 * (place + 1)).unwrap_or(0) << (16 * place);
        self.ghosts[at] = older | newer;
        true
    }

    /// The queue, and a tag that is not zero.
    fn ghost(&self, hash: u32) -> (usize, u64) {
        let mixed = u64::from(hash).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let at = scale((mixed >> 32) as u32, self.ghosts.len());
        (at, (mixed & 0xffff) | 1)
    }
}

fn least(word: u64, shifts: [u32; 4]) -> u64 {
    let [a, b, c, d] = shifts.map(|shift| (word >> shift) & 15);
    a.min(b).min(c.min(d))
}

fn scale(hash: u32, n: usize) -> usize {
    ((u64::from(hash) * n as u64) >> 32) as usize
}

fn twice(words: &[u64]) -> Vec<u64> {
    words.iter().flat_map(|&word| [word, word]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_never_too_low_and_survive_growth() {
        let mut history = History::new(1 << 20);
        for hash in 0..300_u32 {
            history.count(hash << 20, (hash % 7) as u8);
        }
        for entries in [1, 1 << 12, 1 << 20] {
            history.fit(entries);
            for hash in 0..300 {
                assert!(history.frequency(hash << 20) >= u64::from(hash % 7));
            }
        }
        let exact = (0..300).filter(|hash| history.frequency(hash << 20) == u64::from(hash % 7));
        assert!(exact.count() > 250);
    }

    #[test]
    fn counts_are_halved_in_time() {
        let mut history = History::new(100);
        history.count(1, 8);
        assert_eq!(history.frequency(1), 8);
        for hash in 2..494 {
            history.count(hash << 16, 1);
        }
        assert!(history.frequency(1) < 8);
    }

    #[test]
    fn a_queue_forgets_its_oldest() {
        let mut history = History::new(1);
        let hashes: Vec<u32> = (1..6).map(|n| n * 1_000_003).collect();
        for &hash in &hashes {
            history.note(hash);
        }
        let recalled: Vec<bool> = hashes.iter().map(|&hash| history.recall(hash)).collect();
        assert_eq!(recalled, [false, true, true, true, true]);
        assert!(!history.recall(hashes[4]), "each once");
    }
}
