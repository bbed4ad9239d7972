//! A concurrency limit that finds its number by itself.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overdrive_core::{Clock, ConfigError, TimeBudget, Timestamp};

use crate::concurrency::{ConcurrencyLimit, MAX_CONCURRENCY};
use crate::concurrency_builder::MAX_INTERVAL;
use crate::error::{AcquireError, TryAcquireError};
use crate::permit::OwnedPermit;
use crate::policy::{LimitPolicy, Window};
use crate::stats::ConcurrencyStats;
use crate::tsc::{ClockSource, TscClock};

/// A concurrency limit that follows what the service behind it can take: it measures how long work
/// takes and how it ends, and once a window sets the number of permits by a [`LimitPolicy`].
///
/// A permit says how the work ended: [`success`](AdaptivePermit::success) is a measurement,
/// [`overload`](AdaptivePermit::overload) a sign of too much (a time-out, a refusal, a 503), and
/// [`ignore`](AdaptivePermit::ignore), or a drop, neither. Clones are handles to the same limit.
///
/// A permit costs two readings of the clock and a lock more than one of [`ConcurrencyLimit`]; a
/// measurement for which the lock is not free is left out, its success and an overload never. Nothing runs in the
/// background: the end of a permit ends a window.
///
/// ```
/// use overdrive_ratelimit::{AdaptiveLimit, LimitPolicy};
///
/// let backend = AdaptiveLimit::builder().policy(LimitPolicy::gradient2()).range(4, 500).build()?;
/// let permit = backend.try_acquire()?;
/// let answer: Result<u32, &str> = Ok(7);
/// match answer {
///     Ok(_) => permit.success(),
///     Err(_) => permit.overload(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AdaptiveLimit<C: Clock = TscClock> {
    inner: Arc<Inner<C>>,
}

struct Inner<C> {
    limit: ConcurrencyLimit,
    clock: C,
    range: (usize, usize),
    window: Duration,
    min_samples: u64,
    overload_share: f64,
    /// What ended since the last window without a measurement: overloads in units of [`OVERLOAD`], and
    /// below it successes that found the lock taken. In one word, as they are judged together.
    unmeasured: AtomicU64,
    sampled: Mutex<Sampled>,
}

/// One overload, in a count of what was not measured.
const OVERLOAD: u64 = 1 << 32;

struct Sampled {
    policy: LimitPolicy,
    window: Window,
    started: Timestamp,
    updates: u64,
}

impl<C: Clock> AdaptiveLimit<C> {
    /// A permit, if one is free and nobody waits for it.
    ///
    /// # Errors
    /// None is, or the limit is closed.
    pub fn try_acquire(&self) -> Result<AdaptivePermit<C>, TryAcquireError> {
        let permit = self.inner.limit.try_acquire()?.into_owned();
        Ok(self.started(permit))
    }

    /// Waits for a permit, where [`max_waiters`](AdaptiveLimitBuilder::max_waiters) lets anybody wait.
    /// What is measured begins with the permit, not with the wait.
    ///
    /// # Errors
    /// [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    ///
    /// # Cancel safety
    /// As of [`Acquire`](crate::Acquire).
    pub async fn acquire(&self) -> Result<AdaptivePermit<C>, AcquireError> {
        let permit = self.inner.limit.acquire_owned().await?;
        Ok(self.started(permit))
    }

