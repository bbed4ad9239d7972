//! The limit, and the ways that need no crate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::object::{Local, Object, Source};

/// A thread-local free list: no sharing, no bound, no statistics.
pub(crate) struct ThreadLocal<T>(PhantomData<fn() -> T>);

impl<T> ThreadLocal<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Object> Source for ThreadLocal<T> {
    type Held = Box<T>;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> Box<T> {
        T::local(Local::pop).unwrap_or_else(|| Box::new(T::make()))
    }

    #[inline]
    fn give(&'static self, mut held: Box<T>) {
        held.clear();
        T::local(|list| list.push(held));
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// What most services have: a list behind a mutex.
pub(crate) struct MutexVec<T>(Mutex<Vec<T>>);

impl<T> MutexVec<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: Object> Source for MutexVec<T> {
    type Held = T;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> T {
        let popped = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        popped.unwrap_or_else(T::make)
    }

    #[inline]
    fn give(&'static self, mut held: T) {
        held.clear();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// A new object for each use.
pub(crate) struct Fresh<T>(PhantomData<fn() -> T>);

impl<T> Fresh<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Object> Source for Fresh<T> {
    type Held = T;
    type Payload = T;

    #[inline]
    fn take(&'static self) -> T {
        T::make()
    }

    #[inline]
    fn give(&'static self, held: T) {
        drop(held);
    }

    #[inline]
    fn payload(held: &mut Self::Held) -> &mut T {
        held
    }
}

/// Memory straight from an allocator, uninitialised, of `SIZE` bytes. The
/// allocator is called directly: a `Vec` cannot change its own in one process.
///
/// # Invariants
/// 1. A [`Block`] is a live allocation of `LAYOUT` from the allocator of the
///    same source, owned by the block alone.
pub(crate) struct Raw<A, const SIZE: usize>(A);

/// One allocation.
pub(crate) struct Block(NonNull<MaybeUninit<u64>>);

// SAFETY: invariant 1: nobody else has the pointer.
unsafe impl Send for Block {}

impl<A, const SIZE: usize> Raw<A, SIZE> {
    const LAYOUT: Layout = match Layout::from_size_align(SIZE, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("the size is valid"),
    };

    pub(crate) fn new(allocator: A) -> Self {
        Self(allocator)
    }
}

impl<const SIZE: usize> Raw<System, SIZE> {
    pub(crate) fn system() -> Self {
        Self::new(System)
    }
}

impl<A: GlobalAlloc + Sync + 'static, const SIZE: usize> Source for Raw<A, SIZE> {
    type Held = Block;
    type Payload = MaybeUninit<u64>;

    #[inline]
    fn take(&'static self) -> Block {
        // SAFETY: the layout's size is not zero.
        let block = unsafe { self.0.alloc(Self::LAYOUT) };
        let Some(block) = NonNull::new(block.cast()) else {
            std::alloc::handle_alloc_error(Self::LAYOUT)
        };
        Block(block)
    }

    #[inline]
    fn give(&'static self, held: Block) {
        // SAFETY: invariant 1.
        unsafe { self.0.dealloc(held.0.as_ptr().cast(), Self::LAYOUT) }
    }

    #[inline]
    fn payload(held: &mut Block) -> &mut MaybeUninit<u64> {
        // SAFETY: invariant 1; the memory holds 8 bytes and is borrowed with the block.
        unsafe { held.0.as_mut() }
    }
}
