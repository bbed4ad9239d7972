//! Giving idle memory back: the depot at once, thread caches by calling their owners in.

use crate::engine::{Inner, Owed, Shared, answer, drop_all};
use crate::local::Me;
use crate::stats::{Count, TrimReport};
use crate::sync::{Mutant, removed};

impl<T: Send + 'static> Inner<T> {
    /// Drops all idle objects.
    pub(crate) fn trim(&self, me: Me) -> TrimReport {
        let mut owed = Owed::NOTHING;
        let asked = {
            let Shared { depot, registry } = &mut *self.lock();
            let call = depot.calls.empty();
            owed.drop = depot.take_all();
            depot.count(Count::Trimmed, owed.drop.len() as u64);
            if let Some(mine) = registry.mine(me) {
                answer(depot, mine, &mut owed);
            }
            registry.call_in(self.front(), me, call)
        };
        self.dispose(owed.drop, asked)
    }

    /// Drops the oldest idle objects until the depot weighs `bytes` or less.
    pub(crate) fn trim_to(&self, me: Me, bytes: usize) -> TrimReport {
        let mut owed = Owed::NOTHING;
        let asked = {
            let Shared { depot, registry } = &mut *self.lock();
            let call = depot.calls.hand_in(bytes);
            if let Some(mine) = registry.mine(me) {
                answer(depot, mine, &mut owed);
            }
            registry.call_in(self.front(), me, call)
        };
        let first = self.dispose(owed.drop, asked);
        let mut report = self.shrink_depot(bytes);
        report.dropped += first.dropped;
        report.bytes += first.bytes;
        report.caches_asked = asked;
        report
    }

    /// One idle pass.
    pub(crate) fn trim_idle(&self, me: Me) -> TrimReport {
        let mut owed = Owed::NOTHING;
        let asked = {
            let Shared { depot, registry } = &mut *self.lock();
            owed.drop = depot.take_unneeded();
            depot.count(Count::Trimmed, owed.drop.len() as u64);
            let call = depot.calls.halve();
            if let Some(mine) = registry.mine(me) {
                answer(depot, mine, &mut owed);
            }
            registry.call_in(self.front(), me, call)
        };
        self.dispose(owed.drop, asked)
    }

    /// Takes the depot's objects out, weighs them, drops the oldest and puts the others back.
    pub(crate) fn shrink_depot(&self, bytes: usize) -> TrimReport {
        let mut out = Out {
            pool: self,
            objects: self.lock().depot.take_all(),
        };
        // From the newest down, so that the weights need not be kept.
        let mut kept = 0_usize;
        let mut total = 0_usize;
        for object in out.objects.iter().rev() {
            total = total.saturating_add(self.weigh(object));
            if total > bytes {
                break;
            }
            kept += 1;
        }
        let newest = out.objects.split_off(out.objects.len() - kept);
        let oldest = std::mem::replace(&mut out.objects, newest);
        self.lock().depot.count(Count::Trimmed, oldest.len() as u64);
        drop(out);
        self.dispose(oldest, 0)
    }

    fn dispose(&self, objects: Vec<Box<T>>, caches_asked: usize) -> TrimReport {
        let mut doomed = Doomed(objects);
        let bytes = doomed
            .0
            .iter()
            .fold(0_usize, |sum, o| sum.saturating_add(self.weigh(o)));
        let dropped = doomed.0.len();
        drop_all(std::mem::take(&mut doomed.0));
        TrimReport {
            dropped,
            bytes,
            caches_asked,
        }
    }
}

/// The depot's objects while they are weighed. They go back even if the weigher panics.
struct Out<'a, T: Send + 'static> {
    pool: &'a Inner<T>,
    objects: Vec<Box<T>>,
}

impl<T: Send + 'static> Drop for Out<'_, T> {
    fn drop(&mut self) {
        let objects = std::mem::take(&mut self.objects);
        let surplus = {
            let depot = &mut self.pool.lock().depot;
            // Others may have filled the depot meanwhile.
            let room = match removed(Mutant::RestoreBlindly) {
                false => depot.room(),
                true => usize::MAX,
            };
            let surplus = depot.put_under(objects, room);
            depot.count(Count::Surplus, surplus.len() as u64);
            surplus
        };
        drop_all(surplus);
    }
}

/// Objects that are dropped whatever happens, each even if another one's destructor panics.
struct Doomed<T>(Vec<Box<T>>);

impl<T> Drop for Doomed<T> {
    fn drop(&mut self) {
        drop_all(std::mem::take(&mut self.0));
    }
}