    /// Blocks the thread until there is a permit, for so long at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    pub fn acquire_timeout_blocking(
        &self,
        timeout: Duration,
    ) -> Result<AdaptivePermit<C>, AcquireError> {
        let permit = self.inner.limit.acquire_timeout_blocking(timeout)?;
        Ok(self.started(permit.into_owned()))
    }

    fn started(&self, permit: OwnedPermit) -> AdaptivePermit<C> {
        AdaptivePermit {
            started: self.inner.clock.now(),
            in_flight: self.inner.limit.in_flight(),
            limit: self.clone(),
            permit,
        }
    }

    /// The limit beneath: for waiting in other forms, `close` and `drain`. Its permits are counted
    /// and not measured.
    #[must_use]
    pub fn concurrency(&self) -> &ConcurrencyLimit {
        &self.inner.limit
    }

    /// The number of permits there are now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.limit.limit()
    }

    /// The number of permits that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.limit.in_flight()
    }

    /// The figures of the limit beneath.
    #[must_use]
    pub fn stats(&self) -> ConcurrencyStats {
        self.inner.limit.stats()
    }

    /// How many windows have set the limit so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.sampled().updates
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.limit.name()
    }

    fn sampled(&self) -> std::sync::MutexGuard<'_, Sampled> {
        self.inner
            .sampled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> Inner<C> {
    fn sample(&self, started: Timestamp, in_flight: usize) {
        let now = self.clock.now();
        let Ok(mut sampled) = self.sampled.try_lock() else {
            self.unmeasured.fetch_add(1, Ordering::Relaxed);
            return;
        };
        sampled.window.add(now.saturating_since(started), in_flight);
        let changed = self.end_window(&mut sampled, now);
        drop(sampled);
        self.tell(changed);
    }

    /// Those who wait, of another limit. Their wakers are code of others, so not under the lock.
    fn tell(&self, changed: bool) {
        if changed {
            self.limit.inner.look_again();
        }
    }

    fn overloaded(&self, in_flight: usize) {
        self.unmeasured.fetch_add(OVERLOAD, Ordering::Relaxed);
        let now = self.clock.now();
        if let Ok(mut sampled) = self.sampled.try_lock() {
            sampled.window.saw(in_flight);
            let changed = self.end_window(&mut sampled, now);
            drop(sampled);
            self.tell(changed);
        }
    }

    /// Whether there is another limit now.
    fn end_window(&self, sampled: &mut Sampled, now: Timestamp) -> bool {
        let over = now.saturating_since(sampled.started) >= self.window;
        let overloads = self.unmeasured.load(Ordering::Relaxed) / OVERLOAD;
        if !over || sampled.window.samples() + overloads < self.min_samples {
            return false;
        }
        let unmeasured = self.unmeasured.swap(0, Ordering::Relaxed);
        let (overloads, successes) = (unmeasured / OVERLOAD, unmeasured % OVERLOAD);
        let window = std::mem::take(&mut sampled.window);
        sampled.started = now;
        sampled.updates += 1;
        let before = self.limit.limit();
        let asked = (window.samples() + successes + overloads) as f64;
        // So few are noise.
        let overloads = overloads as f64 > self.overload_share * asked;
        let next = sampled.policy.next(before, &window, overloads);
        let next = next.clamp(self.range.0, self.range.1);
        self.limit.store_limit(next);
        next != before
    }
}

impl<C: Clock> Clone for AdaptiveLimit<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C: Clock> fmt::Debug for AdaptiveLimit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLimit")
            .field("limit", &self.inner.limit)
            .field("range", &self.inner.range)
            .finish_non_exhaustive()
    }
}

/// The right to go on under an [`AdaptiveLimit`], given back when it ends or is dropped.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct AdaptivePermit<C: Clock = TscClock> {
    limit: AdaptiveLimit<C>,
    started: Timestamp,
    in_flight: usize,
    permit: OwnedPermit,
}

impl<C: Clock> AdaptivePermit<C> {
    /// Measures the work as a success, and goes on holding the permit.
    #[cfg(feature = "tower")]
    pub(crate) fn success_so_far(self) -> OwnedPermit {
        self.limit.inner.sample(self.started, self.in_flight);
        self.permit
    }

    /// Says that there was too much work, and goes on holding the permit.
    #[cfg(feature = "tower")]
    pub(crate) fn overload_so_far(self) -> OwnedPermit {
        self.limit.inner.overloaded(self.in_flight);
        self.permit
    }

    /// Measures nothing, and goes on holding the permit.
    #[cfg(feature = "tower")]
    pub(crate) fn ignore_so_far(self) -> OwnedPermit {
        self.permit
    }

    /// The work ended well, after the time that it takes.
    pub fn success(self) {
        let inner = Arc::clone(&self.limit.inner);
        let (started, in_flight) = (self.started, self.in_flight);
        drop(self.permit);
        inner.sample(started, in_flight);
    }

    /// The work failed because there was too much of it.
    pub fn overload(self) {
        let inner = Arc::clone(&self.limit.inner);
        let in_flight = self.in_flight;
        drop(self.permit);
        inner.overloaded(in_flight);
    }

    /// How the work ended says nothing: it failed by itself, or was given up. As a drop.
    pub fn ignore(self) {}
}

impl<C: Clock> fmt::Debug for AdaptivePermit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptivePermit")
            .field("started", &self.started)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

/// The most measurements that a window can be asked to wait for.
const MAX_SAMPLES: usize = 1_000_000;

/// Sets an [`AdaptiveLimit`] up, from [`AdaptiveLimit::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct AdaptiveLimitBuilder<C: Clock = TscClock> {
    name: Cow<'static, str>,
    policy: LimitPolicy,
    range: (usize, usize),
    initial: Option<usize>,
    window: Duration,
    min_samples: u64,
    overload_share: f64,
    max_waiters: usize,
    budget: Option<TimeBudget>,
    clock: ClockSource<C>,
}

impl AdaptiveLimit {
    /// Starts the set-up of a limit.
    pub fn builder() -> AdaptiveLimitBuilder {
        AdaptiveLimitBuilder {
            name: Cow::Borrowed("adaptive limit"),
            policy: LimitPolicy::gradient2(),
            range: (4, 1_000),
            initial: None,
            window: Duration::from_millis(250),
            min_samples: 10,
            overload_share: 0.01,
            max_waiters: 0,
            budget: None,
            clock: ClockSource::tsc(),
        }
    }
}

