//! Which pool the calling thread is in.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use overdrive_core::Priority;

use crate::engine::Shared;

thread_local! {
    /// The pools that the thread has entered, the innermost last, each with the priority of what
    /// it does there.
    static ENTERED: RefCell<Vec<(Arc<Shared>, Priority)>> = const { RefCell::new(Vec::new()) };
}

/// The thread is in a pool until this is dropped.
pub(crate) struct Inside {
    entered: bool,
    not_send: PhantomData<*const ()>,
}

/// Enters a pool. Where the thread's locals are gone already, it stays outside.
pub(crate) fn enter(shared: &Arc<Shared>, priority: Priority) -> Inside {
    let entered = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        match entered.last() {
            Some((top, at)) if Arc::ptr_eq(top, shared) && *at == priority => false,
            _ => {
                entered.push((Arc::clone(shared), priority));
                true
            }
        }
    });
    Inside {
        entered: entered.unwrap_or(false),
        not_send: PhantomData,
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.entered {
            let left = ENTERED.try_with(|entered| entered.borrow_mut().pop());
            // What goes with the last handle of a pool goes without the borrow.
            drop(left);
        }
    }
}

/// The pool that the thread is in, the innermost.
pub(crate) fn current() -> Option<Arc<Shared>> {
    innermost(|(shared, _)| Arc::clone(shared))
}

/// The priority of what the thread does in that pool, if that is the innermost.
pub(crate) fn priority_in(pool: &Arc<Shared>) -> Priority {
    innermost(|(shared, priority)| Arc::ptr_eq(shared, pool).then_some(*priority))
        .flatten()
        .unwrap_or_default()
}

/// Whether the thread is in that pool, at whatever depth.
pub(crate) fn is_in(pool: &Shared) -> bool {
    let is = |(shared, _): &(Arc<Shared>, Priority)| std::ptr::eq(Arc::as_ptr(shared), pool);
    ENTERED
        .try_with(|entered| entered.borrow().iter().any(is))
        .unwrap_or(false)
}

/// Whether the thread is in any pool.
pub(crate) fn is_in_any() -> bool {
    innermost(|_| ()).is_some()
}

fn innermost<R>(f: impl FnOnce(&(Arc<Shared>, Priority)) -> R) -> Option<R> {
    ENTERED
        .try_with(|entered| entered.borrow().last().map(f))
        .unwrap_or(None)
}
