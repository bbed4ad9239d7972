//! Keys in an order, each of which can be found and taken out at once.

use foldhash::HashMap;
use foldhash::HashMapExt;

const END: usize = usize::MAX;

struct Node {
    key: u64,
    before: usize,
    after: usize,
}

/// A queue of distinct keys.
pub(crate) struct Order {
    places: HashMap<u64, usize>,
    nodes: Vec<Node>,
    free: Vec<usize>,
    first: usize,
    last: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            first: END,
            last: END,
        }
    }
}

impl Order {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.places.contains_key(&key)
    }

    /// The oldest.
    pub(crate) fn first(&self) -> Option<u64> {
        self.nodes.get(self.first).map(|node| node.key)
    }

    /// The one that came next after this one.
    pub(crate) fn after(&self, key: u64) -> Option<u64> {
        let node = &self.nodes[*self.places.get(&key)?];
        self.nodes.get(node.after).map(|node| node.key)
    }

    /// Adds a key that is not in it as the newest.
    pub(crate) fn push(&mut self, key: u64) {
        let node = Node {
            key,
            before: self.last,
            after: END,
        };
        let place = if let Some(place) = self.free.pop() {
            self.nodes[place] = node;
            place
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        };
        self.places.insert(key, place);
        match self.nodes.get_mut(self.last) {
            Some(last) => last.after = place,
            None => self.first = place,
        }
        self.last = place;
    }

    /// Whether it was in it.
    pub(crate) fn remove(&mut self, key: u64) -> bool {
        let Some(place) = self.places.remove(&key) else {
            return false;
        };
        let (before, after) = (self.nodes[place].before, self.nodes[place].after);
        match self.nodes.get_mut(before) {
            Some(node) => node.after = after,
            None => self.first = after,
        }
        match self.nodes.get_mut(after) {
            Some(node) => node.before = before,
            None => self.last = before,
        }
        self.free.push(place);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<u64> {
        let key = self.first()?;
        self.remove(key);
        Some(key)
    }

    /// Makes it the newest. Whether it was in it.
    pub(crate) fn touch(&mut self, key: u64) -> bool {
        let found = self.remove(key);
        if found {
            self.push(key);
        }
        found
    }
}
