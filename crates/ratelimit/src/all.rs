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

    /// Takes `n` tokens back, of those that were taken last.
    fn refund(&self, n: u64);
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

limits!([C: Clock] RateLimiter<C>, [C: Clock] SlidingLog<C>, [C: Clock] SlidingWindow<C>);

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
}

/// Two to four [`Limit`]s of which all must allow it, or nothing is taken of any.
///
/// They are looked at first and charged in order then; if one of them denies after all, because
/// somebody else was faster, those before it are given back what they gave. For that moment they
/// may deny somebody else. Put the one that denies most often first.
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
                let mut taken = 0;
                let mut answer = Ok(());
                $(
                    if answer.is_ok() {
                        answer = self.0.$at.check_n(n);
                        taken += usize::from(answer.is_ok());
                    }
                )*
                if answer.is_err() {
                    $(
                        if $at < taken {
                            self.0.$at.refund(n);
                        }
                    )*
                }
                answer
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
