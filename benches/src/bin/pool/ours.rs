//! The pool of this project.

use overdrive_pool::{Keep, OwnedPooled, Pool, Pooled};

use crate::object::{BUFFER, Object, Small, Source};

/// The version shown in the table.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds our pool for an object, as its documentation shows.
pub(crate) trait Build: Object + Sized {
    fn pool() -> Pool<Self>;
}

impl Build for Vec<u8> {
    fn pool() -> Pool<Self> {
        let builder = Pool::builder().name("buffers");
        let built = builder
            .factory(|| Self::with_capacity(BUFFER))
            .reset(|buffer: &mut Self| {
                buffer.clear();
                Keep::Yes
            })
            .build();
        built.expect("the settings are valid")
    }
}

/// A second kind of buffer pool: one that does not keep what has grown large.
pub(crate) fn bounded_buffers() -> Pool<Vec<u8>> {
    let builder = Pool::builder().name("bounded buffers");
    let built = builder
        .factory(|| Vec::with_capacity(BUFFER))
        .reset(|buffer: &mut Vec<u8>| {
            buffer.clear();
            if buffer.capacity() > 16 * BUFFER {
                Keep::Discard
            } else {
                Keep::Yes
            }
        })
        .build();
    built.expect("the settings are valid")
}

impl Build for Small {
    fn pool() -> Pool<Self> {
        let builder = Pool::builder().name("small");
        let built = builder.factory(Self::make).build();
        built.expect("the settings are valid")
    }
}

/// Our pool through guards that hold a handle of it and may be stored.
pub(crate) struct Owned<T: Object>(Pool<T>);

impl<T: Build> Owned<T> {
    pub(crate) fn new() -> Self {
        Self(T::pool())
    }
}

impl<T: Object> Source for Owned<T> {
    type Held = OwnedPooled<T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.0.get_owned()
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

/// Our buffers without thread caches: the fallback of the fast path.
pub(crate) fn shared_buffers() -> Pool<Vec<u8>> {
    let builder = Pool::builder().name("shared buffers").local_cache(0);
    let built = builder
        .factory(|| Vec::with_capacity(BUFFER))
        .reset(|buffer: &mut Vec<u8>| {
            buffer.clear();
            Keep::Yes
        })
        .build();
    built.expect("the settings are valid")
}

impl<T: Object> Source for Pool<T> {
    type Held = Pooled<'static, T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Self::Held {
        self.get()
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
