//! Several limits at once: ten a second and a thousand an hour.

use std::time::Duration;

use overdrive_core::Clock;

use crate::error::{CheckError, Denied};
use crate::limiter::RateLimiter;
use crate::window::{SlidingLog, SlidingWindow};

/// What gives out tokens at once, and takes back what was not used: for [`All`].
pub trait Limit {
    /// Takes `n` tokens, if all of them are there now.
    ///
    /// # Errors
    /// Nothing was taken.
    fn check_n(&self, n: u64) -> Result<(), CheckError>;

    /// Whether [`check_n`](Self::check_n) would be allowed now. Takes nothing.
    ///
    /// # Errors
    /// It would not.
    fn peek(&self, n: u64) -> Result<(), CheckError>;

    /// Takes `n` tokens back.
    fn refund(&self, n: u64);

    /// [`check_n`](Self::check_n), with what [`take_back`](Self::take_back) is to be told. By
    /// default nothing.
    ///
    /// # Errors
    /// Nothing was taken.
    fn take(&self, n: u64) -> Result<u64, CheckError> {
        self.check_n(n).map(|()| 0)
    }

    /// Takes back the `n` tokens that [`take`](Self::take) gave out, which nobody has used. By default
    /// a [`refund`](Self::refund).
    fn take_back(&self, n: u64, _taken: u64) {
        self.refund(n);
    }
}

macro_rules! limits {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> Limit for $type {
            fn check_n(&self, n: u64) -> Result<(), CheckError> {
                self.check_n(n)
            }

            fn peek(&self, n: u64) -> Result<(), CheckError> {
                self.peek(n)
            }

            fn refund(&self, n: u64) {
                self.refund(n);
            }
        }
    )*};
}

limits!([C: Clock] RateLimiter<C>, [C: Clock] SlidingWindow<C>);

impl<C: Clock> Limit for SlidingLog<C> {
    fn check_n(&self, n: u64) -> Result<(), CheckError> {
        self.check_n(n)
    }

    fn peek(&self, n: u64) -> Result<(), CheckError> {
        self.peek(n)
    }

    fn refund(&self, n: u64) {
        self.refund(n);
    }

    fn take(&self, n: u64) -> Result<u64, CheckError> {
        self.check_n_at(n)
    }

    fn take_back(&self, n: u64, taken: u64) {
        self.refund_at(n, taken);
    }
}

impl<L: Limit + ?Sized> Limit for &L {
    fn check_n(&self, n: u64) -> Result<(), CheckError> {
        (**self).check_n(n)
    }

    fn peek(&self, n: u64) -> Result<(), CheckError> {
        (**self).peek(n)
    }

    fn refund(&self, n: u64) {
        (**self).refund(n);
    }

    fn take(&self, n: u64) -> Result<u64, CheckError> {
        (**self).take(n)
    }

    fn take_back(&self, n: u64, taken: u64) {
        (**self).take_back(n, taken);
    }
}

/// A limit that was charged: gives it back unless all were.
struct Charged<'l, L: Limit> {
    limit: &'l L,
    tokens: u64,
    taken: Option<u64>,
}

impl<'l, L: Limit> Charged<'l, L> {
    fn take(limit: &'l L, tokens: u64) -> Result<Self, CheckError> {
        let taken = Some(limit.take(tokens)?);
        Ok(Self {
            limit,
            tokens,
            taken,
        })
    }

    fn keep(mut self) {
        self.taken = None;
    }
}

impl<L: Limit> Drop for Charged<'_, L> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken {
            self.limit.take_back(self.tokens, taken);
        }
    }
}

/// Two to four [`Limit`]s of which all must allow it, or nothing is taken of any.
///
/// They are looked at first and charged in order then; if one of them denies after all, because
/// somebody else was faster, or panics, those before it are given back what they gave. For that
/// moment they may deny somebody else. Put the one that denies most often first.
///
/// ```
/// use overdrive_ratelimit::{All, Quota, RateLimiter};
///
/// let limiter = |quota| RateLimiter::builder().quota(quota).build();
/// let (second, hour) = (limiter(Quota::per_second(10))?, limiter(Quota::per_hour(15))?);
/// let calls = All::new((&second, &hour));
/// assert!(calls.check_n(10).is_ok());
/// // Ten in this second: that the hour has five more does not help, and they are not taken.
/// assert!(calls.check().is_err());
/// assert_eq!(hour.snapshot().remaining, 5);
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct All<T>(T);

impl<T> All<T> {
    /// All of a tuple.
    pub const fn new(limits: T) -> Self {
        Self(limits)
    }

    /// The tuple.
    pub fn limits(&self) -> &T {
        &self.0
    }
}

/// The later of two answers: the longest time to retry, or that there is no use.
fn worse(one: Result<(), CheckError>, other: Result<(), CheckError>) -> Result<(), CheckError> {
    let rank = |answer: &Result<(), CheckError>| match answer {
        Ok(()) => (0, Duration::ZERO),
        Err(error) => match error.retry_after() {
            Some(after) => (1, after),
            None => (2, Duration::ZERO),
        },
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
    }
}

macro_rules! all {
    ($($limit:ident $at:tt),*) => {
        impl<$($limit: Limit),*> All<($($limit,)*)> {
            /// Takes one token of each, if all have one now.
            ///
            /// # Errors
            /// [`Denied`], with the time after which all would have one.
            pub fn check(&self) -> Result<(), Denied> {
                // No burst is less than one.
                self.check_n(1)
                    .map_err(|error| Denied::after(error.retry_after().unwrap_or(Duration::MAX)))
            }

            /// Takes `n` tokens of each, if all have them now. None is always allowed.
            ///
            /// # Errors
            /// [`CheckError::Denied`] with the longest time to retry, or
            /// [`CheckError::ExceedsBurst`] of one that can never give so many.
            pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
                self.peek(n)?;
                let charged = ($(Charged::take(&self.0.$at, n)?,)*);
                $(charged.$at.keep();)*
                Ok(())
            }

            /// Whether [`check_n`](Self::check_n) would be allowed now. Takes nothing.
            ///
            /// # Errors
            /// As of [`check_n`](Self::check_n).
            pub fn peek(&self, n: u64) -> Result<(), CheckError> {
                let mut answer = Ok(());
                $(answer = worse(answer, self.0.$at.peek(n));)*
                answer
            }

            /// Gives `n` tokens back to each.
            pub fn refund(&self, n: u64) {
                $(self.0.$at.refund(n);)*
            }
        }
    };
}

all!(A 0, B 1);
all!(A 0, B 1, C 2);
all!(A 0, B 1, C 2, D 3);
