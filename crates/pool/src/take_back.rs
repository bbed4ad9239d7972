//! How an object goes back: through the pool's reset, if it has one.
//!
//! The reset is a type here, not a boxed closure, so that reset and return compile into one
//! function: going back costs one indirect call, not one for the reset inside another.

use crate::Keep;
use crate::engine::{Inner, drop_all};
use crate::stats::Count;

/// Takes objects back into a pool.
pub(crate) trait TakeBack<T: Send + 'static>: Send + Sync {
    fn take_back(&self, pool: &Inner<T>, object: Box<T>);
}

/// Resets before it returns.
pub(crate) struct Resetting<R>(pub(crate) R);

impl<T, R> TakeBack<T> for Resetting<R>
where
    T: Send + 'static,
    R: Fn(&mut T) -> Keep + Send + Sync,
{
    fn take_back(&self, pool: &Inner<T>, object: Box<T>) {
        let mut held = InReset {
            pool,
            object: Some(object),
        };
        let keep = held.object.as_mut().map(|object| (self.0)(object));
        let Some(object) = held.object.take() else {
            return;
        };
        std::mem::forget(held);
        if keep == Some(Keep::Discard) {
            return pool.discard(Count::ByReset, object);
        }
        // Only now is the cache looked up: the reset may have used this pool on this thread.
        pool.put_here(object);
    }
}

/// An object during its reset. If that panics, the object is dropped and counted.
struct InReset<'a, T: Send + 'static> {
    pool: &'a Inner<T>,
    object: Option<Box<T>>,
}

impl<T: Send + 'static> Drop for InReset<'_, T> {
    fn drop(&mut self) {
        self.pool.count(Count::ByPanic);
        drop_all(self.object.take().into_iter().collect());
    }
}
