//! A concurrency limit in front of a service.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::http::headers;
use crate::http::permit::{Ended, PermitBody, PermitSource};
use crate::http::rate::refusal;

/// When a permit comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldUntil {
    /// When the body of the response has ended, failed or been dropped. The default: what is
    /// streamed is in work.
    #[default]
    Body,
    /// When the head of the response is there.
    Head,
}

/// Puts a concurrency limit in front of services: of requests in work at the same time. Those
/// beyond it are answered with 503 and `Retry-After`, at once or after
/// [`max_wait`](Self::max_wait).
///
/// A request that is given up, or whose handler panics, gives its permit back. To an
/// [`AdaptiveLimit`](crate::AdaptiveLimit) each response is a measurement, by
/// [`classify`](Self::classify), of the time until its head: how fast a client reads the body, for
/// which the permit is held too, says nothing of the service.
#[derive(Clone)]
pub struct ConcurrencyLimitLayer<P> {
    permits: P,
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "there is no timer")
    )]
    max_wait: Duration,
    retry_after: Duration,
    hold: HoldUntil,
    classify: Arc<Classify>,
}

type Classify = dyn Fn(Option<StatusCode>) -> Ended + Send + Sync;
type Waits<P> = Pin<Box<dyn Future<Output = Option<P>> + Send>>;

impl<P: PermitSource> ConcurrencyLimitLayer<P> {
    /// Turns requests away at once if there is no permit.
    pub fn new(permits: P) -> Self {
        Self {
            permits,
            max_wait: Duration::ZERO,
            retry_after: Duration::from_secs(1),
            hold: HoldUntil::Body,
            classify: Arc::new(classify),
        }
    }

    /// Lets requests wait for a permit, for so long at most.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// What refusals say in `Retry-After`. Default a second.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = after;
        self
    }

    /// When a permit comes back.
    #[must_use]
    pub fn hold(mut self, until: HoldUntil) -> Self {
        self.hold = until;
        self
    }

    /// What a response says about the load; `None` is an error of the service, such as a time-out.
    /// Default: overload for errors and 408, 429, 502, 503 and 504; nothing for other 5xx, which are
    /// faults; success for the rest.
    #[must_use]
    pub fn classify(
        mut self,
        classify: impl Fn(Option<StatusCode>) -> Ended + Send + Sync + 'static,
    ) -> Self {
        self.classify = Arc::new(classify);
        self
    }
}

fn classify(status: Option<StatusCode>) -> Ended {
    match status.map(|status| status.as_u16()) {
        None | Some(408 | 429 | 502 | 503 | 504) => Ended::Overload,
        Some(500..) => Ended::Ignore,
        Some(_) => Ended::Success,
    }
}

impl<P: fmt::Debug> fmt::Debug for ConcurrencyLimitLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer")
            .field("permits", &self.permits)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

impl<S, P: Clone> Layer<S> for ConcurrencyLimitLayer<P> {
    type Service = ConcurrencyLimitService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        ConcurrencyLimitService { inner, layer }
    }
}

/// A service behind a concurrency limit, from [`ConcurrencyLimitLayer`].
#[derive(Clone, Debug)]
pub struct ConcurrencyLimitService<S, P> {
    inner: S,
    layer: ConcurrencyLimitLayer<P>,
}

impl<S, P, Q, R> Service<Request<Q>> for ConcurrencyLimitService<S, P>
where
    S: Service<Request<Q>, Response = Response<R>> + Clone,
    P: PermitSource,
    R: Body + Default,
{
    type Response = Response<PermitBody<R, P>>;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, P, Q>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // The one that is ready, not a clone of it.
        let clone = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, clone);
        let (permit, state) = match self.layer.permits.try_permit() {
            Some(permit) => {
                let future = service.call(request);
                (Some(permit), State::Calling { future })
            }
            None => {
                let wait = waits(&self.layer);
                let parts = Some((service, request));
                (None, State::Waiting { wait, parts })
            }
        };
        let layer = self.layer.clone();
        ConcurrencyFuture {
            layer,
            permit,
            state,
        }
    }
}

#[cfg(feature = "tokio")]
fn waits<P: PermitSource>(layer: &ConcurrencyLimitLayer<P>) -> Option<Waits<P::Permit>> {
    let (permits, max_wait) = (layer.permits.clone(), layer.max_wait);
    (!max_wait.is_zero()).then(|| -> Waits<P::Permit> {
        Box::pin(async move {
            let permit = tokio::time::timeout(max_wait, permits.permit()).await;
            permit.ok().and_then(Result::ok)
        })
    })
}

#[cfg(not(feature = "tokio"))]
fn waits<P: PermitSource>(_: &ConcurrencyLimitLayer<P>) -> Option<Waits<P::Permit>> {
    None
}

pin_project! {
    /// The response, or a refusal, from [`ConcurrencyLimitService`].
    ///
    /// # Cancel safety
    /// The permit comes back.
    #[must_use = "a future does nothing until it is awaited"]
    pub struct ConcurrencyFuture<S, P, Q>
    where
        S: Service<Request<Q>>,
        P: PermitSource,
    {
        layer: ConcurrencyLimitLayer<P>,
        permit: Option<P::Permit>,
        #[pin]
        state: State<S, Q, P::Permit, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Q, P, F> {
        Waiting { wait: Option<Waits<P>>, parts: Option<(S, Request<Q>)> },
        Calling { #[pin] future: F },
    }
}

impl<S, P, Q, R> Future for ConcurrencyFuture<S, P, Q>
where
    S: Service<Request<Q>, Response = Response<R>>,
    P: PermitSource,
    R: Body + Default,
{
    type Output = Result<Response<PermitBody<R, P>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(context));
                    let status = result.as_ref().ok().map(Response::status);
                    let ended = (this.layer.classify)(status);
                    let mut permit = this.permit.take().map(|permit| P::end(permit, ended));
                    // A server does not ask a body that has ended already.
                    let ended_already = result.as_ref().map_or(true, |r| r.body().is_end_stream());
                    if ended_already || this.layer.hold == HoldUntil::Head {
                        drop(permit.take());
                    }
                    let held = |body| PermitBody::new(body, permit);
                    return Poll::Ready(result.map(|response| response.map(held)));
                }
                StateProj::Waiting { wait, parts } => {
                    let permit = match wait {
                        Some(wait) => ready!(wait.as_mut().poll(context)),
                        None => None,
                    };
                    let Some((permit, (mut service, request))) = permit.zip(parts.take()) else {
                        let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE);
                        headers::retry_after(response.headers_mut(), this.layer.retry_after);
                        return Poll::Ready(Ok(response));
                    };
                    *this.permit = Some(permit);
                    let future = service.call(request);
                    State::Calling { future }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Request<Q>>, P: PermitSource, Q> fmt::Debug for ConcurrencyFuture<S, P, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyFuture")
            .field("permit", &self.permit.is_some())
            .finish_non_exhaustive()
    }
}
