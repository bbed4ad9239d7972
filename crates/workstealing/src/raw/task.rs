//! A closure to be called once, without an allocation if it is small.
//!
//! # Invariants
//!
//! 1. `words` holds an `F` (or, if it does not fit, the pointer of a `Box<F>`), and `run` is the
//!    function made for that `F`. Both are set in `make` only.
//! 2. `run` moves the `F` out, so it is called once: by `call`, which forgets the task, or by the
//!    destructor.
//! 3. Every `F` is `Send`, so the task is. It borrows nothing, but for the promise of the caller of
//!    `borrowing`.

use std::mem::{ManuallyDrop, MaybeUninit};

use crate::call::Call;

/// What fits in place: four words.
type Words = [MaybeUninit<usize>; 4];

pub(crate) struct Task {
    run: unsafe fn(*mut Words, Option<&Call<'_>>),
    words: Words,
}

// SAFETY: invariant 3.
unsafe impl Send for Task {}

impl Task {
    #[inline]
    pub(crate) fn new<F>(f: F) -> Self
    where
        F: FnOnce(&Call<'_>) + Send + 'static,
    {
        Self::make(f)
    }

    /// # Safety
    /// The task is called or dropped before what `f` borrows is gone.
    pub(crate) unsafe fn borrowing<F>(f: F) -> Self
    where
        F: FnOnce(&Call<'_>) + Send,
    {
        Self::make(f)
    }

    #[inline]
    fn make<F: FnOnce(&Call<'_>)>(f: F) -> Self {
        let mut words = [MaybeUninit::uninit(); 4];
        if const { size_of::<F>() <= size_of::<Words>() && align_of::<F>() <= align_of::<Words>() }
        {
            // SAFETY: it fits, in size and alignment.
            unsafe { words.as_mut_ptr().cast::<F>().write(f) };
            Self {
                run: in_place::<F>,
                words,
            }
        } else {
            let boxed = Box::into_raw(Box::new(f));
            // SAFETY: a pointer fits.
            unsafe { words.as_mut_ptr().cast::<*mut F>().write(boxed) };
            Self {
                run: boxed_up::<F>,
                words,
            }
        }
    }

    #[inline]
    pub(crate) fn call(self, call: &Call<'_>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: invariants 1 and 2: it is forgotten.
        unsafe { (this.run)(&raw mut this.words, Some(call)) }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: invariants 1 and 2: it was not called.
        unsafe { (self.run)(&raw mut self.words, None) }
    }
}

/// # Safety
/// `words` holds an `F`, which is gone afterwards.
unsafe fn in_place<F: FnOnce(&Call<'_>)>(words: *mut Words, call: Option<&Call<'_>>) {
    // SAFETY: the caller's promise.
    let f = unsafe { words.cast::<F>().read() };
    if let Some(call) = call {
        f(call);
    }
}

/// # Safety
/// `words` holds the pointer of a `Box<F>`, which is gone afterwards.
unsafe fn boxed_up<F: FnOnce(&Call<'_>)>(words: *mut Words, call: Option<&Call<'_>>) {
    // SAFETY: the caller's promise.
    let f = unsafe { Box::from_raw(words.cast::<*mut F>().read()) };
    if let Some(call) = call {
        f(call);
    }
}
