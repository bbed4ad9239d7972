//! Monotonic time that a test can take into its own hands.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::ConfigError;

/// A point in monotonic time, in nanoseconds since the origin of the clock that gave it.
///
/// Every real clock of this crate has the same origin, an hour before its first use in the
/// process, so their timestamps compare. A [`ManualClock`] has its own, at [`Timestamp::ZERO`].
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::clock::Timestamp;
///
/// let later = Timestamp::ZERO.saturating_add(Duration::from_millis(2));
/// assert_eq!(later.as_nanos(), 2_000_000);
/// assert_eq!(Timestamp::ZERO.saturating_since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// Further away than any clock gets: 584 years.
    pub const MAX: Self = Self(u64::MAX);

    /// The timestamp that many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// What [`PreciseClock`] shows.
    #[must_use]
    pub fn now() -> Self {
        PreciseClock.now()
    }

    /// The timestamp `by` later, [`Timestamp::MAX`] at most.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(by)))
    }

    /// How long after `earlier` this is, zero if it is not.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The standard library's name of this moment of a real clock, for timers that want one.
    /// `None` where the platform cannot express it.
    #[must_use]
    pub fn to_instant(self) -> Option<Instant> {
        origin().checked_add(Duration::from_nanos(self.0))
    }

    /// The timestamp of real time at `instant`; the origin if it lies before it.
    #[must_use]
    pub fn from_instant(instant: Instant) -> Self {
        Self(saturating_nanos(
            instant.saturating_duration_since(origin()),
        ))
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An hour before the first use, where the platform's clock reaches back so far: instants from
/// before that use, such as those of a runtime whose time stands still, are then not cut off.
fn origin() -> Instant {
    const BACK: Duration = Duration::from_secs(3600);
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(BACK).unwrap_or(now)
    })
}

/// Where the time comes from. It never goes back.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The operating system's monotonic clock, exact to tens of nanoseconds. Some 25 ns a reading.
///
/// ```
/// use overdrive_core::clock::{Clock, PreciseClock};
///
/// let before = PreciseClock.now();
/// assert!(PreciseClock.now() >= before);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PreciseClock;

impl Clock for PreciseClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_instant(Instant::now())
    }
}

/// A clock that a thread of its own sets at an interval: a reading is one load, and up to that
/// interval old (more, when the machine is too busy to run the thread).
///
/// Clones share the thread, named `overdrive-core-clock`; it ends within an interval of the last
/// clone's drop.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::clock::{Clock, CoarseClock};
///
/// let clock = CoarseClock::new(Duration::from_millis(1))?;
/// assert!(clock.now() <= overdrive_core::Timestamp::now());
/// # Ok::<(), overdrive_core::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CoarseClock {
    shown: Arc<AtomicU64>,
}

impl CoarseClock {
    /// Starts a clock of that resolution.
    ///
    /// # Errors
    /// A resolution of zero, above a minute, or a thread that cannot be started.
    pub fn new(resolution: Duration) -> Result<Self, ConfigError> {
        const FIELD: &str = "resolution";
        const MAX: Duration = Duration::from_secs(60);
        if resolution.is_zero() {
            return Err(ConfigError::Zero { field: FIELD });
        }
        if resolution > MAX {
            return Err(ConfigError::TooLarge {
                field: FIELD,
                value: saturating_nanos(resolution),
                max: saturating_nanos(MAX),
            });
        }
        let shown = Arc::new(AtomicU64::new(Timestamp::now().0));
        let weak = Arc::downgrade(&shown);
        thread::Builder::new()
            .name("overdrive-core-clock".into())
            .spawn(move || tick(&weak, resolution))
            .map_err(|error| ConfigError::Thread {
                field: FIELD,
                kind: error.kind(),
            })?;
        Ok(Self { shown })
    }
}

fn tick(shown: &Weak<AtomicU64>, resolution: Duration) {
    while let Some(shown) = shown.upgrade() {
        shown.store(Timestamp::now().0, Ordering::Relaxed);
        drop(shown);
        thread::park_timeout(resolution);
    }
}

impl Clock for CoarseClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.shown.load(Ordering::Relaxed))
    }
}

/// A clock that stands still until it is told to go on. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::clock::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::new();
/// let seen_by_the_code_under_test = clock.clone();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(seen_by_the_code_under_test.now().as_nanos(), 3_600_000_000_000);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    shown: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows [`Timestamp::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time on, to [`Timestamp::MAX`] at most.
    pub fn advance(&self, by: Duration) {
        let by = saturating_nanos(by);
        let add = |shown: u64| Some(shown.saturating_add(by));
        let _always_some = self
            .shown
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Shows `to` from now on, unless that lies in the past: time does not go back.
    pub fn advance_to(&self, to: Timestamp) {
        self.shown.fetch_max(to.0, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.shown.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clocks_share_an_origin_and_never_go_back() {
        let before = Timestamp::now();
        let coarse = CoarseClock::new(Duration::from_micros(100)).unwrap();
        let first = coarse.now();
        assert!(first >= before);
        // It moves: this ends only if the thread sets it.
        while coarse.now() == first {
            thread::yield_now();
        }
        assert!(coarse.now() <= Timestamp::now());
    }

    #[test]
    fn the_thread_of_a_coarse_clock_ends_with_it() {
        let clock = CoarseClock::new(Duration::from_micros(100)).unwrap();
        let weak = Arc::downgrade(&clock.shown);
        drop(clock);
        while weak.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn absurd_resolutions_are_refused() {
        for resolution in [Duration::ZERO, Duration::MAX, Duration::from_secs(61)] {
            assert_eq!(
                CoarseClock::new(resolution).unwrap_err().field(),
                "resolution"
            );
        }
    }

    #[test]
    fn the_ends_of_time_saturate() {
        let clock = ManualClock::new();
        clock.advance(Duration::MAX);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::MAX);
        clock.advance_to(Timestamp::ZERO);
        assert_eq!(clock.now(), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        let _no_panic = Timestamp::MAX.to_instant();
    }

    #[test]
    fn instants_convert_both_ways() {
        let now = Timestamp::now();
        let instant = now.to_instant().unwrap();
        assert_eq!(Timestamp::from_instant(instant), now);
    }
}
