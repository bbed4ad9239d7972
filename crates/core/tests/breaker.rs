//! The states of a circuit breaker.

use std::time::Duration;

use overdrive_core::breaker::BreakerState;
use overdrive_core::{CircuitBreaker, Timestamp};

const OPEN_FOR: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn opened() -> CircuitBreaker {
    let mut breaker = CircuitBreaker::new(1, OPEN_FOR).unwrap();
    let call = breaker.admit(at(0)).unwrap();
    breaker.failed(call, at(0));
    breaker
}

#[test]
fn only_failures_in_a_row_open_it() {
    let mut breaker = CircuitBreaker::new(2, OPEN_FOR).unwrap();
    for _ in 0..10 {
        let call = breaker.admit(at(0)).unwrap();
        breaker.failed(call, at(0));
        let call = breaker.admit(at(0)).unwrap();
        breaker.succeeded(call);
    }
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
}

#[test]
fn one_probe_at_a_time() {
    let mut breaker = opened();
    assert_eq!(breaker.state(at(999)), BreakerState::Open);
    assert!(breaker.admit(at(999)).is_err());
    assert_eq!(breaker.state(at(1000)), BreakerState::HalfOpen);
    let probe = breaker.admit(at(1000)).unwrap();
    assert!(breaker.admit(at(1001)).is_err());
    breaker.failed(probe, at(1500));
    assert!(breaker.admit(at(2499)).is_err());
    assert!(breaker.admit(at(2500)).is_ok());
}

#[test]
fn a_lost_probe_gives_its_place_up_and_its_late_word_is_not_heard() {
    let mut breaker = opened();
    let lost = breaker.admit(at(1000)).unwrap();
    assert!(breaker.admit(at(1999)).is_err());
    let second = breaker.admit(at(2000)).unwrap();
    breaker.succeeded(lost);
    assert_eq!(breaker.state(at(2000)), BreakerState::HalfOpen);
    breaker.succeeded(second);
    assert_eq!(breaker.state(at(2000)), BreakerState::Closed);
}

#[test]
fn calls_from_before_it_opened_do_not_count() {
    let mut breaker = CircuitBreaker::new(1, OPEN_FOR).unwrap();
    let early = breaker.admit(at(0)).unwrap();
    let call = breaker.admit(at(0)).unwrap();
    breaker.failed(call, at(0));
    breaker.succeeded(early);
    assert_eq!(breaker.state(at(1)), BreakerState::Open);
}

#[test]
fn zeros_are_refused() {
    assert_eq!(
        CircuitBreaker::new(0, OPEN_FOR).unwrap_err().field(),
        "failures"
    );
    assert_eq!(
        CircuitBreaker::new(1, Duration::ZERO).unwrap_err().field(),
        "open_for"
    );
}
