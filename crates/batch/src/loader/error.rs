//! Why a key has no answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::SubmitError;

/// Why a load has no answer. That there is no such value is one: `Ok(None)`.
///
/// Where the key never reached the function it comes back: [`into_inner`](Self::into_inner).
#[non_exhaustive]
pub enum LoadError<K, E> {
    /// The loader ended before the key's batch did: the deadline of a drain had come, or the runtime
    /// was shut down. With the key if it never reached the function.
    Abandoned(Option<K>),
    /// The function returned this error for the whole batch. All its callers share it.
    Batch(Arc<E>),
    /// The loader takes no more keys.
    Closed(K),
    /// The loader is full, and set to [`Overload::Reject`](crate::Overload::Reject).
    Full(K),
    /// The function panicked, with this message. The worker lives on.
    Panicked(Arc<str>),
    /// The loader was full, set to [`Overload::ShedOldest`](crate::Overload::ShedOldest), and a later
    /// key took this one's place.
    Shed(K),
    /// The function returned a list of another length than its keys, so that nobody can say whose
    /// values they are.
    WrongResultCount {
        /// The keys it was given.
        expected: usize,
        /// The values it returned.
        got: usize,
    },
}

/// Why the function's answer is none.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    Function(Arc<E>),
    Count { expected: usize, got: usize },
}

impl<K, E> LoadError<K, E> {
    pub(super) fn of(error: SubmitError<K, Failure<E>>) -> Self {
        match error {
            SubmitError::Batch(failure) => match &*failure {
                Failure::Function(error) => Self::Batch(Arc::clone(error)),
                &Failure::Count { expected, got } => Self::WrongResultCount { expected, got },
            },
            SubmitError::Closed(key) => Self::Closed(key),
            SubmitError::Full(key) => Self::Full(key),
            SubmitError::Panicked(message) => Self::Panicked(message),
            SubmitError::Shed(key) => Self::Shed(key),
            SubmitError::WrongResultCount { expected, got } => {
                Self::WrongResultCount { expected, got }
            }
            other => Self::Abandoned(other.into_inner()),
        }
    }

    /// The key, if it is certain that it never reached the function.
    #[must_use]
    pub fn into_inner(self) -> Option<K> {
        match self {
            Self::Closed(key) | Self::Full(key) | Self::Shed(key) => Some(key),
            Self::Abandoned(key) => key,
            Self::Batch(_) | Self::Panicked(_) | Self::WrongResultCount { .. } => None,
        }
    }
}

impl<K, E> fmt::Display for LoadError<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(_) => f.write_str("the loader ended before the batch did"),
            Self::Batch(_) => f.write_str("the function failed for the whole batch"),
            Self::Closed(_) => f.write_str("the loader is closed"),
            Self::Full(_) => f.write_str("the loader is full"),
            Self::Panicked(message) => write!(f, "the function panicked: {message}"),
            Self::Shed(_) => f.write_str("the loader was full and a later key took the place"),
            Self::WrongResultCount { expected, got } => {
                write!(f, "the function returned {got} values for {expected} keys")
            }
        }
    }
}

impl<K, E: fmt::Debug> fmt::Debug for LoadError<K, E> {
    /// Does not show the key, which so needs no `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(Some(_)) => f.write_str("Abandoned(Some(..))"),
            Self::Abandoned(None) => f.write_str("Abandoned(None)"),
            Self::Batch(error) => f.debug_tuple("Batch").field(error).finish(),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Panicked(message) => f.debug_tuple("Panicked").field(message).finish(),
            Self::Shed(_) => f.write_str("Shed(..)"),
            Self::WrongResultCount { expected, got } => f
                .debug_struct("WrongResultCount")
                .field("expected", expected)
                .field("got", got)
                .finish(),
        }
    }
}

impl<K, E: Error + 'static> Error for LoadError<K, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Batch(error) => Some(&**error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lower_case_and_the_cause_is_chained() {
        type Failed = LoadError<u8, fmt::Error>;
        let all = [
            Failed::Abandoned(None),
            Failed::Batch(Arc::new(fmt::Error)),
            Failed::Closed(1),
            Failed::Full(1),
            Failed::Panicked("oh".into()),
            Failed::Shed(1),
            Failed::WrongResultCount {
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
            let is_batch = matches!(error, Failed::Batch(_));
            assert_eq!(error.source().is_some(), is_batch);
        }
    }

    #[test]
    fn keys_that_never_reached_the_function_come_back() {
        let from = |error| LoadError::of(error).into_inner();
        assert_eq!(from(SubmitError::<_, Failure<()>>::Full(7)), Some(7));
        assert_eq!(from(SubmitError::Closed(7)), Some(7));
        assert_eq!(from(SubmitError::Shed(7)), Some(7));
        assert_eq!(from(SubmitError::Abandoned(Some(7))), Some(7));
        assert_eq!(from(SubmitError::Panicked("".into())), None);
    }
}
