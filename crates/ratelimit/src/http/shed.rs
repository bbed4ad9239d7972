//! Refusing rather than waiting for a service that is not ready.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::http::headers;
use crate::http::rate::refusal;

/// Answers with 503 and `Retry-After` while the service behind it is not ready, instead of letting
/// requests pile up before it.
#[derive(Clone, Copy, Debug)]
pub struct LoadShedLayer {
    retry_after: Duration,
}

impl LoadShedLayer {
    /// With a `Retry-After` of a second.
    #[must_use]
    pub const fn new() -> Self {
        let retry_after = Duration::from_secs(1);
        Self { retry_after }
    }

    /// What refusals say in `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = after;
        self
    }
}

impl Default for LoadShedLayer {
    /// [`new`](Self::new).
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShedService<S>;

    fn layer(&self, inner: S) -> LoadShedService<S> {
        LoadShedService {
            inner,
            layer: *self,
            ready: false,
        }
    }
}

/// A service that is always ready, from [`LoadShedLayer`].
#[derive(Debug)]
pub struct LoadShedService<S> {
    inner: S,
    layer: LoadShedLayer,
    ready: bool,
}

impl<S: Clone> Clone for LoadShedService<S> {
    fn clone(&self) -> Self {
        // Being ready is of one service, not of its clones.
        self.layer.layer(self.inner.clone())
    }
}

impl<S, Q, R> Service<Request<Q>> for LoadShedService<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ShedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.ready = match self.inner.poll_ready(context) {
            Poll::Ready(ready) => ready.map(|()| true)?,
            Poll::Pending => false,
        };
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let ready = std::mem::take(&mut self.ready);
        ShedFuture {
            retry_after: self.layer.retry_after,
            future: ready.then(|| self.inner.call(request)),
        }
    }
}

pin_project! {
    /// The response, or a refusal, from [`LoadShedService`].
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is awaited"]
    pub struct ShedFuture<F> {
        retry_after: Duration,
        #[pin]
        future: Option<F>,
    }
}

impl<F, R, E> Future for ShedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(future) = this.future.as_pin_mut() {
            return Poll::Ready(ready!(future.poll(context)));
        }
        let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE);
        headers::retry_after(response.headers_mut(), *this.retry_after);
        Poll::Ready(Ok(response))
    }
}
