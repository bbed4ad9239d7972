//! Catching panics of user code where letting them pass would end the process or lose work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` and swallows its panic, which the panic hook has reported by then.
///
/// ```
/// overdrive_core::unwind::survive(|| panic!("reported, and no more"));
/// ```
pub fn survive(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        drop_payload(payload);
    }
}

/// Drops the payload of a caught panic. It is a user's value, whose destructor can panic too, with
/// a payload of its own; the eighth in such a row is leaked, since there has to be an end.
pub fn drop_payload(mut payload: Box<dyn Any + Send>) {
    for _ in 0..8 {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(next) => payload = next,
        }
    }
    std::mem::forget(payload);
}
