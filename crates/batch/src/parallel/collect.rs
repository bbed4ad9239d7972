//! Each item's own outcome, panics included.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use overdrive_core::unwind::{drop_payload, survive};

/// Why an item of [`process_collect`](crate::ParallelBatch::process_collect) has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError<E> {
    /// Its future returned this error.
    Failed(E),
    /// The function or its future panicked, with this message.
    Panicked(Arc<str>),
}

impl<E> ItemError<E> {
    /// The future's own error.
    #[must_use]
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Panicked(_) => None,
        }
    }
}

impl<E> fmt::Display for ItemError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("the item failed"),
            Self::Panicked(message) => write!(f, "the item panicked: {message}"),
        }
    }
}

impl<E: Error + 'static> Error for ItemError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Panicked(_) => None,
        }
    }
}

/// Runs one future; a panic in making, polling or dropping it stays here.
pub(super) async fn isolated<Fut, R, E>(begin: impl FnOnce() -> Fut) -> Result<R, ItemError<E>>
where
    Fut: Future<Output = Result<R, E>>,
{
    let future = match catch_unwind(AssertUnwindSafe(begin)) {
        Ok(future) => future,
        Err(payload) => return Err(ItemError::Panicked(message(payload))),
    };
    // None once it has ended: so it is dropped here, where a panic is caught.
    let mut place = pin!(Some(future));
    let ended = poll_fn(|cx| {
        let future = place.as_mut().as_pin_mut().expect("it has not ended");
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => std::task::Poll::Ready(Err(payload)),
        }
    })
    .await;
    survive(|| place.set(None));
    match ended {
        Ok(result) => result.map_err(ItemError::Failed),
        Err(payload) => Err(ItemError::Panicked(message(payload))),
    }
}

fn message(payload: Box<dyn std::any::Any + Send>) -> Arc<str> {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = Arc::from(text.unwrap_or("not a text"));
    drop_payload(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lower_case_and_the_cause_is_chained() {
        let failed = ItemError::Failed(fmt::Error);
        assert_eq!(failed.to_string(), "the item failed");
        assert!(failed.source().is_some());
        assert_eq!(failed.into_inner(), Some(fmt::Error));
        let panicked = ItemError::<fmt::Error>::Panicked("oh".into());
        assert_eq!(panicked.to_string(), "the item panicked: oh");
        assert!(panicked.source().is_none());
        assert_eq!(panicked.into_inner(), None);
    }
}
