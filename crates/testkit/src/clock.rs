//! Our clock, moved by tokio's paused time.

use std::time::Duration;

use overdrive_core::{Clock, Timestamp};
use tokio::time::{Instant, advance};

/// Shows tokio's time, so that code under tokio's paused time and its timers agree.
///
/// It has the origin of the real clocks of `overdrive-core`, so what
/// [`Timestamp::to_instant`] gives fits tokio's timers.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use overdrive_core::Deadline;
/// use overdrive_testkit::TokioClock;
///
/// let clock = TokioClock::new().await;
/// let deadline = Deadline::after_on(&clock, Duration::from_secs(3600));
/// tokio::time::advance(Duration::from_secs(3600)).await;
/// assert!(deadline.has_passed_on(&clock));
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(());

impl TokioClock {
    /// The clock of the runtime it is called on.
    ///
    /// Time paused before the origin was fixed stands before it, where no timestamp reaches: it
    /// is moved on to the origin.
    pub async fn new() -> Self {
        let _fixed_by_now = Timestamp::now();
        if let Some(origin) = Timestamp::ZERO.to_instant() {
            let behind = origin.saturating_duration_since(Instant::now().into_std());
            if !behind.is_zero() {
                // Timers are kept in milliseconds; one more, for the rounding.
                advance(behind + Duration::from_millis(1)).await;
            }
        }
        Self(())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_instant(Instant::now().into_std())
    }
}
