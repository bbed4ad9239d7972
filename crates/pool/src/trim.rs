//! Giving idle memory back: the depot at once, thread caches by calling their owners in.

use crate::engine::{FirstPanic, Inner, Owed, Shared, answer, drop_all, hand_over};
use crate::local::Me;
use crate::stats::{Count, TrimReport};

impl<T: Send + 'static> Inner<T> {
    /// Drops all idle objects.
    pub(crate) fn trim(&self, me: Me) -> TrimReport {
        let mut owed = Owed::NOTHING;
        let asked = {
            let Shared { depot, registry } = &mut *self.lock();
            let call = depot.calls.empty();
            owed.drop = depot.take_all();
            // What a shrink has out goes after it was weighed.
            depot.join_shrink(me.id(), 0);
            depot.count(Count::Trimmed, owed.drop.len() as u64);
            if let Some(mine) = registry.mine(me) {
                answer(depot, mine, &mut owed);
            }
            registry.call_in(self.front(), me, call)
        };
        self.dispose(owed.drop, asked)
    }

    /// Brings the pool down to about `bytes`, oldest objects first; see `Pool::trim_to`.
    ///
    /// One shrink runs at a time. This one also does what others ask for meanwhile, and a panic
    /// of user code passes only after that.
    pub(crate) fn trim_to(&self, me: Me, bytes: usize) -> TrimReport {
        let me = me.registered();
        let mut report = TrimReport::default();
        if !self.lock().depot.start_shrink(me.id(), bytes) {
            return report;
        }
        let mut panics = FirstPanic::default();
        let mut target = Some(bytes);
        while let Some(bytes) = target {
            panics.catch(|| self.shrink(me, bytes, &mut report));
            target = self.lock().depot.next_target();
        }
        panics.pass();
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

    /// Takes the depot's objects out, weighs them, puts the newest back and drops the others.
    fn shrink(&self, me: Me, bytes: usize, report: &mut TrimReport) {
        let mut owed = Owed::NOTHING;
        let mut out = Out {
            pool: self,
            objects: {
                let Shared { depot, registry } = &mut *self.lock();
                if let Some(mine) = registry.mine(me) {
                    answer(depot, mine, &mut owed);
                    // As far as there is room. What stays counts with the other caches.
                    let k = mine.slot().held().min(depot.room());
                    hand_over(depot, mine, k, &mut owed);
                }
                depot.take_out()
            },
        };
        let mut doomed = Doomed(owed.drop);
        let weights: Vec<usize> = out.objects.iter().map(|o| self.weigh(o)).collect();
        let dropped = {
            let Shared { depot, registry } = &mut *self.lock();
            let cached = registry.peek().map(|(_, slot)| slot.held()).sum();
            let cached = estimate::<T>(cached, &weights);
            let kept = how_many_fit(bytes.saturating_sub(cached), &weights);
            let mut oldest = std::mem::take(&mut out.objects);
            depot.put_back(oldest.split_off(oldest.len() - kept));
            depot.count(Count::Trimmed, oldest.len() as u64);
            if cached > bytes {
                let call = depot.calls.empty();
                if let Some(mine) = registry.mine(me) {
                    let mut owed = Owed::NOTHING;
                    answer(depot, mine, &mut owed);
                    doomed.0.append(&mut owed.drop);
                }
                let asked = registry.call_in(self.front(), me, call);
                report.caches_asked = report.caches_asked.max(asked);
            }
            let dropped = oldest.len();
            doomed.0.append(&mut oldest);
            dropped
        };
        drop(out);
        report.dropped += doomed.0.len();
        let emptied = doomed.0.len() - dropped;
        let emptied = doomed.0[..emptied].iter().map(|o| self.weigh(o));
        let weights = weights[..dropped].iter().copied();
        report.bytes = sum(emptied.chain(weights)).saturating_add(report.bytes);
        drop_all(std::mem::take(&mut doomed.0));
    }

    fn dispose(&self, objects: Vec<Box<T>>, caches_asked: usize) -> TrimReport {
        let mut doomed = Doomed(objects);
        let bytes = sum(doomed.0.iter().map(|o| self.weigh(o)));
        let dropped = doomed.0.len();
        drop_all(std::mem::take(&mut doomed.0));
        TrimReport {
            dropped,
            bytes,
            caches_asked,
        }
    }
}

/// About what `n` objects weigh that cannot be weighed, by the mean of those that could.
fn estimate<T>(n: usize, weights: &[usize]) -> usize {
    match weights.len() {
        0 => n.saturating_mul(size_of::<T>()),
        weighed => {
            let total = sum(weights.iter().copied()) as u128;
            let estimate = (total * n as u128).div_ceil(weighed as u128);
            usize::try_from(estimate).unwrap_or(usize::MAX)
        }
    }
}

/// How many, from the end, weigh `bytes` or less together.
fn how_many_fit(bytes: usize, weights: &[usize]) -> usize {
    let mut left = bytes;
    let fits = |weight: &&usize| match left.checked_sub(**weight) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    weights.iter().rev().take_while(fits).count()
}

fn sum(weights: impl Iterator<Item = usize>) -> usize {
    weights.fold(0, usize::saturating_add)
}

/// The depot's objects while they are weighed. They go back if the weigher panics; their room is
/// kept for them.
struct Out<'a, T: Send + 'static> {
    pool: &'a Inner<T>,
    objects: Vec<Box<T>>,
}

impl<T: Send + 'static> Drop for Out<'_, T> {
    fn drop(&mut self) {
        if !self.objects.is_empty() {
            let objects = std::mem::take(&mut self.objects);
            self.pool.lock().depot.put_back(objects);
        }
    }
}

/// Objects that are dropped whatever happens, each even if another one's destructor panics.
struct Doomed<T>(Vec<Box<T>>);

impl<T> Drop for Doomed<T> {
    fn drop(&mut self) {
        drop_all(std::mem::take(&mut self.0));
    }
}
