//! Flushing, closing, giving up.

use super::{Goal, Shared, State};
use crate::after::After;
use crate::error::SubmitError;
use crate::settings::Gather;

impl<T, R, E> Shared<T, R, E> {
    /// The goal that everything submitted so far has ended, with no more lingering over it.
    pub(crate) fn flush(&self) -> Goal {
        let goal = self.with(|state, after| {
            state.flush_mark = state.queue.seal();
            state.rouse_gatherer(after);
            Goal::Past(state.flush_mark)
        });
        self.drive();
        goal
    }

    /// An item is announced.
    pub(crate) fn announce(&self) {
        self.lock().announced += 1;
    }

    /// An announced item has come, or never will.
    pub(crate) fn came(&self) {
        self.with(|state, after| {
            state.announced -= 1;
            if state.announced == 0 && self.rules.gather == Gather::Announced {
                state.rouse_gatherer(after);
            }
        });
    }

    /// Takes no more items. Those who wait for room get theirs back.
    pub(crate) fn close(&self) {
        self.with(|state, after| self.close_state(state, after));
    }

    /// As [`close`](Self::close), of who then [watches](Self::watch) what is left being run: where that
    /// is by the submitters it need not be here.
    pub(crate) fn close_to_drain(&self) {
        self.with(|state, after| {
            self.refuse_more(state, after);
            if !self.rules.inline || state.queue.is_empty() {
                state.rouse_all(after);
            }
        });
    }

    pub(super) fn close_state(&self, state: &mut State<T, R, E>, after: &mut After<T, R, E>) {
        self.refuse_more(state, after);
        state.rouse_all(after);
    }

    fn refuse_more(&self, state: &mut State<T, R, E>, after: &mut After<T, R, E>) {
        state.closed = true;
        let refused = self.truncate(state, self.rules.capacity, after, SubmitError::Closed);
        state.counts.rejected += refused;
        state.settle(after);
    }

    fn truncate(
        &self,
        state: &mut State<T, R, E>,
        keep: usize,
        after: &mut After<T, R, E>,
        error: impl Fn(T) -> SubmitError<T, E>,
    ) -> u64 {
        let (ended, gone) = state.queue.truncate(keep, |item| Err(error(item)), after);
        for batch in gone {
            self.retire(state, Some(batch));
        }
        ended as u64
    }

    /// Gives up on everything that has not ended; how much that was.
    pub(crate) fn abandon(&self) -> u64 {
        self.with(|state, after| {
            self.close_state(state, after);
            let before = state.counts.abandoned;
            self.abandon_queue(state, after);
            for worker in 0..state.desks.len() {
                self.abandon_running(state, worker, after);
            }
            state.settle(after);
            state.counts.abandoned - before
        })
    }

    pub(super) fn abandon_queue(&self, state: &mut State<T, R, E>, after: &mut After<T, R, E>) {
        let error = |item| SubmitError::Abandoned(Some(item));
        state.counts.abandoned += self.truncate(state, 0, after, error);
    }

    pub(super) fn abandon_running(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        after: &mut After<T, R, E>,
    ) {
        let desk = &mut state.desks[worker];
        state.counts.abandoned += std::mem::take(&mut desk.size) as u64;
        for mut batch in std::mem::take(&mut desk.batches) {
            let error = || Err(SubmitError::Abandoned(None));
            batch.slots.finish(std::iter::repeat_with(error), after);
            self.retire(state, Some(batch));
        }
    }
}
