//! Limiters with a quota for each key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overdrive_bench::alloc::measure;
use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Figure, Scenario};
use overdrive_ratelimit::clock::ManualClock;
use overdrive_ratelimit::{KeyedLimiter, Quota};

use crate::ours;
#[cfg(feature = "ratelimit-peers")]
use crate::peers;

/// What each key may do.
#[derive(Clone, Copy)]
pub(crate) struct PerKey {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A limiter for `u64` keys.
pub(crate) trait CheckKey: Send + Sync + Sized + 'static {
    /// With room for so many keys, where that is asked for.
    fn new(quota: PerKey, keys: usize) -> Self;
    fn check_key(&self, key: u64) -> bool;
    /// What its documentation asks to be called from time to time.
    fn clean(&self) {}
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        zipf("ratelimit/keyed_10k_zipf", 10_000),
        zipf("ratelimit/keyed_1m_zipf", 1_000_000)
            .slow()
            .instances(1),
        bytes(),
        flood(),
        churn(),
    ]
}

/// How many keys are drawn before they repeat.
const DRAWN: usize = 1 << 20;

fn zipf(id: &str, keys: usize) -> Scenario {
    let about = "may this one, now? asked of one limiter for many keys";
    let scenario = Scenario::time(id, about)
        .input(&format!(
            "{keys} u64 keys, Zipf 0.99; 1,000 a second and 100 at once each"
        ))
        .threads(&[1, 2])
        .with(checks::<ours::Keyed>(
            Role::Ours,
            "overdrive-ratelimit",
            ours::VERSION,
            keys,
        ));
    #[cfg(feature = "ratelimit-peers")]
    let scenario = {
        let version = &crate::scenarios::version("governor");
        scenario
            .with(checks::<peers::GovernorKeyed>(
                Role::Peer,
                "governor",
                version,
                keys,
            ))
            .with(checks::<peers::MokaKeyed>(
                Role::Peer,
                "moka of governors",
                &crate::scenarios::version("moka"),
                keys,
            ))
            .with(
                checks::<peers::GovernorKeyedDefault>(
                    Role::Context,
                    "governor, its default hash",
                    version,
                    keys,
                )
                .remark("SipHash"),
            )
    };
    scenario
}

/// The checksum is of the keys: the answers depend on the time. Those of a fresh key are checked
/// beforehand.
fn checks<L: CheckKey>(role: Role, name: &str, version: &str, keys: usize) -> Contender {
    Contender::time(role, name, version, move |setup| {
        let quota = PerKey {
            per_second: 1_000,
            burst: 100,
        };
        let limiter: &'static L = Box::leak(Box::new(L::new(quota, keys)));
        let first = (0..1_000).position(|_| !limiter.check_key(u64::MAX));
        assert!(
            first.is_some_and(|n| (99..=120).contains(&n)),
            "a burst of 100, not {first:?}"
        );
        let drawn: Arc<[u64]> = draw(setup.seed, keys).into();
        for key in drawn.iter() {
            limiter.check_key(*key);
        }
        move |thread| {
            let drawn = Arc::clone(&drawn);
            let mut at = thread * DRAWN / 8;
            move |ops| {
                (0..ops).fold(0_u64, |sum, _| {
                    at = (at + 1) % DRAWN;
                    let key = drawn[at];
                    std::hint::black_box(limiter.check_key(key));
                    sum.wrapping_add(key)
                })
            }
        }
    })
}

/// Keys by their rank, which is spread over 64 bits.
fn draw(seed: u64, keys: usize) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|n| {
            sum += (n as f64).powf(-0.99);
            sum
        })
        .collect();
    let mut state = seed;
    let draw = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let part = (mix(state) >> 11) as f64 / (1_u64 << 53) as f64;
        mix(sums.partition_point(|&upto| upto < part * sum) as u64)
    };
    (0..DRAWN).map(draw).collect()
}

/// SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let z = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn bytes() -> Scenario {
    let about = "memory for each key that owes something";
    let scenario = Scenario::bytes("ratelimit/keyed_bytes", about)
        .input("1,000,000 u64 keys, one check each")
        .slow()
        .with(bytes_of::<ours::Keyed>(
            Role::Ours,
            "overdrive-ratelimit",
            ours::VERSION,
        ));
    #[cfg(feature = "ratelimit-peers")]
    let scenario = scenario.with(bytes_of::<peers::GovernorKeyed>(
        Role::Peer,
        "governor",
        &crate::scenarios::version("governor"),
    ));
    scenario
}

