//! The waits between retries.

use std::time::Duration;

use overdrive_core::Backoff;

const FIRST: Duration = Duration::from_millis(10);

#[test]
fn ceilings_double_up_to_the_maximum() {
    let backoff = Backoff::new(FIRST, Duration::from_millis(100), 99).unwrap();
    let ceilings: Vec<u128> = [0, 1, 3, 4, 31, 32, 98]
        .map(|n| backoff.ceiling(n).as_millis())
        .to_vec();
    assert_eq!(ceilings, [10, 20, 80, 100, 100, 100, 100]);
}

#[test]
fn waits_are_repeatable_bounded_and_spread() {
    let backoff = Backoff::new(FIRST, FIRST, 1000).unwrap();
    let waits: Vec<Duration> = backoff.waits(7).collect();
    assert_eq!(waits, backoff.waits(7).collect::<Vec<_>>());
    assert_ne!(waits, backoff.waits(8).collect::<Vec<_>>());
    assert!(waits.iter().all(|wait| *wait <= FIRST));
    let mean = waits.iter().sum::<Duration>() / 1000;
    assert!(mean.abs_diff(FIRST / 2) < FIRST / 20, "{mean:?}");
}

#[test]
fn extremes_neither_panic_nor_hang() {
    let backoff = Backoff::new(Duration::MAX, Duration::MAX, 2).unwrap();
    assert_eq!(backoff.waits(1).count(), 2);
    assert_eq!(Backoff::new(FIRST, FIRST, 0).unwrap().waits(1).count(), 0);
    assert_eq!(
        Backoff::new(Duration::ZERO, FIRST, 1).unwrap_err().field(),
        "first"
    );
    assert!(Backoff::new(FIRST * 2, FIRST, 1).is_err());
}
