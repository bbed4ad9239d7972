//! A channel as a stream, cut into chunks, with a oneshot channel back for each item.

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::SHORTEST;
use crate::jobs::{Limits, Work};
use crate::reference::{CAPACITY, Letter, MpscOneshot, answer_all};

/// tokio's: a chunk ends when it is full, or its time has come.
pub(super) fn chunks_timeout<W: Work>(work: W, limits: Limits) -> MpscOneshot<W> {
    let (send, receive) = mpsc::channel(CAPACITY);
    let chunks = ReceiverStream::new(receive).chunks_timeout(limits.max_size, SHORTEST);
    tokio::spawn(drive(work, chunks, limits.lanes()));
    MpscOneshot(send)
}

/// futures': a chunk is what there is.
pub(super) fn ready_chunks<W: Work>(work: W, limits: Limits) -> MpscOneshot<W> {
    let (send, receive) = mpsc::channel(CAPACITY);
    let chunks = ReceiverStream::new(receive).ready_chunks(limits.max_size);
    tokio::spawn(drive(work, chunks, limits.lanes()));
    MpscOneshot(send)
}

async fn drive<W: Work>(work: W, chunks: impl Stream<Item = Vec<Letter<W>>>, slots: usize) {
    let each = |chunk| {
        let work = work.clone();
        async move { answer_all(&work, chunk).await }
    };
    if slots == 1 {
        chunks.for_each(each).await;
    } else {
        chunks.for_each_concurrent(slots, each).await;
    }
}
