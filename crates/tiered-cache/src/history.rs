//! What a shard remembers of keys, those that it no longer holds included.
//!
//! How often each came lately: a count-min sketch of four-bit counters with conservative updates
//! and halving (Einziger, Friedman, Manes: "TinyLFU", ACM ToS 2017), all four counters of a key in
//! one word. And which were turned away last: tags in queues of four.

use crate::index::MAX_SLOTS;
use crate::line::prefetch;

/// For how many entries it is first laid out, at most; it doubles as they become more.
const LEAST: usize = 1024;
/// If it is not known how many there may be.
const LEAST_OPEN: usize = 64;
/// Words of counters in a line; the last one of its eight is a queue.
const WORDS: usize = 7;
/// Lines for so many entries: ten counters for each.
const LINES: usize = 5;
const ENTRIES: usize = 56;
const LEAST_LINES: usize = 32;
/// Counters are halved after so many uses for each entry.
const SAMPLE: u64 = 5;
/// The most that is counted.
const MOST: u64 = 15;

/// All that is known of a key is in one line of memory.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    /// Of sixteen counters each.
    counters: [u64; WORDS],
    /// The tags of four keys that were turned away, the last one lowest.
    queue: u64,
}

#[derive(Debug)]
pub(crate) struct History {
    lines: Vec<Line>,
    uses: u64,
    /// For how many entries it is laid out, and will be at most.
    entries: usize,
    max: usize,
    /// How many entries it can have without growth.
    room: usize,
    /// After how many uses counters are halved.
    sample: u64,
}

/// Where something of a key is.
struct Place {
    line: usize,
    word: usize,
    /// Of one counter in each quarter of the word.
    shifts: [u32; 4],
    /// Not zero.
    tag: u64,
}

impl History {
    pub(crate) fn new(max: usize) -> Self {
        let mut history = Self {
            lines: Vec::new(),
            uses: 0,
            entries: 0,
            max: 0,
            room: 0,
            sample: 0,
        };
        history.reset(max);
        history
    }

    /// Forgets all, and is for up to so many entries from now on.
    pub(crate) fn reset(&mut self, max: usize) {
        let least = if max < MAX_SLOTS { LEAST } else { LEAST_OPEN };
        let mut entries = max.max(1);
        while entries > least {
            entries = entries.div_ceil(2);
        }
        let empty = Line {
            counters: [0; WORDS],
            queue: 0,
        };
        self.lines = vec![empty; (entries * LINES).div_ceil(ENTRIES).max(LEAST_LINES)];
        self.entries = entries;
        self.max = max;
        self.uses = 0;
        self.measure();
    }

    fn measure(&mut self) {
        let is_largest = self.entries >= self.max;
        self.room = if is_largest { usize::MAX } else { self.entries };
        self.sample = SAMPLE * self.entries as u64;
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Makes it large enough for so many entries; it forgets nothing.
    #[inline]
    pub(crate) fn fit(&mut self, entries: usize) {
        if entries > self.room {
            self.grow(entries);
        }
    }

    #[cold]
    fn grow(&mut self, entries: usize) {
        while entries > self.entries && self.entries < self.max {
            self.entries *= 2;
            // Where a key's line is grows with the number of lines: all double their place.
            let lines = self.lines.iter().flat_map(|&line| [line, line]);
            self.lines = lines.collect();
        }
        self.measure();
    }

    /// Has the processor fetch what is known of the key.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(self.lines.as_ptr().wrapping_add(self.line(hash)));
    }

    /// Counts one use: whether the key was turned away lately, which is forgotten then.
    #[inline]
    pub(crate) fn arrive(&mut self, hash: u32) -> bool {
        let place = self.place(hash);
        self.count_at(&place);
        self.recall_at(&place)
    }

    /// Counts so many uses.
    #[inline]
    pub(crate) fn count(&mut self, hash: u32, uses: u8) {
        if uses == 0 {
            return;
        }
        let place = self.place(hash);
        for _ in 0..uses {
            self.count_at(&place);
        }
    }

