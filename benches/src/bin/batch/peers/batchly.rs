//! `benjamin_batchly`: one of the submitters does the work. It has no bound on a batch, and one at a
//! time for each key, of which there are several where that pays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use benjamin_batchly::{BatchMutex, BatchResult};

use crate::jobs::{Limits, Submit, Work};

pub(crate) struct Batchly<W: Work> {
    work: W,
    batches: Arc<BatchMutex<usize, W::Item, W::Out>>,
    /// Of the submitter.
    key: usize,
    submitters: Arc<AtomicUsize>,
    keys: usize,
}

impl<W: Work> Clone for Batchly<W> {
    /// Every submitter keeps to one key, and all keys are used alike.
    fn clone(&self) -> Self {
        Self {
            work: self.work.clone(),
            batches: Arc::clone(&self.batches),
            key: self.submitters.fetch_add(1, Ordering::Relaxed) % self.keys,
            submitters: Arc::clone(&self.submitters),
            keys: self.keys,
        }
    }
}

pub(super) fn new<W: Work>(work: W, limits: Limits) -> Batchly<W> {
    Batchly {
        work,
        batches: Arc::default(),
        key: 0,
        submitters: Arc::default(),
        keys: limits.lanes(),
    }
}

impl<W: Work> Submit<W> for Batchly<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        match self.batches.submit(self.key, item).await {
            BatchResult::Work(mut batch) => {
                let items = std::mem::take(&mut batch.items);
                for (index, out) in self.work.run(items).await.into_iter().enumerate() {
                    batch.notify_done(index, out);
                }
                batch.recv_local_notify_done().expect("notified above")
            }
            BatchResult::Done(out) => out,
            BatchResult::Failed => panic!("the work never fails"),
        }
    }
}
