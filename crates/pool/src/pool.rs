//! The public pool type.

use std::fmt;
use std::sync::Arc;

use crate::builder::PoolBuilder;
use crate::engine::Inner;
use crate::guard::{OwnedPooled, Pooled};
use crate::local::Me;
use crate::stats::{Count, PoolStats, TrimReport};

/// What a reset decides about the object that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Keep {
    /// The object is spoilt or too large: drop it.
    Discard,
    /// The object is as good as new: keep it.
    Yes,
}

/// A pool of reusable objects. Cloning it makes another handle of the same pool.
///
/// See the [crate's documentation](crate) for when to use it and what its operations cost.
///
/// ```
/// use overdrive_pool::{Keep, Pool};
///
/// let buffers = Pool::builder()
///     .name("response-bodies")
///     .factory(|| Vec::<u8>::with_capacity(4096))
///     .reset(|buffer| {
///         buffer.clear();
///         if buffer.capacity() <= 64 * 1024 { Keep::Yes } else { Keep::Discard }
///     })
///     .max_idle(1_000)
///     .build()?;
///
/// let mut body = buffers.get();
/// body.extend_from_slice(b"hello");
/// drop(body);
/// assert!(buffers.get().is_empty());
/// # Ok::<(), overdrive_pool::ConfigError>(())
/// ```
///
/// The objects must be `Send`, because one thread's object may be the next thread's:
///
/// ```compile_fail,E0277
/// # use overdrive_pool::Pool;
/// let pool = Pool::builder().factory(|| std::rc::Rc::new(1)).build();
/// ```
///
/// # The end of a pool
///
/// The idle objects are dropped with the last handle. A thread that is just ending, and the
/// clean-up thread during a pass, hold a handle for that moment; if yours goes first, the objects
/// are dropped over there, shortly after. Joining the threads that used the pool rules that out
/// for them; the end of a `thread::scope` alone does not, because it does not wait for
/// thread-local destructors.
///
/// An idle object that holds a handle of its own pool keeps the pool, and so itself, alive for
/// ever. Give such objects a `Weak` of something that holds the pool instead.
///
/// # Panics in your code
///
/// A panic in the factory, the reset, the weigher or the destructor of `T` passes through the
/// call that ran it, or through the guard's drop. The pool stays sound and usable: an object
/// whose reset panicked is dropped and counted, and no other object is lost.
///
/// An object whose user panics goes back through the reset like any other, or as it is if there
/// is no reset. [`discard`](Pooled::discard) one that is not fit for the next user.
pub struct Pool<T: Send + 'static> {
    inner: Arc<Inner<T>>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the set-up of a pool.
    pub fn builder() -> PoolBuilder<T> {
        PoolBuilder::new()
    }

    pub(crate) fn from_inner(inner: Arc<Inner<T>>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Inner<T> {
        &self.inner
    }

    /// Takes an idle object, or has the factory make one. Never waits for an object.
    ///
    /// The newest object of this thread's cache comes first, then the newest of the depot.
    #[inline]
    pub fn get(&self) -> Pooled<'_, T> {
        match self.inner.take_if_near(Me::current()) {
            Some(object) => Pooled::new(object, &self.inner),
            None => self.get_slow(),
        }
    }

    /// Takes an idle object if there is one within reach: in this thread's cache or the depot.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| [0_u8; 64]).build()?;
    /// assert!(pool.try_get().is_none());
    /// pool.warm(1);
    /// assert!(pool.try_get().is_some());
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn try_get(&self) -> Option<Pooled<'_, T>> {
        match self.inner.take_if_near(Me::current()) {
            Some(object) => Some(Pooled::new(object, &self.inner)),
            None => self.idle_slow(),
        }
    }

    /// Takes an idle object, or makes one with `make` instead of the factory.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| 0_i32).build()?;
    /// assert!(pool.try_get_with(|| "x".parse()).is_err());
    /// assert_eq!(*pool.try_get_with(|| "5".parse())?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `make`. The pool counts it as failed.
    pub fn try_get_with<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Pooled<'_, T>, E> {
        match self.try_get() {
            Some(object) => Ok(object),
            None => Ok(self.made(self.inner.make_with(make)?)),
        }
    }

    /// [`get`](Self::get) with a guard that holds a handle of the pool.
    #[inline]
    pub fn get_owned(&self) -> OwnedPooled<T> {
        OwnedPooled::new(self.get().into_object(), self.clone())
    }

    /// [`try_get`](Self::try_get) with a guard that holds a handle of the pool.
    #[inline]
    #[must_use]
    pub fn try_get_owned(&self) -> Option<OwnedPooled<T>> {
        self.try_get()
            .map(|object| OwnedPooled::new(object.into_object(), self.clone()))
    }

    /// Makes up to `n` objects ahead and puts them into the depot. Returns how many, which is
    /// fewer when the depot is full.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| [0_u8; 64]).max_idle(10).build()?;
    /// assert_eq!(pool.warm(8), 8);
    /// assert_eq!(pool.warm(8), 2);
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    pub fn warm(&self, n: usize) -> usize {
        for made in 0..n {
            if self.inner.lock().depot.room() == 0 {
                return made;
            }
            let object = Box::new(self.inner.make());
            if let Err(object) = self.inner.admit(object, Count::Warmed) {
                // Others filled the depot while the factory ran.
                self.inner.count(Count::Warmed);
                self.inner.discard(Count::Surplus, object);
                return made;
            }
        }
        n
    }

    /// Puts an object of the caller's into the depot. It is not reset.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| 0).max_idle(1).build()?;
    /// assert_eq!(pool.add(1), Ok(()));
    /// assert_eq!(pool.add(2), Err(2));
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Gives the value back when the depot is full, that is, at `max_idle` less what is set aside
    /// for thread caches.
    pub fn add(&self, value: T) -> Result<(), T> {
        self.inner
            .admit(Box::new(value), Count::Added)
            .map_err(|object| *object)
    }

    /// Drops all idle objects of the depot and of this thread's cache, and has every other thread
    /// drop those of its own at its next operation on this pool.
    ///
    /// In shared mode there are no thread caches, so everything idle goes at once. What a
    /// [`trim_to`](Self::trim_to) on another thread has out for weighing goes on that thread.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| [0_u8; 64]).build()?;
    /// pool.warm(10);
    /// let report = pool.trim();
    /// assert_eq!((report.dropped, report.bytes), (10, 640));
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    pub fn trim(&self) -> TrimReport {
        self.inner.trim(Me::current())
    }

    /// For memory pressure: drops idle objects, oldest first, until about `bytes` are left by the
    /// pool's weigher.
    ///
    /// This thread's cache is handed to the depot first, as far as that has room, and the depot's
    /// objects are weighed. Thread caches cannot be: each object in one is taken to weigh as much
    /// as the mean of those weighed, or `size_of::<T>()` if there were none. The depot keeps the
    /// newest of its objects that weigh `bytes` less that estimate. If the estimate alone exceeds
    /// `bytes`, this thread's cache is emptied too, and every other thread drops what its own
    /// holds at its next operation on this pool. What comes into the pool later, nobody trims.
    ///
    /// The weigher runs without the lock. Until it is done other threads do not find the objects
    /// being weighed, but these count as idle and keep their room: meanwhile `max_idle` admits
    /// that much less, also for a new thread's cache. What others return meanwhile is not weighed.
    ///
    /// One call works at a time. Another one returns at once, with nothing dropped; the one at
    /// work goes on with the lowest target that it was asked for meanwhile, and its report counts
    /// that too. (So it is at work for as long as others keep calling.) A call from the weigher
    /// or a destructor of the call at work counts only if it asks for less than that.
    ///
    /// If the weigher panics, all objects go back and the target is given up; if a destructor
    /// does, the others are dropped nevertheless. The panic passes when the work is done.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| [0_u8; 64]).build()?;
    /// pool.warm(10);
    /// assert_eq!(pool.trim_to(200).dropped, 7);
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    pub fn trim_to(&self, bytes: usize) -> TrimReport {
        self.inner.trim_to(Me::current(), bytes)
    }

    /// One idle pass: drops the objects in the depot that nobody has needed since the last pass,
    /// and asks each thread's cache to give the older half of what it holds to the depot.
    ///
    /// With [`idle_timeout`](PoolBuilder::idle_timeout) a thread of the pool calls it; without,
    /// call it from a timer of your own, or not at all.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// let pool = Pool::builder().factory(|| [0_u8; 64]).build()?;
    /// pool.warm(10);
    /// assert_eq!(pool.trim_idle().dropped, 0); // the first pass only starts the watch
    /// assert_eq!(pool.trim_idle().dropped, 10);
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    pub fn trim_idle(&self) -> TrimReport {
        self.inner.trim_idle(Me::current())
    }

    /// The pool's figures. Takes the lock and visits each thread cache's counters.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.stats()
    }

    /// The name given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The bound on idle objects.
    #[must_use]
    pub fn max_idle(&self) -> usize {
        self.inner.max_idle()
    }

    /// The capacity of each thread's cache; zero in shared mode.
    #[must_use]
    pub fn local_cache(&self) -> usize {
        self.inner.local()
    }

    #[inline(never)]
    fn get_slow(&self) -> Pooled<'_, T> {
        self.idle_slow()
            .unwrap_or_else(|| self.made(self.inner.make()))
    }

    #[inline(never)]
    fn idle_slow(&self) -> Option<Pooled<'_, T>> {
        if self.inner.local() == 0 {
            return self
                .inner
                .take_shared()
                .map(|object| Pooled::new(object, &self.inner));
        }
        let (object, owed) = self.inner.take(Me::current());
        // The guard first: paying runs user code, which can panic.
        let object = object.map(|object| Pooled::new(object, &self.inner));
        self.inner.settle(owed);
        object
    }

    fn made(&self, value: T) -> Pooled<'_, T> {
        let object = Box::new(value);
        self.inner.count(Count::Misses);
        Pooled::new(object, &self.inner)
    }
}

impl<T: Send + 'static> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("max_idle", &self.max_idle())
            .field("local_cache", &self.local_cache())
            .finish_non_exhaustive()
    }
}
