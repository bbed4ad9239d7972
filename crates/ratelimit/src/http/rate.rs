//! A rate limit in front of a service.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::http::headers;
use crate::http::key::{KeyExtractor, RequestView};
use crate::http::limit::{Answer, Decision, Outcome, RequestLimit};

/// Puts a rate limit in front of services. Requests beyond it are answered with 429 and
/// `Retry-After`, and with 503 if nobody can say (a server that is away, with
/// the policy `Closed`); with a `Waiting` limiter they wait.
///
/// All responses get `RateLimit-Policy`, and `RateLimit` where the figures are known, unless
/// [`without_headers`](Self::without_headers).
#[derive(Clone, Debug)]
pub struct RateLimitLayer<L, X> {
    limit: L,
    keys: X,
    headers: bool,
}

impl<L, X: KeyExtractor> RateLimitLayer<L, X>
where
    L: RequestLimit<X::Key>,
{
    /// Limits each key.
    pub const fn new(limit: L, keys: X) -> Self {
        Self {
            limit,
            keys,
            headers: true,
        }
    }

    /// Leaves `RateLimit-Policy` and `RateLimit` out.
    #[must_use]
    pub fn without_headers(mut self) -> Self {
        self.headers = false;
        self
    }
}

impl<S, L: Clone, X: Clone> Layer<S> for RateLimitLayer<L, X> {
    type Service = RateLimitService<S, L, X>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        RateLimitService { inner, layer }
    }
}

/// A service behind a rate limit, from [`RateLimitLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitService<S, L, X> {
    inner: S,
    layer: RateLimitLayer<L, X>,
}

impl<S, L, X, Q, R> Service<Request<Q>> for RateLimitService<S, L, X>
where
    S: Service<Request<Q>, Response = Response<R>> + Clone,
    L: RequestLimit<X::Key>,
    X: KeyExtractor,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RateFuture<S, L, Q>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // The one that is ready, not a clone of it.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        let key = self.layer.keys.extract(RequestView::of(&request));
        let decision = key.map(|key| self.layer.limit.decide(key));
        let parts = Some((service, request));
        RateFuture {
            limit: self.layer.headers.then(|| self.layer.limit.clone()),
            name: |limit, headers, outcome| headers::rate_limit(headers, limit.name(), outcome),
            outcome: None,
            state: match decision {
                None => State::Keyless,
                Some(decision) => State::Deciding { decision, parts },
            },
        }
    }
}

pin_project! {
    /// The response, or a refusal, from [`RateLimitService`].
    ///
    /// # Cancel safety
    /// A token that was taken stays taken.
    #[must_use = "a future does nothing until it is awaited"]
    pub struct RateFuture<S, L, Q>
    where
        S: Service<Request<Q>>,
    {
        limit: Option<L>,
        name: fn(&L, &mut http::HeaderMap, &Outcome),
        outcome: Option<Outcome>,
        #[pin]
        state: State<S, Q, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Q, F> {
        Keyless,
        Deciding { decision: Decision, parts: Option<(S, Request<Q>)> },
        Calling { #[pin] future: F },
    }
}

impl<S, L, Q, R> Future for RateFuture<S, L, Q>
where
    S: Service<Request<Q>, Response = Response<R>>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut response = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Keyless => {
                    return Poll::Ready(Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)));
                }
                StateProj::Calling { future } => break ready!(future.poll(context))?,
                StateProj::Deciding { decision, parts } => {
                    let outcome = match decision {
                        Decision::Now(outcome) => *outcome,
                        Decision::Later(later) => ready!(later.as_mut().poll(context)),
                    };
                    *this.outcome = Some(outcome);
                    let mut refused = match outcome.answer {
                        Answer::Allowed => None,
                        Answer::Denied(after) => Some((StatusCode::TOO_MANY_REQUESTS, Some(after))),
                        Answer::Unavailable(after) => {
                            Some((StatusCode::SERVICE_UNAVAILABLE, after))
                        }
                    };
                    if let Some((status, after)) = refused.take() {
                        let mut response = refusal(status);
                        if let Some(after) = after {
                            headers::retry_after(response.headers_mut(), after);
                        }
                        break response;
                    }
                    let Some((mut service, request)) = parts.take() else {
                        unreachable!("it is called once")
                    };
                    let future = service.call(request);
                    State::Calling { future }
                }
            };
            this.state.set(next);
        };
        if let (Some(limit), Some(outcome)) = (this.limit, this.outcome) {
            (this.name)(limit, response.headers_mut(), outcome);
        }
        Poll::Ready(Ok(response))
    }
}

pub(crate) fn refusal<R: Default>(status: StatusCode) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = status;
    response
}

impl<S: Service<Request<Q>>, L, Q> fmt::Debug for RateFuture<S, L, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateFuture")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}