    #[inline(always)]
    fn count_at(&mut self, place: &Place) {
        let word = &mut self.lines[place.line].counters[place.word];
        let least = least(*word, place.shifts);
        if least < MOST {
            // A counter that is not the least one has a bit other than that one's.
            let ones = place.shifts.map(|shift| 1 << shift);
            let ones = ones[0] | ones[1] | ones[2] | ones[3];
            let differs = *word ^ (ones * least);
            let differs = differs | differs >> 1;
            let differs = differs | differs >> 2;
            *word += ones & !differs;
        }
        self.uses += 1;
        if self.uses >= self.sample {
            self.halve();
        }
    }

    /// Whether the first key came more often lately than the second one, and more than once.
    /// Where it did not, the first one is noted as turned away, and forgets the oldest of its queue.
    #[inline]
    pub(crate) fn prefers(&mut self, candidate: u32, other: u32) -> bool {
        let place = self.place(candidate);
        let frequency = self.frequency_at(&place);
        if frequency > 1 && frequency > self.frequency(other) {
            return true;
        }
        let queue = &mut self.lines[place.line].queue;
        *queue = (*queue << 16) | place.tag;
        false
    }

    /// How often it came lately, at least as often as it did.
    #[inline]
    pub(crate) fn frequency(&self, hash: u32) -> u64 {
        self.frequency_at(&self.place(hash))
    }

    #[inline]
    fn frequency_at(&self, place: &Place) -> u64 {
        least(self.lines[place.line].counters[place.word], place.shifts)
    }

    #[cold]
    fn halve(&mut self) {
        self.uses /= 2;
        for word in self.lines.iter_mut().flat_map(|line| &mut line.counters) {
            *word = (*word >> 1) & 0x7777_7777_7777_7777;
        }
    }

    #[inline]
    fn line(&self, hash: u32) -> usize {
        let mixed = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (((mixed >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn place(&self, hash: u32) -> Place {
        let other = u64::from(hash).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let bits = (other >> 32) as u32;
        let shift = |quarter: u32| 16 * quarter + ((bits << 2 >> (2 * quarter)) & 12);
        Place {
            line: self.line(hash),
            word: ((((other >> 40) & 0xffff) * WORDS as u64) >> 16) as usize,
            shifts: [shift(0), shift(1), shift(2), shift(3)],
            tag: (other & 0xffff) | 1,
        }
    }

    #[inline]
    fn recall_at(&mut self, place: &Place) -> bool {
        let queue = &mut self.lines[place.line].queue;
        // A tag that is the key's leaves nothing of its sixteen bits.
        let others = *queue ^ (place.tag * 0x1_0001_0001_0001);
        if others.wrapping_sub(0x1_0001_0001_0001) & !others & 0x8000_8000_8000_8000 == 0 {
            return false;
        }
        let tags = [0, 1, 2, 3].map(|at| (*queue >> (16 * at)) & 0xffff == place.tag);
        let at = tags.iter().position(|&is_it| is_it).unwrap_or(0) as u32;
        let newer = *queue & !(u64::MAX << (16 * at));
        let older = queue.checked_shr(16 * (at + 1)).unwrap_or(0) << (16 * at);
        *queue = older | newer;
        true
    }
}

#[inline]
fn least(word: u64, shifts: [u32; 4]) -> u64 {
    let [a, b, c, d] = shifts.map(|shift| (word >> shift) & 15);
    a.min(b).min(c.min(d))
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

    fn recall(history: &mut History, hash: u32) -> bool {
        let place = history.place(hash);
        history.recall_at(&place)
    }

    #[test]
    fn a_queue_forgets_its_oldest() {
        let mut history = History::new(1);
        let line = |hash: &u32| history.place(*hash).line == 0;
        let hashes: Vec<u32> = (1..).filter(line).take(5).collect();
        for &hash in &hashes {
            assert!(!history.prefers(hash, hash));
        }
        let recalled: Vec<bool> = hashes
            .iter()
            .map(|&hash| recall(&mut history, hash))
            .collect();
        assert_eq!(recalled, [false, true, true, true, true]);
        assert!(!recall(&mut history, hashes[4]), "each once");
    }
}