impl<C: Clock> AdaptiveLimitBuilder<C> {
    /// A label for figures. Default `"adaptive limit"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How the limit is found. Default [`LimitPolicy::gradient2`].
    pub fn policy(mut self, policy: LimitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The lowest and the highest limit. Default 4 and 1,000.
    pub fn range(mut self, lowest: usize, highest: usize) -> Self {
        self.range = (lowest, highest);
        self
    }

    /// The limit to begin with. Default 20, within the range.
    pub fn initial(mut self, permits: usize) -> Self {
        self.initial = Some(permits);
        self
    }

    /// How long is measured before the limit is set anew. Default 250 ms.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many measurements that takes at least: until then a window goes on. Default 10.
    pub fn min_samples(mut self, n: u64) -> Self {
        self.min_samples = n;
        self
    }

    /// Up to which share of a window's permits may end in an
    /// [`overload`](AdaptivePermit::overload) without the limit becoming lower: any busy service has
    /// one that times out now and then. From 0, where each counts, to below 1. Default a hundredth.
    pub fn overload_share(mut self, share: f64) -> Self {
        self.overload_share = share;
        self
    }

    /// How many may wait at the same time. Default none: what is too much is refused at once, by
    /// [`acquire`](AdaptiveLimit::acquire) too.
    pub fn max_waiters(mut self, n: usize) -> Self {
        self.max_waiters = n;
        self
    }

    /// As of
    /// [`ConcurrencyLimitBuilder::time_budget`](crate::ConcurrencyLimitBuilder::time_budget).
    pub fn time_budget(mut self, budget: TimeBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Where the time comes from. Default [`TscClock`].
    pub fn clock<D: Clock>(self, clock: D) -> AdaptiveLimitBuilder<D> {
        AdaptiveLimitBuilder {
            name: self.name,
            policy: self.policy,
            range: self.range,
            initial: self.initial,
            window: self.window,
            min_samples: self.min_samples,
            overload_share: self.overload_share,
            max_waiters: self.max_waiters,
            budget: self.budget,
            clock: ClockSource::Given(clock),
        }
    }

    /// Builds the limit.
    ///
    /// # Errors
    /// A lowest limit of zero, or above the highest; a highest above [`MAX_CONCURRENCY`]; an initial
    /// one outside of the range; a window of zero or more than an hour; a number of samples of zero
    /// or more than a million; a share outside of its bounds; a policy with a number that makes no
    /// sense; too many waiters.
    pub fn build(self) -> Result<AdaptiveLimit<C>, ConfigError> {
        let (lowest, highest) = self.range;
        ConfigError::within("range", lowest, MAX_CONCURRENCY)?;
        ConfigError::within("range", highest, MAX_CONCURRENCY)?;
        if lowest > highest {
            return Err(ConfigError::Invalid {
                field: "range",
                reason: "has its lowest limit above its highest",
            });
        }
        let initial = self.initial.unwrap_or_else(|| 20.clamp(lowest, highest));
        if !(lowest..=highest).contains(&initial) {
            return Err(ConfigError::Contradiction {
                field: "initial",
                other: "range",
                reason: "must lie within",
            });
        }
        if self.window.is_zero() {
            return Err(ConfigError::Zero { field: "window" });
        }
        if self.window > MAX_INTERVAL {
            return Err(ConfigError::TooLarge {
                field: "window",
                value: u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX),
                max: MAX_INTERVAL.as_nanos() as u64,
            });
        }
        let samples = usize::try_from(self.min_samples).unwrap_or(usize::MAX);
        ConfigError::within("min_samples", samples, MAX_SAMPLES)?;
        if !(0.0..1.0).contains(&self.overload_share) {
            return Err(ConfigError::Invalid {
                field: "overload_share",
                reason: "must be from zero to below one",
            });
        }
        self.policy.validate()?;
        let mut limit = ConcurrencyLimit::builder()
            .name(self.name)
            .limit(initial)
            .max_waiters(self.max_waiters);
        if let Some(budget) = self.budget {
            limit = limit.time_budget(budget);
        }
        let limit = limit.build()?;
        let clock = self.clock.get();
        let started = clock.now();
        Ok(AdaptiveLimit {
            inner: Arc::new(Inner {
                limit,
                clock,
                range: self.range,
                window: self.window,
                min_samples: self.min_samples,
                overload_share: self.overload_share,
                unmeasured: AtomicU64::new(0),
                sampled: Mutex::new(Sampled {
                    policy: self.policy,
                    window: Window::default(),
                    started,
                    updates: 0,
                }),
            }),
        })
    }
}
