//! First come, first served, for those who may give up.

use std::collections::VecDeque;

/// A queue of which anyone can leave: by binary search, and without moving the others. A place that
/// was left stays until half of them are such.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    /// By growing number. The first is never one that was left.
    places: VecDeque<(u64, Option<T>)>,
    taken: usize,
}

/// So few places left are not worth the trouble.
const FEW: usize = 32;

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            taken: 0,
        }
    }
}

impl<T> Fifo<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// At the end. Ids grow.
    pub(crate) fn push(&mut self, id: u64, item: T) {
        self.places.push_back((id, Some(item)));
        self.taken += 1;
    }

    pub(crate) fn first(&self) -> Option<(u64, &T)> {
        let (id, item) = self.places.front()?;
        Some((*id, item.as_ref()?))
    }

    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        self.places.front_mut()?.1.as_mut()
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let at = self.at(id)?;
        self.places[at].1.as_mut()
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let at = self.at(id)?;
        let item = self.places[at].1.take()?;
        self.taken -= 1;
        while self.places.front().is_some_and(|(_, item)| item.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.taken + FEW {
            self.places.retain(|(_, item)| item.is_some());
        }
        Some(item)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        let places = self.places.iter_mut();
        places.filter_map(|(id, item)| Some((*id, item.as_mut()?)))
    }

    fn at(&self, id: u64) -> Option<usize> {
        self.places.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_leaves_the_order_as_it_was() {
        let mut fifo = Fifo::default();
        for id in 0..1000_u64 {
            fifo.push(id, 2 * id);
        }
        for id in (0..1000).filter(|id| id % 10 != 3) {
            assert_eq!(fifo.remove(id), Some(2 * id));
            assert_eq!(fifo.remove(id), None);
        }
        assert_eq!(fifo.len(), 100);
        assert!(fifo.places.len() <= 2 * 100 + FEW);
        assert_eq!(fifo.get_mut(13), Some(&mut 26));
        assert_eq!(fifo.get_mut(14), None);
        let order: Vec<_> = std::iter::from_fn(|| {
            let (id, _) = fifo.first()?;
            Some((id, fifo.remove(id)?))
        })
        .collect();
        let expected: Vec<_> = (0..100).map(|n| (10 * n + 3, 2 * (10 * n + 3))).collect();
        assert_eq!(order, expected);
        assert!(fifo.is_empty() && fifo.places.is_empty());
    }
}
