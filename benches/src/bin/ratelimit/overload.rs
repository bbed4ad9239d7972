//! Adaptive concurrency limits in front of a simulated server that is asked for three times what it
//! can do. The clock is simulated, so the figures are the same in each run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario};
use overdrive_ratelimit::clock::{Clock, ManualClock, Timestamp};
use overdrive_ratelimit::{AdaptiveLimit, AdaptivePermit, LimitPolicy};

use crate::ours;

/// What the server does at once without becoming slower, for how long each, and what that comes to
/// in a second.
const KNEE: f64 = 16.0;
const WORK: Duration = Duration::from_millis(20);
const CAPACITY: f64 = 800.0;
/// After that nobody wants the answer.
const PATIENCE: Duration = Duration::from_millis(200);
const SECONDS: u64 = 80;

pub(crate) fn scenario() -> Scenario {
    let about = "answers in time at three times the load that a server can take, over its best";
    Scenario::ratio("ratelimit/adaptive_overload", about, "of peak")
        .input("a simulated server that slows down beyond 16 at once; 2,400 requests a second for 80 s")
        .slow()
        .threads(&[2])
        .with(row(Role::Ours, "overdrive-ratelimit", LimitPolicy::gradient2(), (1, 500)))
        .with(row(Role::Context, "vegas", LimitPolicy::vegas(), (1, 500)))
        .with(row(Role::Context, "aimd", LimitPolicy::aimd(WORK.mul_f64(1.2)), (1, 500)))
        .with(row(Role::Context, "fixed at 400", LimitPolicy::vegas(), (400, 400)))
}

fn row(role: Role, name: &str, policy: LimitPolicy, range: (usize, usize)) -> Contender {
    Contender::once(role, name, ours::VERSION, move |_| {
        let peak = (8..=32)
            .step_by(2)
            .map(|n| goodput(LimitPolicy::vegas(), (n, n)))
            .fold(0.0, f64::max);
        Figure {
            value: goodput(policy.clone(), range) / peak,
            ..Figure::default()
        }
    })
}

/// The answers a second that came in time, in the second half.
fn goodput(policy: LimitPolicy, range: (usize, usize)) -> f64 {
    let clock = ManualClock::new();
    let builder = AdaptiveLimit::builder()
        .policy(policy)
        .range(range.0, range.1);
    let limit = ours::built(builder.clock(clock.clone()).build());
    let half = Timestamp::ZERO.saturating_add(Duration::from_secs(SECONDS / 2));
    let end = Timestamp::ZERO.saturating_add(Duration::from_secs(SECONDS));
    let mut in_work: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
    let mut permits: Vec<Option<(AdaptivePermit<ManualClock>, Timestamp)>> = Vec::new();
    let (mut arrival, mut good, mut random) = (clock.now(), 0_u64, 7_u64);
    let mut uniform = move || {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (crate::keyed::mix(random) >> 11) as f64 / (1_u64 << 53) as f64
    };
    while arrival < end {
        while let Some(Reverse((ends, at))) = in_work.peek().copied().filter(|e| e.0.0 <= arrival) {
            in_work.pop();
            clock.advance_to(ends);
            let Some((permit, began)) = permits[at].take() else {
                unreachable!("work ends once");
            };
            if ends.saturating_since(began) <= PATIENCE {
                good += u64::from(ends >= half);
                permit.success();
            } else {
                permit.overload();
            }
        }
        clock.advance_to(arrival);
        if let Ok(permit) = limit.try_acquire() {
            let load = (in_work.len() + 1) as f64 / KNEE;
            let slower = if load > 1.0 {
                load * (0.5 + 0.5 * load)
            } else {
                1.0
            };
            let takes = WORK.mul_f64(slower * (0.9 + 0.2 * uniform()));
            in_work.push(Reverse((arrival.saturating_add(takes), permits.len())));
            permits.push(Some((permit, arrival)));
        }
        let gap = -(1.0 - uniform()).ln() / (3.0 * CAPACITY);
        arrival = arrival.saturating_add(Duration::from_secs_f64(gap));
    }
    good as f64 / (SECONDS as f64 / 2.0)
}
