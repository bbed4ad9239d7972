//! The error of a refused configuration.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a configuration was refused.
///
/// Every variant names the setting at fault by the name of its setter. A bad value is never
/// clamped in silence: it is one of these.
///
/// ```
/// use overdrive_core::ConfigError;
///
/// let error = ConfigError::TooLarge { field: "max_idle", value: 1 << 40, max: 1 << 26 };
/// assert_eq!(error.field(), "max_idle");
/// assert_eq!(error.to_string(), "`max_idle` is 1099511627776, the largest allowed value is 67108864");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Two settings that exclude each other.
    Contradiction {
        /// The setting at fault.
        field: &'static str,
        /// The setting it contradicts.
        other: &'static str,
        /// What must hold between the two, such as `"must not exceed"`.
        reason: &'static str,
    },
    /// A value that is not usable for the reason given (not a number, not a valid name).
    Invalid {
        /// The setting at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A setting without a default that was not given.
    Missing {
        /// The setting that was not given.
        field: &'static str,
    },
    /// The thread that the setting asks for could not be started.
    Thread {
        /// The setting that asks for a thread.
        field: &'static str,
        /// The operating system's answer.
        kind: io::ErrorKind,
    },
    /// A value beyond any sensible use.
    TooLarge {
        /// The setting at fault.
        field: &'static str,
        /// The value that was given.
        value: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// A value below what the setting needs, but not zero.
    TooSmall {
        /// The setting at fault.
        field: &'static str,
        /// The value that was given; of a duration its nanoseconds.
        value: u64,
        /// The smallest allowed value.
        min: u64,
    },
    /// Zero (a number or a duration) where something positive is needed.
    Zero {
        /// The setting at fault.
        field: &'static str,
    },
}

impl ConfigError {
    /// The number itself, if it lies between one and `max`.
    ///
    /// ```
    /// use overdrive_core::ConfigError;
    ///
    /// assert_eq!(ConfigError::within("workers", 8, 64), Ok(8));
    /// assert_eq!(ConfigError::within("workers", 0, 64).unwrap_err().field(), "workers");
    /// ```
    ///
    /// # Errors
    /// [`Zero`](Self::Zero) or [`TooLarge`](Self::TooLarge).
    pub const fn within(field: &'static str, n: usize, max: usize) -> Result<usize, Self> {
        if n == 0 {
            return Err(Self::Zero { field });
        }
        Self::at_most(field, n, max)
    }

    /// The number itself, if it does not exceed `max`.
    ///
    /// # Errors
    /// [`TooLarge`](Self::TooLarge).
    pub const fn at_most(field: &'static str, n: usize, max: usize) -> Result<usize, Self> {
        if n > max {
            let (value, max) = (n as u64, max as u64);
            return Err(Self::TooLarge { field, value, max });
        }
        Ok(n)
    }

    /// The name of the setting at fault.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match *self {
            Self::Contradiction { field, .. }
            | Self::Invalid { field, .. }
            | Self::Missing { field }
            | Self::Thread { field, .. }
            | Self::TooLarge { field, .. }
            | Self::TooSmall { field, .. }
            | Self::Zero { field } => field,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradiction {
                field,
                other,
                reason,
            } => {
                write!(f, "`{field}` {reason} `{other}`")
            }
            Self::Invalid { field, reason } => write!(f, "`{field}` {reason}"),
            Self::Missing { field } => write!(f, "`{field}` is missing"),
            Self::Thread { field, kind } => {
                write!(f, "the thread for `{field}` could not be started: {kind}")
            }
            Self::TooLarge { field, value, max } => {
                write!(
                    f,
                    "`{field}` is {value}, the largest allowed value is {max}"
                )
            }
            Self::TooSmall { field, value, min } => {
                write!(
                    f,
                    "`{field}` is {value}, the smallest allowed value is {min}"
                )
            }
            Self::Zero { field } => write!(f, "`{field}` must not be zero"),
        }
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_field_in_lower_case() {
        let all = [
            ConfigError::Contradiction {
                field: "a",
                other: "b",
                reason: "must not exceed",
            },
            ConfigError::Invalid {
                field: "a",
                reason: "is not a number",
            },
            ConfigError::Missing { field: "a" },
            ConfigError::Thread {
                field: "a",
                kind: io::ErrorKind::WouldBlock,
            },
            ConfigError::TooLarge {
                field: "a",
                value: 2,
                max: 1,
            },
            ConfigError::TooSmall {
                field: "a",
                value: 1,
                min: 2,
            },
            ConfigError::Zero { field: "a" },
        ];
        for error in all {
            let text = error.to_string();
            assert!(text.contains("`a`"), "{text}");
            assert_eq!(error.field(), "a");
            assert!(
                !text.ends_with('.') && text == text.to_lowercase(),
                "{text}"
            );
        }
    }

    #[test]
    fn is_a_shareable_error() {
        fn check<E: Error + Send + Sync + Clone + 'static>() {}
        check::<ConfigError>();
    }
}
