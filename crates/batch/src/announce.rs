//! Items that are on their way.

use std::fmt;

use crate::batcher::Batcher;
use crate::submit::Submit;

/// The word that an item will come, from [`Batcher::announce`]. Dropped, it is taken back.
#[must_use = "dropping it takes the announcement back"]
pub struct Announced<'a, T, R, E> {
    batcher: &'a Batcher<T, R, E>,
    open: bool,
}

impl<'a, T, R, E> Announced<'a, T, R, E> {
    pub(crate) fn new(batcher: &'a Batcher<T, R, E>) -> Self {
        batcher.shared().announce();
        let open = true;
        Self { batcher, open }
    }

    /// Submits the announced item: as [`Batcher::submit`]. The announcement holds until the future
    /// is first polled, or dropped.
    pub fn submit(mut self, item: T) -> Submit<'a, T, R, E> {
        self.open = false;
        Submit::announced(self.batcher, item)
    }
}

impl<T, R, E> Drop for Announced<'_, T, R, E> {
    fn drop(&mut self) {
        if self.open {
            self.batcher.shared().came();
        }
    }
}

impl<T, R, E> fmt::Debug for Announced<'_, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announced").finish_non_exhaustive()
    }
}
