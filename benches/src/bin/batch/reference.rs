//! The ways that need no crate but tokio.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::jobs::{Cost, Limits, Submit, Work, answer};

/// As many items may be on their way.
pub(crate) const CAPACITY: usize = 16_384;

/// An item, and where its result goes.
pub(crate) type Letter<W> = (<W as Work>::Item, oneshot::Sender<<W as Work>::Out>);

/// A bounded channel to one task, and a oneshot channel back for each.
pub(crate) struct MpscOneshot<W: Work>(pub(crate) mpsc::Sender<Letter<W>>);

impl<W: Work> Clone for MpscOneshot<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The task takes what there is, and answers each item in its place.
pub(crate) fn in_place<C: Cost>(cost: C, limits: Limits) -> MpscOneshot<C> {
    let (send, mut receive) = mpsc::channel::<Letter<C>>(CAPACITY);
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(limits.max_size);
        while receive.recv_many(&mut batch, limits.max_size).await > 0 {
            cost.pay().await;
            for (n, reply) in batch.drain(..) {
                // A submitter that has gone wants no reply.
                let _gone = reply.send(answer(n));
            }
        }
    });
    MpscOneshot(send)
}

/// The task waits for one of the slots, takes what there is by then, and has another task run it.
pub(crate) fn in_slots<W: Work>(work: W, limits: Limits) -> MpscOneshot<W> {
    let (send, mut receive) = mpsc::channel::<Letter<W>>(CAPACITY);
    let slots = Arc::new(Semaphore::new(limits.slots));
    tokio::spawn(async move {
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let mut batch = Vec::with_capacity(limits.max_size);
            if receive.recv_many(&mut batch, limits.max_size).await == 0 {
                break;
            }
            let work = work.clone();
            tokio::spawn(async move {
                answer_all(&work, batch).await;
                drop(slot);
            });
        }
    });
    MpscOneshot(send)
}

/// Runs a batch of letters, and replies to each.
pub(crate) async fn answer_all<W: Work>(work: &W, letters: Vec<Letter<W>>) {
    let (items, replies): (Vec<_>, Vec<_>) = letters.into_iter().unzip();
    for (out, reply) in work.run(items).await.into_iter().zip(replies) {
        let _gone = reply.send(out);
    }
}

impl<W: Work> Submit<W> for MpscOneshot<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let (reply, result) = oneshot::channel();
        let sent = self.0.send((item, reply)).await;
        assert!(sent.is_ok(), "the task lives");
        result.await.expect("the task replies")
    }
}

/// Nobody batches: each submitter calls the handler itself.
#[derive(Clone, Debug)]
pub(crate) struct Direct<W>(W);

pub(crate) fn direct<W: Work>(work: W, _: Limits) -> Direct<W> {
    Direct(work)
}

impl<W: Work> Submit<W> for Direct<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let mut outs = self.0.run(vec![item]).await;
        outs.pop().expect("one each")
    }
}
