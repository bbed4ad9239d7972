//! Objects that know whether each of them is dropped exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Makes objects and counts their drops.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Sums>);

#[derive(Default)]
struct Sums {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

pub(crate) struct Object {
    pub(crate) id: usize,
    pub(crate) dirty: bool,
    pub(crate) bomb: bool,
    held: AtomicBool,
    ledger: Ledger,
}

impl Ledger {
    pub(crate) fn make(&self) -> Object {
        let id = self.0.made.fetch_add(1, Ordering::SeqCst);
        let (dirty, bomb, held) = (false, false, AtomicBool::new(false));
        Object {
            id,
            dirty,
            bomb,
            held,
            ledger: self.clone(),
        }
    }

    pub(crate) fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.made() - self.dropped()
    }
}

impl Object {
    /// Marks it as held by one user, who must be the only one.
    pub(crate) fn hold(&self) {
        assert!(
            !self.held.swap(true, Ordering::AcqRel),
            "object {} has two users",
            self.id
        );
    }

    pub(crate) fn release(&self) {
        assert!(
            self.held.swap(false, Ordering::AcqRel),
            "object {} was not held",
            self.id
        );
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.ledger.0.dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.bomb, "object {} panics in its drop", self.id);
    }
}
