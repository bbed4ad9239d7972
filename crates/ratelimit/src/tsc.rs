//! Precise time at the price of the processor's counter.

use std::fmt;
use std::hint;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock};

use overdrive_core::{Clock, Timestamp};

use crate::counter::Counter;

/// The processor's time-stamp counter, held to the operating system's monotonic clock: exact to
/// tens of nanoseconds, and a third of the cost of
/// [`PreciseClock`](overdrive_core::clock::PreciseClock).
///
/// The two are compared about fifty times a second, by a reader; a difference of frequency is
/// measured and steered away, so that the clocks stay within microseconds of each other once the
/// frequency has been measured for a second, and [`Deadline`](overdrive_core::Deadline)s of one hold
/// for the other. After a pause (nobody reads, or the machine sleeps) it goes forward to the operating
/// system's time.
///
/// It is as even as the processors' counters are alike, which the kernel has found them to be: a
/// thread that moves to one that is behind sees that much less. If the counter itself jumps, as it
/// may when a virtual machine is moved, the time shown is at most 20 ms ahead until it has been slowed
/// back, and may go back by the microseconds above.
///
/// It needs an x86-64 processor and a Linux kernel that keeps its own time by the counter (clock
/// source `tsc`); elsewhere, and from ten seconds after the kernel stops to trust the counter, it reads
/// the operating system's clock. The first one of a process measures the counter for two milliseconds.
///
/// ```
/// use overdrive_ratelimit::{Clock, TscClock};
///
/// let clock = TscClock::new();
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// ```
#[derive(Clone, Copy)]
pub struct TscClock {
    steered: &'static Steered,
}

impl TscClock {
    /// The clock. All of them show the same time.
    #[must_use]
    pub fn new() -> Self {
        static STEERED: OnceLock<Steered> = OnceLock::new();
        Self {
            steered: STEERED.get_or_init(Steered::new),
        }
    }
}

/// A clock to be made when it is needed: [`TscClock`] takes a while, and who brings another is not
/// to pay for it.
#[derive(Clone, Debug)]
pub(crate) enum ClockSource<C> {
    Made(fn() -> C),
    Given(C),
}

impl<C> ClockSource<C> {
    pub(crate) fn get(self) -> C {
        match self {
            Self::Made(make) => make(),
            Self::Given(clock) => clock,
        }
    }
}

impl ClockSource<TscClock> {
    pub(crate) fn tsc() -> Self {
        Self::Made(TscClock::new)
    }
}

impl Default for TscClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TscClock {
    #[inline(always)]
    fn now(&self) -> Timestamp {
        self.steered.now()
    }
}

impl fmt::Debug for TscClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TscClock").finish_non_exhaustive()
    }
}

/// Binary places of a rate: with 31 of them a rate is exact to half a nanosecond a second, and the
/// ticks of a stretch fit.
const SHIFT: u32 = 31;

/// How long a comparison holds, in nanoseconds. A reader that comes later makes a new one.
const STRETCH: u64 = 20_000_000;

/// From how long on a frequency is believed, in nanoseconds.
const BELIEVED: u64 = 250_000_000;

/// After so many comparisons the kernel is asked whether it still trusts the counter.
const TRUSTED: u32 = 500;

/// How long the counter is measured at first, in nanoseconds.
const MEASURED: u64 = 2_000_000;

/// A counter that is turned into time by the last comparison, behind a sequence lock.
struct Steered {
    counter: Counter,
    version: AtomicU64,
    /// The counter at the last comparison, and the time shown then.
    ticks: AtomicU64,
    nanos: AtomicU64,
    /// Nanoseconds per tick since, in `2^-SHIFT`.
    rate: AtomicU64,
    /// The ticks of a stretch.
    ticks_valid: AtomicU64,
    baseline: Mutex<Baseline>,
}

/// What the counter's frequency is measured from.
#[derive(Debug)]
struct Baseline {
    first: Comparison,
    /// What was measured so far.
    rate: u64,
    /// What was measured last and was too far from that to be believed at once.
    doubted: Option<u64>,
    comparisons: u32,
    /// The kernel does not trust the counter any more.
    distrusted: bool,
}

/// The counter and the operating system's clock at one moment.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    ticks: u64,
    nanos: u64,
}

impl Steered {
    fn new() -> Self {
        Self::on(Counter::new())
    }

