//! `tower-batch-control`: tells a service when to flush what it was given. The service below keeps
//! the items of a batch, and answers each through a channel of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tower::{Service, ServiceExt};
use tower_batch_control::{Batch, BatchControl, RequestWeight};

use super::SHORTEST;
use crate::jobs::{Limits, Submit, Work};
use crate::reference::answer_all;

pub(crate) struct Request<T>(T);

impl<T> RequestWeight for Request<T> {}

pub(crate) struct Handler<W: Work> {
    work: W,
    batch: Vec<(W::Item, oneshot::Sender<W::Out>)>,
}

/// Of an item: its result. Of a flush: when it is done.
pub(crate) enum Response<T> {
    Item(oneshot::Receiver<T>),
    Flush(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl<T> Future for Response<T> {
    type Output = Result<Option<T>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Item(result) => {
                let result = ready!(Pin::new(result).poll(cx));
                Poll::Ready(Ok(Some(result.expect("each is answered"))))
            }
            Self::Flush(flush) => flush.as_mut().poll(cx).map(|()| Ok(None)),
        }
    }
}

impl<W: Work> Service<BatchControl<Request<W::Item>>> for Handler<W> {
    type Response = Option<W::Out>;
    type Error = Infallible;
    type Future = Response<W::Out>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: BatchControl<Request<W::Item>>) -> Response<W::Out> {
        match request {
            BatchControl::Item(Request(item)) => {
                let (reply, result) = oneshot::channel();
                self.batch.push((item, reply));
                Response::Item(result)
            }
            BatchControl::Flush => {
                let (work, batch) = (self.work.clone(), std::mem::take(&mut self.batch));
                Response::Flush(Box::pin(async move { answer_all(&work, batch).await }))
            }
        }
    }
}

pub(crate) struct Tower<W: Work>(Batch<Handler<W>, Request<W::Item>>);

impl<W: Work> Clone for Tower<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(super) fn new<W: Work>(work: W, limits: Limits) -> Tower<W> {
    let batch = Vec::new();
    let handler = Handler { work, batch };
    Tower(Batch::new(handler, limits.max_size, limits.slots, SHORTEST))
}

impl<W: Work> Submit<W> for Tower<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let service = self.0.ready().await;
        let service = service.unwrap_or_else(|error| panic!("the worker lives, but {error}"));
        let result = service.call(Request(item)).await;
        let result = result.unwrap_or_else(|error| panic!("the handler never fails, but {error}"));
        result.expect("one each")
    }
}
