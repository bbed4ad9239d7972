//! The proof that a race test needs the guard it tests.
//!
//! A stress test that passes proves little: it may never have met the race. So it is run once
//! more with its guard (a lock, a fence, a check) taken out, and must then fail.

/// Whether the guard under test is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The code as it is.
    InPlace,
    /// The code without it: the control.
    Removed,
}

impl Guard {
    /// For the `if` around it.
    #[must_use]
    pub fn is_in_place(self) -> bool {
        self == Self::InPlace
    }
}

/// Runs `test` `rounds` times with the guard, when it must succeed each time, and at most `rounds`
/// times without, when it must fail once.
///
/// ```
/// use overdrive_testkit::control::{Guard, guarded};
///
/// guarded(10, |guard| {
///     let value: i32 = if guard.is_in_place() { 1 } else { 2 };
///     (value == 1).then_some(()).ok_or(format!("{value} instead of 1"))
/// });
/// ```
///
/// # Panics
/// The test failed with the guard in place, or never failed without it.
#[track_caller]
pub fn guarded(rounds: usize, mut test: impl FnMut(Guard) -> Result<(), String>) {
    for round in 0..rounds {
        if let Err(fault) = test(Guard::InPlace) {
            panic!("with the guard in place, round {round}: {fault}");
        }
    }
    fails_without_guard(rounds, || test(Guard::Removed));
}

/// Runs `test`, from which the guard is removed, until it fails.
///
/// # Panics
/// It did not fail within `rounds` rounds: it cannot see what it is there to see.
#[track_caller]
pub fn fails_without_guard(rounds: usize, mut test: impl FnMut() -> Result<(), String>) {
    let failed = (0..rounds).any(|_| test().is_err());
    assert!(
        failed,
        "the test passed {rounds} times without the guard: it proves nothing"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Barrier, Mutex};
    use std::thread;

    /// Two threads increment; without the lock both read before either writes.
    fn race(guard: Guard) -> Result<(), String> {
        let (counter, lock, both) = (AtomicU32::new(0), Mutex::new(()), Barrier::new(2));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let held = guard.is_in_place().then(|| lock.lock().unwrap());
                    let seen = counter.load(Ordering::SeqCst);
                    if held.is_none() {
                        both.wait();
                    }
                    counter.store(seen + 1, Ordering::SeqCst);
                });
            }
        });
        match counter.into_inner() {
            2 => Ok(()),
            n => Err(format!("{n} instead of 2")),
        }
    }

    #[test]
    fn a_racy_counter_fails_without_its_lock_and_only_then() {
        guarded(20, race);
    }

    #[test]
    fn a_test_that_never_fails_is_refused() {
        let result = catch_unwind(|| guarded(3, |_| Ok(())));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("proves nothing"), "{message}");
    }

    #[test]
    fn a_failure_with_the_guard_is_named() {
        let result = catch_unwind(|| guarded(3, |_| Err("broken".to_owned())));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(message, "with the guard in place, round 0: broken");
    }
}
