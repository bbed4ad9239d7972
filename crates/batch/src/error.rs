//! Why an item has no result.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::engine::Refused;

/// Why a submitted item has no result.
///
/// Where the item never reached the handler it comes back: [`into_inner`](Self::into_inner). Not so
/// from a batch whose lease could not be acquired, which fails as the handler's own failure does.
#[non_exhaustive]
pub enum SubmitError<T, E> {
    /// The batcher ended before the item's batch did: the deadline of a drain had come, or the
    /// runtime was shut down. With the item if it never reached the handler.
    Abandoned(Option<T>),
    /// The handler returned this error for the whole batch. All its submitters share it.
    Batch(Arc<E>),
    /// The batcher takes no more items.
    Closed(T),
    /// The item's deadline passed before its batch was closed.
    DeadlineExceeded(T),
    /// The batcher is full, and set to [`Overload::Reject`](crate::Overload::Reject); or to
    /// [`Overload::ShedOldest`](crate::Overload::ShedOldest), and all that waits is more urgent.
    Full(T),
    /// The batcher was full, set to [`Overload::ShedOldest`](crate::Overload::ShedOldest), and a
    /// later item took this one's place.
    Shed(T),
    /// The item alone is heavier than a batch may be.
    TooHeavy(T),
    /// The handler panicked, with this message. The worker lives on.
    Panicked(Arc<str>),
    /// The handler returned another number of results than it was given items, so that nobody can
    /// say whose they are.
    WrongResultCount {
        /// The items in the batch.
        expected: usize,
        /// The results returned.
        got: usize,
    },
}

impl<T, E> SubmitError<T, E> {
    /// The item, if it is certain that it never reached the handler.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        match self {
            Self::Closed(item)
            | Self::DeadlineExceeded(item)
            | Self::Full(item)
            | Self::Shed(item)
            | Self::TooHeavy(item) => Some(item),
            Self::Abandoned(item) => item,
            Self::Batch(_) | Self::Panicked(_) | Self::WrongResultCount { .. } => None,
        }
    }
}

impl<T, E> fmt::Display for SubmitError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(_) => f.write_str("the batcher ended before the batch did"),
            Self::Batch(_) => f.write_str("the handler failed for the whole batch"),
            Self::Closed(_) => f.write_str("the batcher is closed"),
            Self::DeadlineExceeded(_) => f.write_str("the deadline passed before the batch began"),
            Self::Full(_) => f.write_str("the batcher is full"),
            Self::Shed(_) => f.write_str("the batcher was full and a later item took the place"),
            Self::TooHeavy(_) => f.write_str("the item is heavier than a batch may be"),
            Self::Panicked(message) => write!(f, "the handler panicked: {message}"),
            Self::WrongResultCount { expected, got } => {
                write!(f, "the handler returned {got} results for {expected} items")
            }
        }
    }
}

impl<T, E: fmt::Debug> fmt::Debug for SubmitError<T, E> {
    /// Does not show the item, which so needs no `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(Some(_)) => f.write_str("Abandoned(Some(..))"),
            Self::Abandoned(None) => f.write_str("Abandoned(None)"),
            Self::Batch(error) => f.debug_tuple("Batch").field(error).finish(),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::DeadlineExceeded(_) => f.write_str("DeadlineExceeded(..)"),
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Shed(_) => f.write_str("Shed(..)"),
            Self::TooHeavy(_) => f.write_str("TooHeavy(..)"),
            Self::Panicked(message) => f.debug_tuple("Panicked").field(message).finish(),
            Self::WrongResultCount { expected, got } => f
                .debug_struct("WrongResultCount")
                .field("expected", expected)
                .field("got", got)
                .finish(),
        }
    }
}

impl<T, E: Error + 'static> Error for SubmitError<T, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Batch(error) => Some(&**error),
            _ => None,
        }
    }
}

impl<T, E> From<Refused<T>> for SubmitError<T, E> {
    fn from(refused: Refused<T>) -> Self {
        match refused {
            Refused::Closed(item) => Self::Closed(item),
            Refused::Full(item) => Self::Full(item),
            Refused::TooHeavy(item) => Self::TooHeavy(item),
        }
    }
}

/// Why [`try_submit`](crate::Batcher::try_submit) did not take an item.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySubmitError<T> {
    /// The batcher takes no more items.
    Closed(T),
    /// As many items wait as it has capacity for.
    Full(T),
    /// The item alone is heavier than a batch may be.
    TooHeavy(T),
}

impl<T> TrySubmitError<T> {
    /// The item.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(item) | Self::Full(item) | Self::TooHeavy(item) => item,
        }
    }
}

impl<T> fmt::Display for TrySubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "the batcher is closed",
            Self::Full(_) => "the batcher is full",
            Self::TooHeavy(_) => "the item is heavier than a batch may be",
        })
    }
}

impl<T> fmt::Debug for TrySubmitError<T> {
    /// Does not show the item, which so needs no `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed(..)",
            Self::Full(_) => "Full(..)",
            Self::TooHeavy(_) => "TooHeavy(..)",
        })
    }
}

impl<T> Error for TrySubmitError<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lower_case_and_the_cause_is_chained() {
        type Refused = SubmitError<u8, fmt::Error>;
        let all = [
            Refused::Abandoned(None),
            Refused::Batch(Arc::new(fmt::Error)),
            Refused::Closed(1),
            Refused::DeadlineExceeded(1),
            Refused::Full(1),
            Refused::Shed(1),
            Refused::TooHeavy(1),
            Refused::Panicked("oh".into()),
            Refused::WrongResultCount {
                expected: 2,
                got: 1,
            },
        ];
        for error in all {
            let text = error.to_string();
            assert!(
                !text.ends_with('.') && text == text.to_lowercase(),
                "{text}"
            );
            let is_batch = matches!(error, Refused::Batch(_));
            assert_eq!(error.source().is_some(), is_batch);
        }
    }

    #[test]
    fn items_that_never_reached_the_handler_come_back() {
        assert_eq!(SubmitError::<_, ()>::Full(7).into_inner(), Some(7));
        assert_eq!(
            SubmitError::<_, ()>::Abandoned(Some(7)).into_inner(),
            Some(7)
        );
        assert_eq!(
            SubmitError::<u8, ()>::Panicked("".into()).into_inner(),
            None
        );
        assert_eq!(TrySubmitError::Closed(7).into_inner(), 7);
    }
}
