//! The way that needs no crate but tokio.

use tokio::sync::{mpsc, oneshot};

use crate::jobs::{MAX_SIZE, Submit, handle};

/// A bounded channel to one task, which takes what there is, and a oneshot channel back for each.
pub(crate) struct MpscOneshot(mpsc::Sender<(u64, oneshot::Sender<u64>)>);

impl MpscOneshot {
    pub(crate) fn new() -> Self {
        let (send, mut receive) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(16_384);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(MAX_SIZE);
            while receive.recv_many(&mut batch, MAX_SIZE).await > 0 {
                for (n, reply) in batch.drain(..) {
                    // A submitter that has gone wants no reply.
                    let _gone = reply.send(handle(n));
                }
            }
        });
        Self(send)
    }
}

impl Submit for MpscOneshot {
    async fn submit(&self, n: u64) -> u64 {
        let (reply, result) = oneshot::channel();
        let sent = self.0.send((n, reply)).await;
        sent.expect("the task lives");
        result.await.expect("the task replies")
    }
}
