//! How long to wait before trying again.

use std::time::Duration;

use crate::ConfigError;

/// Exponential backoff with full jitter: the wait before retry `n` is uniform between zero and
/// `min(max, first * 2^n)`, so that those who failed together do not come back together
/// (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
///
/// Pure arithmetic: it neither sleeps nor reads a clock, and a seed gives the same waits again.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::Backoff;
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), 3)?;
/// let waits: Vec<Duration> = backoff.waits(42).collect();
/// assert_eq!(waits.len(), 3);
/// assert!(waits[2] <= Duration::from_millis(200));
/// # Ok::<(), overdrive_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    retries: u32,
}

impl Backoff {
    /// Up to `retries` retries (zero: none), the first after at most `first`, none after more
    /// than `max`.
    ///
    /// # Errors
    /// A `first` of zero, or above `max`.
    pub const fn new(first: Duration, max: Duration, retries: u32) -> Result<Self, ConfigError> {
        if first.is_zero() {
            return Err(ConfigError::Zero { field: "first" });
        }
        if first.as_nanos() > max.as_nanos() {
            return Err(ConfigError::Contradiction {
                field: "first",
                other: "max",
                reason: "must not exceed",
            });
        }
        Ok(Self {
            first,
            max,
            retries,
        })
    }

    /// The largest wait before retry `n`, counted from zero: what jitter is taken from.
    #[must_use]
    pub fn ceiling(self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// The waits, one per retry, by that seed.
    #[must_use]
    pub fn waits(self, seed: u64) -> Waits {
        Waits {
            backoff: self,
            next: 0,
            random: seed,
        }
    }
}

/// The waits of one operation, from [`Backoff::waits`]. It ends when no retry is left.
#[derive(Clone, Debug)]
pub struct Waits {
    backoff: Backoff,
    next: u32,
    random: u64,
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next == self.backoff.retries {
            return None;
        }
        let ceiling = self.backoff.ceiling(self.next);
        self.next += 1;
        Some(fraction(ceiling, split_mix(&mut self.random)))
    }
}

/// `whole * random / 2^64`.
fn fraction(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

/// `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
