//! Waiting on a condition until a deadline.

use std::sync::{Condvar, MutexGuard, PoisonError};

use overdrive_core::Deadline;

/// Waits once, for a notification (or none: wake-ups may be spurious) or the deadline in real
/// time. The flag says whether there was time to wait.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> (MutexGuard<'a, T>, bool) {
    if deadline == Deadline::NEVER {
        let guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        return (guard, true);
    }
    let left = deadline.remaining();
    if left.is_zero() {
        return (guard, false);
    }
    let waited = condvar.wait_timeout(guard, left);
    let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
    (guard, true)
}
