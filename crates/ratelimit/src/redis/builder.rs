//! Setting a limiter over Redis up.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::ConfigError;
use overdrive_remote::Remote;

use crate::quota::Quota;
use crate::redis::key::Keys;
use crate::redis::limiter::{Counts, Inner, RemoteLimiter};
use crate::redis::script::Scripts;
use crate::redis::share::Fallback;
use crate::redis::units::Units;

/// How many keys a [`OnFailure::LocalShare`] has room for unless it is set: 1 MiB.
pub const DEFAULT_LOCAL_CAPACITY: usize = 1 << 16;

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// What is answered when the server gives no decision: it is away or silent, its breaker is open,
/// all connections are in use, or it answers with an error (a key of another type, no memory, a
/// replica that takes no writes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Everything is allowed.
    Open,
    /// Nothing is: [`RemoteCheckError::Unavailable`](crate::redis::RemoteCheckError::Unavailable).
    #[default]
    Closed,
    /// Each key gets this instance's share of the quota, counted in this process: the rate divided
    /// by the number of instances, and the burst, rounded down. What the server granted to this
    /// instance before is charged to the share; what the share grants is not charged at the server when
    /// that comes back. Of a rate whose period would become longer than
    /// [`MAX_PERIOD`](crate::MAX_PERIOD) the tokens are divided, rounded down. Keys are told apart as by
    /// [`KeyedLimiter`](crate::KeyedLimiter).
    LocalShare {
        /// How many instances share the quota.
        instances: u32,
    },
}

/// Sets a [`RemoteLimiter`] up, from [`RemoteLimiter::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RemoteLimiterBuilder {
    remote: Remote,
    name: Cow<'static, str>,
    quota: Option<Quota>,
    on_failure: OnFailure,
    local_capacity: usize,
    timeout: Duration,
}

impl RemoteLimiter {
    /// Starts the set-up of a limiter over that server.
    pub fn builder(remote: Remote) -> RemoteLimiterBuilder {
        RemoteLimiterBuilder {
            remote,
            name: Cow::Borrowed("limit"),
            quota: None,
            on_failure: OnFailure::default(),
            local_capacity: DEFAULT_LOCAL_CAPACITY,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl RemoteLimiterBuilder {
    /// A label for figures, and a part of the keys at the server: limiters of the same prefix and
    /// name share their limits. Default `"limit"`. Braces in it are escaped there: in a cluster the
    /// caller's key decides on the slot, unless the prefix has braces.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How much each key is allowed, in all instances together. Required.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// What is answered while the server gives no decision. Default [`OnFailure::Closed`].
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }

    /// How many keys [`OnFailure::LocalShare`] has room for. Default [`DEFAULT_LOCAL_CAPACITY`].
    pub fn local_capacity(mut self, keys: usize) -> Self {
        self.local_capacity = keys;
        self
    }

    /// How long a check takes at most; the policy decides then. Default 250 ms.
    ///
    /// Timers are in milliseconds, and a decision waits for the runtime to come round to it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Builds the limiter. Asks nobody.
    ///
    /// # Errors
    /// As [`RateLimiterBuilder::build`](crate::RateLimiterBuilder::build); a full burst that takes
    /// more than a hundred years to earn; an empty name; a time-out under a millisecond or above a
    /// day; a share of zero instances or of less than one token.
    pub fn build(self) -> Result<RemoteLimiter, ConfigError> {
        let quota = Quota::required(self.quota)?;
        let units = Units::new(quota)?;
        if self.name.is_empty() {
            return Err(ConfigError::Missing { field: "name" });
        }
        validate_wait("timeout", self.timeout)?;
        let inner = Inner {
            fallback: Fallback::new(self.on_failure, quota, self.local_capacity)?,
            keys: Keys::new(&self.remote, &self.name),
            remote: self.remote,
            name: self.name,
            quota,
            units,
            timeout: self.timeout,
            scripts: Scripts::new(),
            counts: Counts::default(),
            closed: false.into(),
        };
        Ok(RemoteLimiter {
            inner: Arc::new(inner),
        })
    }
}

pub(crate) fn validate_wait(field: &'static str, wait: Duration) -> Result<(), ConfigError> {
    let nanos = |wait: Duration| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    if wait < MIN_TIMEOUT {
        return Err(ConfigError::TooSmall {
            field,
            value: nanos(wait),
            min: nanos(MIN_TIMEOUT),
        });
    }
    if wait > MAX_TIMEOUT {
        return Err(ConfigError::TooLarge {
            field,
            value: nanos(wait),
            max: nanos(MAX_TIMEOUT),
        });
    }
    Ok(())
}
