//! A limiter of which each thread keeps some tokens to itself.

use std::fmt;
use std::sync::Arc;
use std::thread;

use overdrive_core::thread_slot;
use overdrive_core::{Clock, ConfigError};

use crate::error::{CheckError, Denied};
use crate::limiter::{RateLimiter, Snapshot};
use crate::limiter_builder::RateLimiterBuilder;
use crate::quota::Quota;
use crate::stats::LimiterStats;
use crate::sync::{AtomicU64, Ordering};
use crate::tsc::TscClock;

/// The most threads that can be given tokens of their own.
pub const MAX_LEASES: usize = 1 << 16;

/// A [`RateLimiter`] for many threads at once: each takes tokens from it in batches, and spends
/// them without a look at the clock or at what others share.
///
/// The bound is that of the quota, and exact: in no window of length `t` more than `burst + rate * t`
/// tokens are given out. For this the limiter beneath has a burst that is smaller by all that
/// threads may hold, `threads * batch` tokens. That is the price: tokens that lie with a thread that
/// does not ask are missing to the others, so a lone thread finds less than the full burst at once.
/// The rate is not affected. As the limiter runs dry the batches become smaller, down to one token.
///
/// Threads beyond the number it was set up for ask the limiter beneath, as does everybody for more
/// tokens at a time than the thread has.
///
/// ```
/// use overdrive_ratelimit::{Quota, RateLimiter};
///
/// let quota = Quota::per_second(1_000_000);
/// let requests = RateLimiter::builder().quota(quota).leased(64).threads(8).build()?;
/// assert!(requests.check().is_ok());
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct LeasedLimiter<C: Clock = TscClock> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Clock> {
    limiter: RateLimiter<C>,
    batch: u64,
    slots: Box<[Slot]>,
}

/// What one thread holds. Only that thread writes it; the next holder of its id begins after its
/// end.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// Tokens to spend.
    held: AtomicU64,
    /// Calls that were allowed from here.
    allowed: AtomicU64,
    /// The tokens that they got beyond one each.
    more: AtomicU64,
    denied: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            held: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
            more: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }
    }
}

/// A count of which the caller is the only writer.
#[inline(always)]
fn add(count: &AtomicU64, n: u64) {
    let now = count.load(Ordering::Relaxed);
    count.store(now.wrapping_add(n), Ordering::Relaxed);
}

impl<C: Clock> LeasedLimiter<C> {
    /// Takes one token, if the thread has one or the limiter has one now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which the limiter would have one.
    #[inline(always)]
    pub fn check(&self) -> Result<(), Denied> {
        self.check_as(thread_slot::current())
    }

    /// For the thread of that id, which must be the caller's.
    #[inline(always)]
    pub(crate) fn check_as(&self, me: u32) -> Result<(), Denied> {
        if let Some(slot) = self.inner.slot(me) {
            let held = slot.held.load(Ordering::Relaxed);
            if held > 0 {
                slot.held.store(held - 1, Ordering::Relaxed);
                add(&slot.allowed, 1);
                return Ok(());
            }
        }
        self.check_empty(me)
    }

    #[inline(never)]
    fn check_empty(&self, me: u32) -> Result<(), Denied> {
        let inner = &*self.inner;
        if me == thread_slot::UNREGISTERED {
            // Another thread may have left tokens behind under the number that this one now has.
            return self.check_as(thread_slot::register());
        }
        let Some(slot) = inner.slot(me) else {
            return inner.limiter.check();
        };
        if inner.refill(slot) {
            return Ok(());
        }
        match inner.limiter.peek(1) {
            Err(error) => {
                add(&slot.denied, 1);
                let retry_after = error.retry_after().unwrap_or_default();
                Err(Denied::after(retry_after))
            }
            // It came in this moment.
            Ok(()) => inner.limiter.check(),
        }
    }

