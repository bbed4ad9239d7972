//! Not calling what does not answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::ConfigError;
use crate::clock::Timestamp;

/// A circuit breaker as a pure state machine: it reads no clock and takes no lock (M. Nygard,
/// "Release It!", 2007).
///
/// - **Closed**: every call is admitted. So many failures in a row open it.
/// - **Open**: no call is admitted until the time is up.
/// - **Half-open**: one call is admitted as a probe. Its success closes the breaker, its failure
///   opens it again. A probe that never reports gives its place up after the same time.
///
/// What a call admitted before the last change of state reports is not counted: it speaks of an
/// earlier time.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::{CircuitBreaker, Timestamp};
///
/// let mut breaker = CircuitBreaker::new(2, Duration::from_secs(1))?;
/// let mut now = Timestamp::ZERO;
/// for _ in 0..2 {
///     let call = breaker.admit(now)?;
///     breaker.failed(call, now);
/// }
/// let refused = breaker.admit(now).unwrap_err();
/// assert_eq!(refused.retry_after, Duration::from_secs(1));
///
/// now = now.saturating_add(refused.retry_after);
/// let probe = breaker.admit(now)?;
/// breaker.succeeded(probe);
/// assert!(breaker.admit(now).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    failures: u32,
    open_for: Duration,
    state: State,
    /// Goes up with each change of state and each probe.
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failed: u32,
    },
    Open {
        until: Timestamp,
    },
    /// The probe's place is free again from then.
    HalfOpen {
        until: Timestamp,
    },
}

/// The state of a [`CircuitBreaker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are admitted.
    Closed,
    /// A probe is out, or would be admitted.
    HalfOpen,
    /// No call is admitted.
    Open,
}

/// The right to one call, to be handed back with its outcome.
#[derive(Debug)]
#[must_use = "report the outcome of the call"]
pub struct Admission {
    epoch: u64,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOpen {
    /// When a call may be admitted again.
    pub retry_after: Duration,
}

impl fmt::Display for BreakerOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the circuit breaker is open for another {:?}",
            self.retry_after
        )
    }
}

impl Error for BreakerOpen {}

impl CircuitBreaker {
    /// A closed breaker that opens for `open_for` after so many failures in a row.
    ///
    /// # Errors
    /// Either is zero.
    pub const fn new(failures: u32, open_for: Duration) -> Result<Self, ConfigError> {
        if failures == 0 {
            return Err(ConfigError::Zero { field: "failures" });
        }
        if open_for.is_zero() {
            return Err(ConfigError::Zero { field: "open_for" });
        }
        Ok(Self {
            failures,
            open_for,
            state: State::Closed { failed: 0 },
            epoch: 0,
        })
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// The breaker is open, or its probe is still out.
    pub fn admit(&mut self, now: Timestamp) -> Result<Admission, BreakerOpen> {
        if let State::Open { until } | State::HalfOpen { until } = self.state {
            if now < until {
                return Err(BreakerOpen {
                    retry_after: until.saturating_since(now),
                });
            }
            let until = now.saturating_add(self.open_for);
            self.turn(State::HalfOpen { until });
        }
        Ok(Admission { epoch: self.epoch })
    }

    /// The call went well.
    pub fn succeeded(&mut self, call: Admission) {
        if call.epoch != self.epoch {
            return;
        }
        match &mut self.state {
            State::Closed { failed } => *failed = 0,
            State::HalfOpen { .. } | State::Open { .. } => self.turn(State::Closed { failed: 0 }),
        }
    }

    /// The call failed, in a way that speaks against the service and not against the call.
    pub fn failed(&mut self, call: Admission, now: Timestamp) {
        if call.epoch != self.epoch {
            return;
        }
        if let State::Closed { failed } = &mut self.state {
            *failed += 1;
            if *failed < self.failures {
                return;
            }
        }
        let until = now.saturating_add(self.open_for);
        self.turn(State::Open { until });
    }

    /// The state at that time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn turn(&mut self, to: State) {
        self.state = to;
        self.epoch += 1;
    }
}
