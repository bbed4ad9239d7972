//! The scenarios.

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_ratelimit::{ConcurrencyLimit, RateLimiter};

use crate::limits::{ClockAndWord, Counter};
#[cfg(feature = "ratelimit-peers")]
use crate::peers::{Governor, GovernorCoarse, LeakyBucket, Ratelimit, TowerLimit};
use crate::{distributed, keyed, ours, overload, waiting};

/// The quota of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Rate {
    /// 1e9 a second, 1e9 at once: always allowed.
    Billion,
    /// One an hour, which is taken before it starts: always denied.
    Exhausted,
}

/// A limiter that answers at once.
pub(crate) trait Check: Send + Sync + Sized + 'static {
    fn new(rate: Rate) -> Self;
    fn check(&self) -> bool;
}

/// A limit on how many at once.
pub(crate) trait Permits: Send + Sync + Sized + 'static {
    fn new(limit: usize) -> Self;
    fn acquire_and_release(&self) -> bool;
}

/// All scenarios of rate and concurrency limits.
pub(crate) fn suite() -> Vec<Scenario> {
    let allowed = Scenario::time(
        "ratelimit/check_allowed",
        "may I, now? asked of one limiter; the answer is always yes",
    );
    let denied = Scenario::time(
        "ratelimit/check_denied",
        "may I, now? asked of one limiter; the answer is always no",
    );
    let mut suite = vec![
        checks(
            allowed.input("1e9 a second, burst 1e9; a precise clock"),
            Rate::Billion,
        ),
        checks(
            denied.input("1 an hour, exhausted; a precise clock"),
            Rate::Exhausted,
        ),
        coarse(
            Scenario::time(
                "ratelimit/check_allowed_coarse",
                "may I, now? on a clock that is set by a thread; the answer is always yes",
            )
            .input("1e9 a second, burst 1e9; a clock of a millisecond"),
            Rate::Billion,
        ),
        coarse(
            Scenario::time(
                "ratelimit/check_denied_coarse",
                "may I, now? on a clock that is set by a thread; the answer is always no",
            )
            .input("1 an hour, exhausted; a clock of a millisecond"),
            Rate::Exhausted,
        ),
        leased(),
        permit(),
    ];
    suite.extend(keyed::scenarios());
    suite.extend(waiting::scenarios());
    suite.push(overload::scenario());
    suite.extend(distributed::scenarios());
    suite
}

fn checks(scenario: Scenario, rate: Rate) -> Scenario {
    let scenario = scenario
        .threads(&[1, 2])
        .with(check::<RateLimiter>(
            Role::Ours,
            "overdrive-ratelimit",
            ours::VERSION,
            rate,
        ))
        .with(check::<ClockAndWord>(
            Role::Limit,
            "clock and one word",
            "quanta",
            rate,
        ));
    with_peers(scenario, rate)
}

fn leased() -> Scenario {
    let rate = Rate::Billion;
    let scenario = Scenario::time(
        "ratelimit/check_leased",
        "may I, now? asked of one limiter, of which threads take batches",
    )
    .input("1e9 a second, burst 1e9; batches of 64")
    .threads(&[1, 2])
    .with(check::<ours::Leased>(
        Role::Ours,
        "overdrive-ratelimit",
        ours::VERSION,
        rate,
    ))
    .with(check::<RateLimiter>(
        Role::Context,
        "without leases",
        ours::VERSION,
        rate,
    ));
    with_peers(scenario, rate)
}

#[cfg_attr(
    not(feature = "ratelimit-peers"),
    expect(unused_variables, reason = "only peers need the rate")
)]
fn with_peers(scenario: Scenario, rate: Rate) -> Scenario {
    #[cfg(feature = "ratelimit-peers")]
    let scenario = {
        let peer = Role::Peer;
        scenario
            .with(check::<Governor>(
                peer,
                "governor",
                &version("governor"),
                rate,
            ))
            .with(check::<Ratelimit>(
                peer,
                "ratelimit",
                &version("ratelimit"),
                rate,
            ))
            .with(check::<LeakyBucket>(
                peer,
                "leaky-bucket",
                &version("leaky-bucket"),
                rate,
            ))
    };
    scenario
}

fn coarse(scenario: Scenario, rate: Rate) -> Scenario {
    let scenario = scenario.threads(&[1, 2]).with(check::<ours::Coarse>(
        Role::Ours,
        "overdrive-ratelimit",
        ours::VERSION,
        rate,
    ));
    #[cfg(feature = "ratelimit-peers")]
    let scenario = scenario.with(check::<GovernorCoarse>(
        Role::Peer,
        "governor",
        &version("governor"),
        rate,
    ));
    scenario
}

/// The checksum counts the answers that are as they should be.
fn check<L: Check>(role: Role, name: &str, version: &str, rate: Rate) -> Contender {
    Contender::time(role, name, version, move |_| {
        let limiter: &'static L = Box::leak(Box::new(L::new(rate)));
        let expected = matches!(rate, Rate::Billion);
        if !expected {
            // The one of this hour.
            limiter.check();
        }
        move |_| {
            move |ops| {
                (0..ops)
                    .map(|_| u64::from(limiter.check() == expected))
                    .sum()
            }
        }
    })
}

fn permit() -> Scenario {
    let scenario = Scenario::time(
        "ratelimit/permit",
        "take a permit and give it back; there is always one",
    )
    .input("1,000,000 permits")
    .threads(&[1, 2])
    .with(permits::<ConcurrencyLimit>(
        Role::Ours,
        "overdrive-ratelimit",
        ours::VERSION,
    ))
    .with(permits::<Counter>(Role::Limit, "up and down", "std"));
    #[cfg(feature = "ratelimit-peers")]
    let scenario =
        scenario
            .with(permits::<tokio::sync::Semaphore>(
                Role::Peer,
                "tokio-semaphore",
                &version("tokio"),
            ))
            .with(permits::<TowerLimit>(Role::Peer, "tower", "0.5.3").remark(
                "`ConcurrencyLimit` around a service that is ready: poll_ready, call, await",
            ));
    scenario
}

fn permits<L: Permits>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |_| {
        let limit: &'static L = Box::leak(Box::new(L::new(1_000_000)));
        move |_| {
            move |ops| {
                (0..ops)
                    .map(|_| u64::from(limit.acquire_and_release()))
                    .sum()
            }
        }
    })
}

/// The version that the benchmark was built with.
#[cfg(feature = "ratelimit-peers")]
pub(crate) fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}
