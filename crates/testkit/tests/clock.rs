//! `TokioClock` under paused time.

use std::time::Duration;

use overdrive_core::{Clock, Deadline};
use overdrive_testkit::TokioClock;

#[tokio::test(start_paused = true)]
async fn it_moves_with_tokios_paused_time_only() {
    let clock = TokioClock::new().await;
    let before = clock.now();
    assert_eq!(clock.now(), before);
    let deadline = Deadline::after_on(&clock, Duration::from_secs(3600));
    tokio::time::sleep_until(deadline.to_instant().unwrap().into()).await;
    assert!(deadline.has_passed_on(&clock));
    // Its timers are rounded up to milliseconds.
    let passed = clock.now().saturating_since(before);
    assert!(passed < Duration::from_secs(3601), "{passed:?}");
}

#[tokio::test]
async fn it_is_real_time_where_time_is_not_paused() {
    let clock = TokioClock::new().await;
    assert!(clock.now() <= overdrive_core::Timestamp::now());
}
