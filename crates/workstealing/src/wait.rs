//! Waiting on a condition until a deadline.

use overdrive_core::Deadline;

use crate::sync::{Condvar, MutexGuard, wait};

/// Waits once, for a notification (or none: wake-ups may be spurious) or the deadline in real
/// time. The flag says whether there was time to wait.
#[cfg(not(any(overdrive_loom, overdrive_shuttle)))]
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> (MutexGuard<'a, T>, bool) {
    if deadline == Deadline::NEVER {
        return (wait(condvar, guard), true);
    }
    let left = deadline.remaining();
    if left.is_zero() {
        return (guard, false);
    }
    let waited = condvar.wait_timeout(guard, left);
    let (guard, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, true)
}

/// The models know no time: a deadline has passed, or never will.
#[cfg(any(overdrive_loom, overdrive_shuttle))]
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> (MutexGuard<'a, T>, bool) {
    if deadline == Deadline::NEVER {
        return (wait(condvar, guard), true);
    }
    (guard, false)
}
