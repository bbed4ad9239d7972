//! What is pooled, and what every pool must do with it.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};

/// Capacity of the pooled buffers.
pub(crate) const BUFFER: usize = 4096;

/// What a taken object is used for.
pub(crate) trait Payload {
    /// Writes 8 bytes.
    fn write(&mut self, n: u64);
    /// What was written.
    fn read(&self) -> u64;
    /// Itself, if it is a growable buffer.
    #[inline]
    fn buffer(&mut self) -> Option<&mut Buffer> {
        None
    }
}

/// A pooled object: made once, then used, cleared and used again.
pub(crate) trait Object: Payload + Send + 'static {
    /// A new object.
    fn make() -> Self;
    /// Back to the state of a new one, without giving up memory.
    fn clear(&mut self);
    /// The calling thread's own free list of such objects.
    fn local<R>(f: impl FnOnce(&Local<Self>) -> R) -> R
    where
        Self: Sized;
}

/// The least that a thread's free list can be: one object apart, so that taking
/// and returning one depends on one store; no bound, no count, no destructor.
///
/// # Invariants
/// 1. It is in a thread-local, so only its thread has a reference to it, and no
///    borrow of its contents outlives `pop` or `push`, which call nothing that
///    could come back here.
pub(crate) struct Local<T> {
    one: UnsafeCell<Option<Box<T>>>,
    rest: UnsafeCell<Vec<Box<T>>>,
}

impl<T> Local<T> {
    pub(crate) const fn new() -> Self {
        Self {
            one: UnsafeCell::new(None),
            rest: UnsafeCell::new(Vec::new()),
        }
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Box<T>> {
        // SAFETY: invariant 1.
        let (one, rest) = unsafe { (&mut *self.one.get(), &mut *self.rest.get()) };
        rest.pop().or_else(|| one.take())
    }

    #[inline]
    pub(crate) fn push(&self, object: Box<T>) {
        // SAFETY: invariant 1.
        let (one, rest) = unsafe { (&mut *self.one.get(), &mut *self.rest.get()) };
        if one.is_none() {
            *one = Some(object);
        } else {
            rest.push(object);
        }
    }
}

macro_rules! local_list {
    ($type:ty) => {
        #[inline]
        fn local<R>(f: impl FnOnce(&Local<Self>) -> R) -> R {
            thread_local! {
                static LIST: ManuallyDrop<Local<$type>> =
                    const { ManuallyDrop::new(Local::new()) };
            }
            LIST.with(|list| f(list))
        }
    };
}

/// A growable buffer of 4 KiB.
pub(crate) type Buffer = Vec<u8>;

impl Payload for Buffer {
    #[inline]
    fn write(&mut self, n: u64) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    #[inline]
    fn read(&self) -> u64 {
        self.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
    }

    #[inline]
    fn buffer(&mut self) -> Option<&mut Buffer> {
        Some(self)
    }
}

impl Object for Buffer {
    fn make() -> Self {
        Self::with_capacity(BUFFER)
    }

    #[inline]
    fn clear(&mut self) {
        Self::clear(self);
    }

    local_list!(Buffer);
}

/// A plain object of 64 bytes, which needs no clearing.
#[derive(Default)]
pub(crate) struct Small([u64; 8]);

impl Payload for Small {
    #[inline]
    fn write(&mut self, n: u64) {
        self.0[0] = n;
    }

    #[inline]
    fn read(&self) -> u64 {
        self.0[0]
    }
}

impl Object for Small {
    fn make() -> Self {
        Self::default()
    }

    #[inline]
    fn clear(&mut self) {}

    local_list!(Small);
}

/// A boxed object, for the pools that move what they hold: moving a pointer is
/// cheaper than moving 64 bytes, and their users would do the same.
impl Payload for Box<Small> {
    #[inline]
    fn write(&mut self, n: u64) {
        (**self).write(n);
    }

    #[inline]
    fn read(&self) -> u64 {
        (**self).read()
    }
}

impl Object for Box<Small> {
    fn make() -> Self {
        Self::new(Small::make())
    }

    #[inline]
    fn clear(&mut self) {}

    local_list!(Box<Small>);
}

/// Memory as an allocator gives it.
impl Payload for MaybeUninit<u64> {
    #[inline]
    fn write(&mut self, n: u64) {
        self.write(n);
    }

    #[inline]
    fn read(&self) -> u64 {
        // SAFETY: every scenario writes before it reads.
        unsafe { self.assume_init() }
    }
}

/// Something that objects are taken from and given back to. Pools are leaked,
/// so that what was taken can travel to another thread without a count.
pub(crate) trait Source: Sync + 'static {
    /// A taken object.
    type Held: 'static;
    /// What can be used of it.
    type Payload: Payload;

    /// Takes an object, cleared.
    fn take(&'static self) -> Self::Held;
    /// Gives it back.
    fn give(&'static self, held: Self::Held);
    /// What can be used of a taken object.
    fn payload(held: &mut Self::Held) -> &mut Self::Payload;
}
