//! One instance's share of a quota, for while the server is away.

use overdrive_core::ConfigError;

use crate::keyed::KeyedLimiter;
use crate::quota::{MAX_PERIOD, Quota};
use crate::redis::builder::OnFailure;

/// What decides without the server.
#[derive(Debug)]
pub(crate) enum Fallback {
    Open,
    Closed,
    Share(KeyedLimiter<[u8]>),
}

impl Fallback {
    pub(crate) fn new(
        policy: OnFailure,
        quota: Quota,
        capacity: usize,
    ) -> Result<Self, ConfigError> {
        let instances = match policy {
            OnFailure::Open => return Ok(Self::Open),
            OnFailure::Closed => return Ok(Self::Closed),
            OnFailure::LocalShare { instances } => instances,
        };
        if instances == 0 {
            return Err(ConfigError::Zero { field: "instances" });
        }
        if u64::from(instances) > quota.burst {
            return Err(ConfigError::Contradiction {
                field: "instances",
                other: "burst",
                reason: "must not exceed",
            });
        }
        let period = quota.period.checked_mul(instances);
        // Of a long period the tokens are divided, rounded down.
        let (tokens, period) = match period.filter(|period| *period <= MAX_PERIOD) {
            Some(period) => (quota.tokens, period),
            None => (quota.tokens / u64::from(instances), quota.period),
        };
        let share = Quota {
            tokens,
            period,
            burst: quota.burst / u64::from(instances),
        };
        let builder = KeyedLimiter::<[u8]>::builder().quota(share);
        builder.capacity(capacity).build().map(Self::Share)
    }

    /// What the server granted is charged here too, so that its absence brings no second burst.
    pub(crate) fn charge(&self, key: &[u8], n: u64) {
        if let Self::Share(share) = self {
            let left = share.snapshot(key).remaining;
            // Another may be faster: then it is charged less, a token at most short of what is there.
            let _charged = share.check_n(key, n.min(left));
        }
    }
}
