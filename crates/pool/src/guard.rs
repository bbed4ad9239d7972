//! The guards that hold an object out of its pool. One of this crate's two modules with unsafe
//! code; the other is `local`.
//!
//! # Invariants
//!
//! 1. A guard's `object` is initialised until its `Drop` or `into_object` takes it, and each of
//!    those ends the guard: `Drop` runs last, `into_object` keeps the guard from being dropped.
//!
//! A guard's object is in no other place, so the guard may give out `&mut T`. Who frees it: the
//! pool after the guard gave it back, or whoever `detach` gave it to. A guard that is forgotten
//! leaks its object and nothing else.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::engine::Inner;
use crate::pool::Pool;
use crate::stats::Count;

/// An object borrowed from a [`Pool`]. Goes back when it is dropped.
///
/// May be dropped on another thread than the one that got it; the object then goes to that
/// thread's cache. The object's address does not change while it is in the pool.
///
/// ```
/// # use overdrive_pool::Pool;
/// # let pool = Pool::builder().factory(Vec::<u8>::new).build()?;
/// let mut buffer = pool.get();
/// buffer.extend_from_slice(b"hello");
/// assert_eq!(buffer.len(), 5);
/// drop(buffer);
/// assert_eq!(pool.stats().idle(), 1);
/// # Ok::<(), overdrive_pool::ConfigError>(())
/// ```
///
/// It cannot outlive the pool:
///
/// ```compile_fail,E0597
/// # use overdrive_pool::Pool;
/// let kept;
/// {
///     let pool = Pool::builder().factory(Vec::<u8>::new).build().unwrap();
///     kept = pool.get();
/// }
/// drop(kept);
/// ```
#[must_use = "the object goes back to its pool when the guard is dropped"]
pub struct Pooled<'p, T: Send + 'static> {
    object: ManuallyDrop<Box<T>>,
    pool: &'p Inner<T>,
}

/// An object from a [`Pool`] with a handle of that pool, for storing and sending anywhere.
///
/// Costs a clone of the handle (one atomic increment and one decrement) more than a [`Pooled`].
/// The pool lives at least as long as its last owned guard.
///
/// ```
/// # use overdrive_pool::Pool;
/// # let pool = Pool::builder().factory(|| 7_u32).build()?;
/// let number = pool.get_owned();
/// let seen = std::thread::spawn(move || *number).join().unwrap();
/// assert_eq!((seen, pool.stats().in_use), (7, 0));
/// # Ok::<(), overdrive_pool::ConfigError>(())
/// ```
#[must_use = "the object goes back to its pool when the guard is dropped"]
pub struct OwnedPooled<T: Send + 'static> {
    object: ManuallyDrop<Box<T>>,
    pool: Pool<T>,
}

impl<'p, T: Send + 'static> Pooled<'p, T> {
    #[inline(always)]
    pub(crate) fn new(object: Box<T>, pool: &'p Inner<T>) -> Self {
        Self {
            object: ManuallyDrop::new(object),
            pool,
        }
    }

    /// Takes the object out of the pool for good. It is not reset.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// # let pool = Pool::builder().factory(|| String::from("a")).build()?;
    /// let text: String = pool.get().detach();
    /// assert_eq!((text.as_str(), pool.stats().detached), ("a", 1));
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    #[must_use = "use `discard` to drop the object"]
    pub fn detach(self) -> T {
        self.pool.count(Count::Detached);
        *self.into_object()
    }

    /// Drops the object instead of returning it, for one that is known to be spoilt.
    ///
    /// ```
    /// # use overdrive_pool::Pool;
    /// # let pool = Pool::builder().factory(|| String::from("a")).build()?;
    /// pool.get().discard();
    /// assert_eq!((pool.stats().discarded_explicitly, pool.stats().idle()), (1, 0));
    /// # Ok::<(), overdrive_pool::ConfigError>(())
    /// ```
    pub fn discard(self) {
        let pool = self.pool;
        pool.discard(Count::Explicit, self.into_object());
    }

    pub(crate) fn into_object(self) -> Box<T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: invariant 1, it is initialised, and `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.object) }
    }
}

impl<T: Send + 'static> Drop for Pooled<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: invariant 1, it is initialised, and this is the guard's end.
        let object = unsafe { ManuallyDrop::take(&mut self.object) };
        self.pool.give_back(object);
    }
}

impl<T: Send + 'static> OwnedPooled<T> {
    #[inline(always)]
    pub(crate) fn new(object: Box<T>, pool: Pool<T>) -> Self {
        Self {
            object: ManuallyDrop::new(object),
            pool,
        }
    }

    /// Takes the object out of the pool for good. It is not reset.
    #[must_use = "use `discard` to drop the object"]
    pub fn detach(self) -> T {
        let (object, pool) = self.into_parts();
        pool.inner().count(Count::Detached);
        *object
    }

    /// Drops the object instead of returning it, for one that is known to be spoilt.
    pub fn discard(self) {
        let (object, pool) = self.into_parts();
        pool.inner().discard(Count::Explicit, object);
    }

    /// The pool that the object goes back to.
    #[must_use]
    pub fn pool(&self) -> &Pool<T> {
        &self.pool
    }

    fn into_parts(self) -> (Box<T>, Pool<T>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: invariant 1, both are initialised, and `this` is not dropped.
        unsafe {
            (
                ManuallyDrop::take(&mut this.object),
                ptr::read(&raw const this.pool),
            )
        }
    }
}

impl<T: Send + 'static> Drop for OwnedPooled<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: invariant 1, it is initialised, and this is the guard's end.
        let object = unsafe { ManuallyDrop::take(&mut self.object) };
        self.pool.inner().give_back(object);
    }
}

impl<T: Send + 'static> Deref for Pooled<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Send + 'static> DerefMut for Pooled<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.object
    }
}

impl<T: Send + 'static> Deref for OwnedPooled<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Send + 'static> DerefMut for OwnedPooled<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.object
    }
}

impl<T: Send + 'static> AsRef<T> for Pooled<'_, T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Send + 'static> AsMut<T> for Pooled<'_, T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: Send + 'static> AsRef<T> for OwnedPooled<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Send + 'static> AsMut<T> for OwnedPooled<T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: fmt::Debug + Send + 'static> fmt::Debug for Pooled<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: fmt::Debug + Send + 'static> fmt::Debug for OwnedPooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
