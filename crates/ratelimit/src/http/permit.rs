//! Permits of requests, and when they come back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use overdrive_core::Clock;
use pin_project_lite::pin_project;

use crate::adaptive::{AdaptiveLimit, AdaptivePermit};
use crate::concurrency::ConcurrencyLimit;
use crate::error::AcquireError;
use crate::permit::OwnedPermit;

/// How a request ended, for an [`AdaptiveLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Well: its time counts.
    Success,
    /// There was too much to do.
    Overload,
    /// Neither says anything: it failed by itself, or was given up.
    Ignore,
}

/// What gives permits to requests: a [`ConcurrencyLimit`] or an [`AdaptiveLimit`].
pub trait PermitSource: Clone + Send + Sync + 'static {
    /// What it gives. Dropped, it says nothing about how it ended.
    type Permit: Send + Sync + 'static;

    /// A permit whose measurement has been taken. Its drop gives it back.
    type Held: Send + Sync + 'static;

    /// A permit, if there is one now.
    fn try_permit(&self) -> Option<Self::Permit>;

    /// Waits for a permit.
    fn permit(self) -> impl Future<Output = Result<Self::Permit, AcquireError>> + Send + 'static;

    /// Takes the measurement, with the head of the response; what is left holds the permit on.
    fn end(permit: Self::Permit, ended: Ended) -> Self::Held;
}

impl PermitSource for ConcurrencyLimit {
    type Permit = OwnedPermit;
    type Held = OwnedPermit;

    fn try_permit(&self) -> Option<OwnedPermit> {
        self.try_acquire().ok().map(|permit| permit.into_owned())
    }

    async fn permit(self) -> Result<OwnedPermit, AcquireError> {
        self.acquire_owned().await
    }

    fn end(permit: OwnedPermit, _: Ended) -> OwnedPermit {
        permit
    }
}

impl<C: Clock> PermitSource for AdaptiveLimit<C> {
    type Permit = AdaptivePermit<C>;
    type Held = OwnedPermit;

    fn try_permit(&self) -> Option<AdaptivePermit<C>> {
        self.try_acquire().ok()
    }

    async fn permit(self) -> Result<AdaptivePermit<C>, AcquireError> {
        self.acquire().await
    }

    fn end(permit: AdaptivePermit<C>, ended: Ended) -> OwnedPermit {
        match ended {
            Ended::Success => permit.success_so_far(),
            Ended::Overload => permit.overload_so_far(),
            Ended::Ignore => permit.ignore_so_far(),
        }
    }
}

pin_project! {
    /// A body that holds a permit until it ends, fails or is dropped.
    pub struct PermitBody<B, P: PermitSource> {
        #[pin]
        body: B,
        permit: Option<P::Held>,
    }
}

impl<B, P: PermitSource> PermitBody<B, P> {
    pub(crate) const fn new(body: B, permit: Option<P::Held>) -> Self {
        Self { body, permit }
    }
}

impl<B: Default, P: PermitSource> Default for PermitBody<B, P> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body, P: PermitSource> Body for PermitBody<B, P> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(context));
        let over = match &frame {
            Some(Ok(_)) => this.body.is_end_stream(),
            None | Some(Err(_)) => true,
        };
        if over {
            drop(this.permit.take());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug, P: PermitSource> fmt::Debug for PermitBody<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PermitBody")
            .field("body", &self.body)
            .field("holds", &self.permit.is_some())
            .finish()
    }
}
