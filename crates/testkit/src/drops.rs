//! What became of values.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Counts values made and dropped, over all threads. Clones count together.
///
/// ```
/// use overdrive_testkit::DropCounter;
///
/// let counter = DropCounter::new();
/// let held = vec![counter.token(), counter.token()];
/// drop(held[0].clone());
/// assert_eq!((counter.made(), counter.dropped(), counter.alive()), (3, 1, 2));
/// drop(held);
/// assert_eq!(counter.alive(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DropCounter {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl DropCounter {
    /// A counter at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that is counted.
    pub fn token(&self) -> Token {
        self.make(false)
    }

    /// A value that is counted and whose drop panics, after it has been counted, unless the
    /// thread is panicking already. Its clones do not.
    pub fn panicking(&self) -> Token {
        self.make(true)
    }

    /// Values made so far.
    #[must_use]
    pub fn made(&self) -> usize {
        self.counts.made.load(Ordering::SeqCst)
    }

    /// Values dropped so far.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::SeqCst)
    }

    /// Values that exist now.
    #[must_use]
    pub fn alive(&self) -> usize {
        // In this order, so that a value made in between does not make it negative.
        let dropped = self.dropped();
        self.made() - dropped
    }

    fn make(&self, panics: bool) -> Token {
        self.counts.made.fetch_add(1, Ordering::SeqCst);
        Token {
            counts: self.counts.clone(),
            panics,
        }
    }
}

/// A counted value, from [`DropCounter::token`]. A clone is another one.
#[must_use = "it is dropped at once"]
pub struct Token {
    counts: Arc<Counts>,
    panics: bool,
}

impl Clone for Token {
    fn clone(&self) -> Self {
        let counts = self.counts.clone();
        DropCounter { counts }.token()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("panics", &self.panics)
            .finish_non_exhaustive()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics || thread::panicking(), "a token's drop panics");
    }
}

/// Panics when it is dropped, with itself less one as the payload: a panic payload whose own
/// destructor panics, so many times over. `PanicOnDrop(0)` drops quietly.
///
/// ```
/// use overdrive_testkit::PanicOnDrop;
///
/// let caught = std::panic::catch_unwind(|| drop(PanicOnDrop(1))).unwrap_err();
/// assert_eq!(caught.downcast_ref::<PanicOnDrop>().unwrap().0, 0);
/// ```
#[derive(Debug)]
pub struct PanicOnDrop(pub u32);

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        if self.0 > 0 && !thread::panicking() {
            std::panic::panic_any(Self(self.0 - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panicking_token_is_counted_and_panics_once() {
        let counter = DropCounter::new();
        let token = counter.panicking();
        let clone = token.clone();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(token))).is_err());
        drop(clone);
        assert_eq!((counter.made(), counter.dropped()), (2, 2));
    }

    #[test]
    fn a_token_does_not_panic_within_a_panic() {
        let counter = DropCounter::new();
        let token = counter.panicking();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _token = token;
            panic!("first");
        }));
        assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "first");
        assert_eq!(counter.alive(), 0);
    }

    #[test]
    fn payloads_panic_as_often_as_they_say() {
        let mut payload: Box<dyn std::any::Any + Send> = Box::new(PanicOnDrop(3));
        let mut panics = 0;
        while let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            payload = next;
            panics += 1;
        }
        assert_eq!(panics, 3);
    }
}
