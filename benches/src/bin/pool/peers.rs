//! The peers, each driven as its own documentation shows.

use std::sync::Arc;

use crossbeam_queue::{ArrayQueue, SegQueue};
use lockfree_object_pool::{
    LinearObjectPool, LinearReusable, SpinLockObjectPool, SpinLockReusable,
};
use opool::PoolAllocator;
use sharded_slab::Clear;

use crate::object::{Object, Source};

/// Room for everything that a scenario holds at once.
const CAPACITY: usize = 1024;

/// `object-pool`: objects are not reset, so the user clears them after taking.
pub(crate) struct ObjectPool<T>(object_pool::Pool<T>);

impl<T: Object> ObjectPool<T> {
    pub(crate) fn new() -> Self {
        Self(object_pool::Pool::new(1, T::make))
    }
}

impl<T: Object> Source for ObjectPool<T> {
    type Held = object_pool::Reusable<'static, T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        let mut held = self.0.pull(T::make);
        held.clear();
        held
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        drop(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// `lockfree-object-pool`: its `LinearObjectPool`.
pub(crate) struct Lockfree<T>(LinearObjectPool<T>);

impl<T: Object> Lockfree<T> {
    pub(crate) fn new() -> Self {
        Self(LinearObjectPool::new(T::make, T::clear))
    }
}

impl<T: Object + Sync> Source for Lockfree<T> {
    type Held = LinearReusable<'static, T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.0.pull()
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        drop(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// `lockfree-object-pool`: its `SpinLockObjectPool`.
pub(crate) struct SpinLock<T>(SpinLockObjectPool<T>);

impl<T: Object> SpinLock<T> {
    pub(crate) fn new() -> Self {
        Self(SpinLockObjectPool::new(T::make, |object: &mut T| {
            object.clear();
        }))
    }
}

impl<T: Object> Source for SpinLock<T> {
    type Held = SpinLockReusable<'static, T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.0.pull()
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        drop(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// The factory and reset of `opool`.
pub(crate) struct Maker;

impl<T: Object> PoolAllocator<T> for Maker {
    #[inline]
    fn allocate(&self) -> T {
        T::make()
    }

    #[inline]
    fn reset(&self, object: &mut T) {
        object.clear();
    }
}

/// `opool` with static references, which it recommends.
pub(crate) struct Opool<T: Object>(opool::Pool<Maker, T>);

impl<T: Object> Opool<T> {
    pub(crate) fn new() -> Self {
        Self(opool::Pool::new(CAPACITY, Maker))
    }
}

impl<T: Object> Source for Opool<T> {
    type Held = opool::RefGuard<'static, Maker, T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.0.get()
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        drop(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// An object as `sharded-slab` wants it.
pub(crate) struct Slabbed<T>(T);

impl<T: Object> Default for Slabbed<T> {
    fn default() -> Self {
        Self(T::make())
    }
}

impl<T: Object> Clear for Slabbed<T> {
    #[inline]
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// `sharded-slab`'s pool: an object is reused once its key was cleared.
pub(crate) struct ShardedSlab<T: Object>(sharded_slab::Pool<Slabbed<T>>);

impl<T: Object> ShardedSlab<T> {
    pub(crate) fn new() -> Self {
        Self(sharded_slab::Pool::new())
    }
}

impl<T: Object + Sync> Source for ShardedSlab<T> {
    type Held = sharded_slab::pool::RefMut<'static, Slabbed<T>>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.0.create().expect("the slab is far from full")
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        let key = held.key();
        drop(held);
        self.0.clear(key);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        &mut held.0
    }
}

/// `sharded-slab`'s pool with guards that count the pool and may travel.
pub(crate) struct OwnedSlab<T: Object>(Arc<sharded_slab::Pool<Slabbed<T>>>);

impl<T: Object> OwnedSlab<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(sharded_slab::Pool::new()))
    }
}

impl<T: Object + Sync> Source for OwnedSlab<T> {
    type Held = sharded_slab::pool::OwnedRefMut<Slabbed<T>>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        let pool = Arc::clone(&self.0);
        pool.create_owned().expect("the slab is far from full")
    }

    #[inline]
    fn give(&'static self, held: Self::Held) {
        let key = held.key();
        drop(held);
        self.0.clear(key);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        &mut held.0
    }
}

/// A queue that holds the idle objects.
pub(crate) trait Queue<T>: Send + Sync + 'static {
    fn new() -> Self;
    fn pop(&self) -> Option<T>;
    /// What does not fit is dropped.
    fn push(&self, object: T);
}

impl<T: Object> Queue<T> for ArrayQueue<T> {
    fn new() -> Self {
        Self::new(CAPACITY)
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        self.pop()
    }

    #[inline]
    fn push(&self, object: T) {
        drop(self.push(object));
    }
}

impl<T: Object> Queue<T> for SegQueue<T> {
    fn new() -> Self {
        Self::new()
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        self.pop()
    }

    #[inline]
    fn push(&self, object: T) {
        self.push(object);
    }
}

/// A pool made of a queue.
pub(crate) struct Queued<Q>(Q);

impl<Q> Queued<Q> {
    pub(crate) fn new<T>() -> Self
    where
        Q: Queue<T>,
    {
        Self(Q::new())
    }
}

macro_rules! queued {
    ($queue:ident) => {
        impl<T: Object> Source for Queued<$queue<T>> {
            type Held = T;
            type Payload = T;

            #[inline]
            fn take(&'static self) -> T {
                Queue::pop(&self.0).unwrap_or_else(T::make)
            }

            #[inline]
            fn give(&'static self, mut held: T) {
                held.clear();
                Queue::push(&self.0, held);
            }

            #[inline]
            fn payload(held: &mut Self::Held) -> &mut T {
                held
            }
        }
    };
}

queued!(ArrayQueue);
queued!(SegQueue);