    fn on(counter: Counter) -> Self {
        let first = compare(&counter);
        let mut now = first;
        while now.nanos - first.nanos < MEASURED {
            hint::spin_loop();
            now = compare(&counter);
        }
        let ticks = u128::from(now.ticks.wrapping_sub(first.ticks).max(1));
        let rate = (u128::from(now.nanos - first.nanos) << SHIFT) / ticks;
        // A counter that stands still, as a test's does, passes for one of nanoseconds.
        let rate = if rate >> 40 == 0 {
            rate as u64
        } else {
            1 << SHIFT
        };
        Self {
            counter,
            version: AtomicU64::new(0),
            ticks: AtomicU64::new(now.ticks),
            nanos: AtomicU64::new(now.nanos),
            rate: AtomicU64::new(rate),
            ticks_valid: AtomicU64::new(ticks_in(STRETCH, rate)),
            baseline: Mutex::new(Baseline {
                first,
                rate,
                doubted: None,
                comparisons: 0,
                distrusted: false,
            }),
        }
    }

    #[inline(always)]
    fn now(&self) -> Timestamp {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let ticks = self.ticks.load(Ordering::Relaxed);
            let nanos = self.nanos.load(Ordering::Relaxed);
            let rate = self.rate.load(Ordering::Relaxed);
            let valid = self.ticks_valid.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if version & 1 != 0 || self.version.load(Ordering::Relaxed) != version {
                hint::spin_loop();
                continue;
            }
            let since = self.counter.read().wrapping_sub(ticks);
            if since <= valid {
                return Timestamp::from_nanos(nanos + ((since * rate) >> SHIFT));
            }
            // A core's counter may be a little behind that of the core which compared.
            if since.wrapping_neg() <= valid / 256 {
                return Timestamp::from_nanos(nanos);
            }
            return self.compare_again(nanos + ((valid * rate) >> SHIFT));
        }
    }

    /// `last` is the latest time that the last comparison can show.
    #[cold]
    fn compare_again(&self, last: u64) -> Timestamp {
        let Ok(mut baseline) = self.baseline.try_lock() else {
            // Another thread is at it: until it is done the time stands still.
            return Timestamp::from_nanos(last);
        };
        // Only the holder of the lock writes these.
        let ticks = self.ticks.load(Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        let now = compare(&self.counter);
        let since = now.ticks.wrapping_sub(ticks);
        if since <= self.ticks_valid.load(Ordering::Relaxed) {
            let nanos = self.nanos.load(Ordering::Relaxed);
            return Timestamp::from_nanos(nanos + ((since * rate) >> SHIFT));
        }
        // One that began anew was within microseconds of the system's time until then.
        let began_anew = since > u64::MAX / 2;
        let least = if began_anew {
            self.nanos.load(Ordering::Relaxed)
        } else {
            last
        };
        let shown = now.nanos.max(least);
        let next = baseline.steer(now, shown - now.nanos);
        baseline.comparisons += 1;
        if baseline.comparisons % TRUSTED == 0 {
            baseline.distrusted = !self.counter.is_trusted();
        }
        // Then each reading comes here.
        let valid = if baseline.distrusted {
            0
        } else {
            ticks_in(STRETCH, next)
        };
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.ticks.store(now.ticks, Ordering::Relaxed);
        self.nanos.store(shown, Ordering::Relaxed);
        self.rate.store(next, Ordering::Relaxed);
        self.ticks_valid.store(valid, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
        Timestamp::from_nanos(shown)
    }
}

impl Baseline {
    /// The rate of the next stretch: what was measured since the first comparison, less what takes a
    /// clock that is `ahead` back in one stretch. No slower than half.
    fn steer(&mut self, now: Comparison, ahead: u64) -> u64 {
        if now.ticks < self.first.ticks {
            // It began anew.
            self.first = now;
        }
        let ticks = u128::from(now.ticks.saturating_sub(self.first.ticks));
        let nanos = u128::from(now.nanos.saturating_sub(self.first.nanos));
        if ticks > 0 && nanos >= u128::from(BELIEVED) {
            let measured = u64::try_from((nanos << SHIFT) / ticks).unwrap_or(u64::MAX);
            let agrees = |rate: u64| rate.abs_diff(measured) <= rate / 1000;
            if agrees(self.rate) || self.doubted.is_some_and(agrees) {
                (self.rate, self.doubted) = (measured, None);
            } else {
                // One of the two stood still for a while, as when the machine sleeps; or it was the
                // first measurement that was off, and then the next agrees with this one.
                (self.first, self.doubted) = (now, Some(measured));
            }
        }
        let less = u128::from(self.rate) * u128::from(ahead) / u128::from(STRETCH);
        let less = u64::try_from(less).unwrap_or(u64::MAX);
        self.rate - less.min(self.rate / 2)
    }
}

fn ticks_in(nanos: u64, rate: u64) -> u64 {
    let ticks = (u128::from(nanos) << SHIFT) / u128::from(rate.max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Both clocks at the same time: of a few tries the one in which least time passed in between.
fn compare(counter: &Counter) -> Comparison {
    let (mut best, mut least) = (Comparison { ticks: 0, nanos: 0 }, u64::MAX);
    for _ in 0..4 {
        let before = counter.read();
        let nanos = Timestamp::now().as_nanos();
        let passed = counter.read().saturating_sub(before);
        if passed < least {
            least = passed;
            let ticks = before + passed / 2;
            best = Comparison { ticks, nanos };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_shows_the_time_of_the_operating_system() {
        let clock = TscClock::new();
        for _ in 0..1000 {
            let before = Timestamp::now();
            let shown = clock.now();
            let after = Timestamp::now();
            let slack = 1_000_000;
            assert!(shown.as_nanos() + slack >= before.as_nanos());
            assert!(shown.as_nanos() <= after.as_nanos() + slack);
        }
    }

    #[test]
    fn it_never_goes_back_across_threads_and_comparisons() {
        let clock = TscClock::new();
        let latest = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let end = Timestamp::now().as_nanos() + 2 * STRETCH;
                    loop {
                        let before = latest.load(Ordering::SeqCst);
                        let now = clock.now().as_nanos();
                        // Of different cores, whose counters may differ by some nanoseconds.
                        assert!(now + 1_000 >= before, "{now} after {before}");
                        latest.fetch_max(now, Ordering::SeqCst);
                        if now > end {
                            return;
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_counter_that_jumps_is_survived() {
        let ticks = Arc::new(AtomicU64::new(1_000_000_000_000));
        let clock = Steered::on(Counter::Set(Arc::clone(&ticks)));
        let before = clock.now();
        ticks.fetch_sub(1_000, Ordering::Relaxed);
        assert_eq!(clock.now(), before, "another core");
        ticks.fetch_sub(900_000_000_000, Ordering::Relaxed);
        let after = clock.now();
        assert!(after >= before);
        ticks.fetch_add(1_000_000, Ordering::Relaxed);
        assert!(clock.now() > after, "it goes on from there");
        ticks.fetch_add(500_000_000_000, Ordering::Relaxed);
        let far = clock.now();
        assert!(far > after);
        let real = Timestamp::now().as_nanos();
        assert!(
            far.as_nanos() < real + 2 * STRETCH,
            "it does not follow the jump"
        );
    }

    fn baseline(first: Comparison, rate: u64) -> Baseline {
        Baseline {
            first,
            rate,
            doubted: None,
            comparisons: 0,
            distrusted: false,
        }
    }

    #[test]
    fn a_first_measurement_that_was_off_is_corrected() {
        let right = 1_u64 << SHIFT;
        let first = Comparison { ticks: 0, nanos: 0 };
        let mut baseline = baseline(first, right + right / 500);
        for stretch in 1..=100_u64 {
            let at = stretch * STRETCH;
            let (ticks, nanos) = (at, at);
            baseline.steer(Comparison { ticks, nanos }, 0);
        }
        assert!(baseline.rate.abs_diff(right) <= right / 1_000_000);
    }

    #[test]
    fn a_counter_that_jumps_mints_no_time_to_speak_of() {
        let ticks = Arc::new(AtomicU64::new(1_000_000_000_000));
        let clock = Steered::on(Counter::Set(Arc::clone(&ticks)));
        let ahead = |clock: &Steered| {
            let shown = clock.now().as_nanos();
            shown.saturating_sub(Timestamp::now().as_nanos())
        };
        for _ in 0..4 {
            ticks.fetch_sub(100_000_000_000, Ordering::Relaxed);
            assert!(ahead(&clock) <= STRETCH, "after a jump back");
        }
        let _new_stretch = clock.now();
        ticks.fetch_add(400_000_000, Ordering::Relaxed);
        assert!(ahead(&clock) <= STRETCH, "after a jump forward");
    }

    #[test]
    fn a_clock_that_is_ahead_is_slowed_and_not_stopped() {
        let (rate, second) = (1_u64 << SHIFT, 1_000_000_000);
        let steered = |nanos, ahead| {
            let first = Comparison { ticks: 0, nanos: 0 };
            let mut baseline = baseline(first, rate);
            let ticks = second;
            let next = baseline.steer(Comparison { ticks, nanos }, ahead);
            (next, baseline.first.nanos)
        };
        assert_eq!(steered(second, 0), (rate, 0));
        let slowed = steered(second, STRETCH / 4);
        assert_eq!(slowed, (rate - rate / 4, 0));
        assert_eq!(steered(second, u64::MAX), (rate / 2, 0));
        // A millionth faster or slower than was thought.
        assert!(steered(second + 1000, 0).0 > rate);
        assert!(steered(second - 1000, 0).0 < rate);
        // A machine that slept for a second: measured anew from here.
        assert_eq!(steered(2 * second, 0), (rate, 2 * second));
    }
}
