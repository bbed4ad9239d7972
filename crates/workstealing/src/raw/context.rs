//! Which pools the calling thread is in.
//!
//! # Invariants
//!
//! 1. `CURRENT` is null or points to a frame in the stack frame of a running `enter` of this
//!    thread: `enter` sets it, and its guard sets it back on every way out.
//! 2. A frame is reached through `innermost` and `chain` only, which lend it for a call. Within that
//!    call, `enter`s come and go in a nested manner, so the frame stays.
//! 3. `outer` is what `CURRENT` was, so it lives longer than the frame.
//! 4. A frame is not `Sync`, and what is lent cannot leave the closure: it stays on its thread.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;

use crate::engine::Shared;
use crate::seat::Seat;
use crate::worker::Local;

/// A pool that the thread is in.
pub(crate) struct Frame<'a> {
    pub(crate) seat: &'a Seat,
    pub(crate) shared: &'a Arc<Shared>,
    /// The worker's own, if the thread is one.
    pub(crate) local: Option<&'a Local>,
    outer: *const Self,
}

impl<'a> Frame<'a> {
    /// What the free functions and all else on this thread go by while `f` runs.
    pub(crate) fn enter<R>(
        shared: &'a Arc<Shared>,
        seat: &'a Seat,
        local: Option<&'a Local>,
        f: impl FnOnce(&Frame<'_>) -> R,
    ) -> R {
        let frame = Self {
            seat,
            shared,
            local,
            outer: CURRENT.get().cast(),
        };
        let _back = Back(CURRENT.replace((&raw const frame).cast()));
        f(&frame)
    }
}

/// Sets `CURRENT` back.
struct Back(*const Frame<'static>);

impl Drop for Back {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

#[cfg(not(overdrive_shuttle))]
thread_local! {
    static CURRENT: Cell<*const Frame<'static>> = const { Cell::new(ptr::null()) };
}

/// Shuttle's threads share one of the system's.
#[cfg(overdrive_shuttle)]
mod simulated {
    use super::{Cell, Frame, ptr};

    shuttle::thread_local! {
        static POINTER: Cell<*const Frame<'static>> = Cell::new(ptr::null());
    }

    pub(super) struct Current;

    impl Current {
        pub(super) fn get(&self) -> *const Frame<'static> {
            POINTER.try_with(Cell::get).unwrap_or(ptr::null())
        }

        pub(super) fn set(&self, to: *const Frame<'static>) {
            self.replace(to);
        }

        pub(super) fn replace(&self, to: *const Frame<'static>) -> *const Frame<'static> {
            POINTER.try_with(|at| at.replace(to)).unwrap_or(ptr::null())
        }
    }
}
#[cfg(overdrive_shuttle)]
static CURRENT: simulated::Current = simulated::Current;

/// Lends the frame of the pool that the thread entered last.
#[inline]
pub(crate) fn innermost<R>(f: impl FnOnce(Option<&Frame<'_>>) -> R) -> R {
    // SAFETY: invariants 1 and 2.
    f(unsafe { CURRENT.get().as_ref() })
}

/// Lends the innermost frame of that pool.
pub(crate) fn of<R>(shared: &Arc<Shared>, f: impl FnOnce(Option<&Frame<'_>>) -> R) -> R {
    chain(|frame| Arc::ptr_eq(frame.shared, shared), f)
}

/// Whether the thread is in that pool, at whatever depth.
pub(crate) fn is_in(shared: &Shared) -> bool {
    chain(
        |frame| ptr::eq(Arc::as_ptr(frame.shared), shared),
        |frame| frame.is_some(),
    )
}

/// Whether the thread is in any pool.
pub(crate) fn is_in_any() -> bool {
    !CURRENT.get().is_null()
}

#[inline]
fn chain<R>(is_it: impl Fn(&Frame<'_>) -> bool, f: impl FnOnce(Option<&Frame<'_>>) -> R) -> R {
    let mut at = CURRENT.get();
    // SAFETY: invariants 1 to 3.
    while let Some(frame) = unsafe { at.as_ref() } {
        if is_it(frame) {
            return f(Some(frame));
        }
        at = frame.outer.cast();
    }
    f(None)
}