    /// Takes `n` tokens, if the thread has them or the limiter has all of them now. None is always
    /// allowed.
    ///
    /// # Errors
    /// As of [`RateLimiter::check_n`], with the burst that the limiter beneath has.
    pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
        if let Some(slot) = self.inner.slot(thread_slot::current()) {
            let held = slot.held.load(Ordering::Relaxed);
            if n > 0 && held >= n {
                slot.held.store(held - n, Ordering::Relaxed);
                add(&slot.allowed, 1);
                add(&slot.more, n - 1);
                return Ok(());
            }
        }
        self.inner.limiter.check_n(n)
    }

    /// The limiter beneath, from which the batches come. Its checks and waits are bounded together
    /// with these, and a quota that is set there holds for both.
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter<C> {
        &self.inner.limiter
    }

    /// What a check of the limiter beneath would find; what threads hold counts as taken, and its
    /// `limit` is the burst less what they may hold.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.limiter.snapshot()
    }

    /// The figures so far, of all threads and of the limiter beneath. What lies with threads does
    /// not count as given out.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let mut stats = self.inner.limiter.stats();
        for slot in &self.inner.slots {
            let allowed = slot.allowed.load(Ordering::Relaxed);
            stats.allowed += allowed;
            stats.tokens = stats
                .tokens
                .wrapping_add(allowed)
                .wrapping_add(slot.more.load(Ordering::Relaxed));
            stats.denied += slot.denied.load(Ordering::Relaxed);
        }
        stats
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.limiter.name()
    }

    /// The quota of now, which holds for all together.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.inner.limiter.quota()
    }

    /// The tokens that a thread takes at a time, at most.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.inner.batch
    }
}

impl<C: Clock> Inner<C> {
    #[inline(always)]
    fn slot(&self, me: u32) -> Option<&Slot> {
        // Neither of the two marks of `current` is the number of a slot, counted from one.
        self.slots.get((me as usize).wrapping_sub(1))
    }

    /// Takes a batch, and one token of it for the caller: whether there was any.
    fn refill(&self, slot: &Slot) -> bool {
        let now = self.limiter.inner.clock.now();
        let share = 2 * self.slots.len() as u64;
        let taken = self.limiter.take_up_to(now, self.batch, share);
        if taken == 0 {
            return false;
        }
        let held = slot.held.load(Ordering::Relaxed);
        slot.held.store(held + taken - 1, Ordering::Relaxed);
        add(&slot.allowed, 1);
        true
    }
}

impl<C: Clock> Clone for LeasedLimiter<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C: Clock> fmt::Debug for LeasedLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedLimiter")
            .field("name", &self.name())
            .field("quota", &self.quota())
            .field("batch", &self.batch())
            .field("threads", &self.inner.slots.len())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Sets a [`LeasedLimiter`] up, from [`RateLimiterBuilder::leased`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct LeasedLimiterBuilder<C: Clock = TscClock> {
    limiter: RateLimiterBuilder<C>,
    batch: u64,
    threads: Option<usize>,
}

impl<C: Clock> LeasedLimiterBuilder<C> {
    pub(crate) fn new(limiter: RateLimiterBuilder<C>, batch: u64) -> Self {
        Self {
            limiter,
            batch,
            threads: None,
        }
    }

    /// How many threads hold tokens of their own. Default: twice as many as the machine runs at
    /// once. Threads are counted from the first that uses anything of these crates that is kept
    /// per thread.
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = Some(n);
        self
    }

    /// Builds the limiter.
    ///
    /// # Errors
    /// As of [`RateLimiterBuilder::build`]; a batch or a number of threads of zero, more than
    /// [`MAX_LEASES`] threads, or batches that come to more than half the burst together.
    pub fn build(self) -> Result<LeasedLimiter<C>, ConfigError> {
        let quota = Quota::required(self.limiter.quota)?;
        if self.batch == 0 {
            return Err(ConfigError::Zero { field: "batch" });
        }
        let cores = || thread::available_parallelism().map_or(4, Into::into);
        let threads = self.threads.unwrap_or_else(|| 2 * cores());
        let threads = ConfigError::within("threads", threads, MAX_LEASES)?;
        let most = quota.burst / 2 / threads as u64;
        if self.batch > most {
            return Err(ConfigError::TooLarge {
                field: "batch",
                value: self.batch,
                max: most,
            });
        }
        let leased = self.batch * threads as u64;
        Ok(LeasedLimiter {
            inner: Arc::new(Inner {
                limiter: self.limiter.build_leased(leased)?,
                batch: self.batch,
                slots: (0..threads).map(|_| Slot::new()).collect(),
            }),
        })
    }
}
