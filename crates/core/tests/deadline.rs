//! Deadlines and budgets.

use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_core::{Deadline, TimeBudget};

#[test]
fn what_remains_shrinks_to_zero_on_a_manual_clock() {
    let clock = ManualClock::new();
    let deadline = Deadline::after_on(&clock, Duration::from_secs(2));
    clock.advance(Duration::from_millis(1999));
    assert_eq!(deadline.remaining_on(&clock), Duration::from_millis(1));
    assert!(!deadline.has_passed_on(&clock));
    clock.advance(Duration::from_millis(1));
    assert!(deadline.has_passed_on(&clock));
    clock.advance(Duration::from_secs(9));
    assert_eq!(deadline.remaining_on(&clock), Duration::ZERO);
}

#[test]
fn never_never_passes() {
    let clock = ManualClock::new();
    clock.advance(Duration::MAX);
    assert!(!Deadline::NEVER.has_passed_on(&clock));
    assert_eq!(Deadline::NEVER.to_instant(), None);
    assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
    assert!(Deadline::after(Duration::from_secs(1)) < Deadline::NEVER);
}

#[test]
fn reversed_budgets_are_refused() {
    let second = Duration::from_secs(1);
    assert!(TimeBudget::new(Duration::ZERO, second).is_err());
    assert!(TimeBudget::new(second * 2, second).is_err());
    assert_eq!(TimeBudget::new(second, second).unwrap().of(None), second);
}