fn bytes_of<L: CheckKey>(role: Role, name: &str, version: &str) -> Contender {
    const KEYS: u64 = 1_000_000;
    Contender::once(role, name, version, |_| {
        let quota = PerKey {
            per_second: 1,
            burst: 1_000_000,
        };
        let (limiter, memory) = measure(|| {
            let limiter = L::new(quota, KEYS as usize);
            for key in 0..KEYS {
                assert!(limiter.check_key(mix(key)), "a first check");
            }
            limiter
        });
        let mut figure = Figure {
            value: memory.live as f64 / KEYS as f64,
            check: KEYS,
            ..Figure::default()
        };
        let peak = memory.peak as f64 / KEYS as f64;
        figure.metrics.insert("peak".into(), peak);
        drop(limiter);
        figure
    })
}

/// Simulated time: keys come and go for as long as it takes for chance to fill some places more than
/// others, with as many live as there is room for.
fn churn() -> Scenario {
    let about = "new keys that find no room, of a million, in a steady flow";
    Scenario::ratio("ratelimit/keyed_churn", about, "of a million")
        .input("100,000 keys live at any time, room for 100,000; 2,000,000 keys that live a second each")
        .slow()
        .threads(&[1])
        .with(churned(Role::Ours, "overdrive-ratelimit", 100))
        .with(churned(Role::Context, "at nine tenths", 90))
}

fn churned(role: Role, name: &str, percent: u64) -> Contender {
    const ROOM: u64 = 100_000;
    const KEYS: u64 = 20 * ROOM;
    Contender::once(role, name, ours::VERSION, move |_| {
        let clock = ManualClock::new();
        let builder = KeyedLimiter::<u64>::builder().quota(Quota::per_second(1));
        let builder = builder.capacity(ROOM as usize).clock(clock.clone());
        let limiter = ours::built(builder.build());
        let step = Duration::from_nanos(1_000_000_000 * 100 / (ROOM * percent));
        for key in 0..KEYS {
            std::hint::black_box(limiter.check(&mix(key)).is_ok());
            clock.advance(step);
        }
        Figure {
            value: limiter.stats().overflowed as f64 * 1e6 / KEYS as f64,
            check: KEYS,
            ..Figure::default()
        }
    })
}

fn flood() -> Scenario {
    let about = "memory at its highest in a flood of keys that are seen once";
    let scenario = Scenario::bytes("ratelimit/keyed_flood_8m", about)
        .input("8,000,000 unique u64 keys, 10 a second and 100 at once each; room for 700,000")
        .slow()
        .with(flooded::<ours::Keyed>(
            Role::Ours,
            "overdrive-ratelimit",
            ours::VERSION,
        ));
    #[cfg(feature = "ratelimit-peers")]
    let scenario = {
        let version = &crate::scenarios::version("governor");
        scenario
            .with(
                flooded::<peers::GovernorCleaned>(Role::Peer, "governor", version)
                    .remark("`retain_recent` each 100,000 keys, as its documentation asks"),
            )
            .with(
                flooded::<peers::GovernorKeyed>(Role::Context, "governor, never cleaned", version)
                    .remark("without `retain_recent`"),
            )
    };
    scenario
}

fn flooded<L: CheckKey>(role: Role, name: &str, version: &str) -> Contender {
    const KEYS: u64 = 8_000_000;
    const ROOM: usize = 700_000;
    Contender::once(role, name, version, |_| {
        let quota = PerKey {
            per_second: 10,
            burst: 100,
        };
        let (limiter, built) = measure(|| L::new(quota, ROOM));
        let (mut worst, mut allowed) = (0, 0_u64);
        let ((), memory) = measure(|| {
            for key in 0..KEYS {
                let start = Instant::now();
                allowed += u64::from(limiter.check_key(mix(key)));
                if key % 100_000 == 99_999 {
                    limiter.clean();
                }
                worst = worst.max(start.elapsed().as_nanos());
            }
        });
        let size = built.live.max(1) as f64;
        let peak = size + memory.peak as f64;
        let mut figure = Figure {
            value: peak,
            check: KEYS,
            ..Figure::default()
        };
        figure.metrics.insert("growth_ratio".into(), peak / size);
        figure
            .metrics
            .insert("worst_call_us".into(), worst as f64 / 1e3);
        figure
            .metrics
            .insert("allowed".into(), allowed as f64 / KEYS as f64);
        figure
    })
}
