//! The harness's own scenarios: the A/A control of every run and the planted
//! differences of the self-test.

use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::results::Role;
use crate::scenario::{Contender, Scenario};

/// The scenario that every run measures against itself.
pub(super) const CONTROL: &str = "harness/control";
/// The row of [`CONTROL`] that is a copy of ours.
pub(super) const COPY: &str = "copy";
/// The scenario of the self-test.
pub(super) const PLANTED: &str = "harness/planted";
/// The rows of [`PLANTED`] that do one and three percent more work.
pub(super) const PLUS: [&str; 2] = ["plus-1-percent", "plus-3-percent"];

const VERSION: &str = env!("CARGO_PKG_VERSION");
const KEYS: u64 = 4096;

/// A multiplicative hash: the loop should measure the table, not SipHash.
#[derive(Default)]
struct Multiplicative(u64);

impl Hasher for Multiplicative {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

type Map = std::collections::HashMap<u64, u64, BuildHasherDefault<Multiplicative>>;

/// Dependent look-ups: each result is the next key. `TAG` keeps the compiler
/// from folding the variants into one function, so that each has a place and an
/// alignment of its own, as different contenders have.
#[inline(never)]
fn chase<const TAG: u64>(map: &Map, from: u64, lookups: u64) -> u64 {
    black_box(TAG);
    let mut key = from;
    for _ in 0..lookups {
        key = map.get(&key).copied().unwrap_or(0);
    }
    key
}

fn lookup<const TAG: u64>(role: Role, name: &str, lookups: u64) -> Contender {
    Contender::time(role, name, VERSION, move |setup| {
        let seed = setup.seed;
        move |_| {
            // One cycle over all keys in a random order.
            let mut order: Vec<u64> = (0..KEYS).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut order);
            let next = order.iter().cycle().skip(1);
            let map: Map = order.iter().copied().zip(next.copied()).collect();
            move |ops| {
                (0..ops).fold(0, |sum: u64, op| {
                    black_box(chase::<TAG>(&map, op % KEYS, lookups));
                    sum + 1
                })
            }
        }
    })
}

/// The built-in suite.
pub(super) fn suite() -> Vec<Scenario> {
    let about = "dependent look-ups in a hash table of 4,096 keys";
    let control = Scenario::time(CONTROL, about)
        .input("200 look-ups per operation, twice the same loop")
        .with(lookup::<0>(Role::Ours, "lookup", 200))
        .with(lookup::<1>(Role::Context, COPY, 200));
    let planted = Scenario::time(PLANTED, about)
        .input("200 look-ups per operation; 202 and 206 in the planted variants")
        .with(lookup::<0>(Role::Ours, "lookup", 200))
        .with(lookup::<1>(Role::Context, COPY, 200))
        .with(lookup::<2>(Role::Context, PLUS[0], 202))
        .with(lookup::<3>(Role::Context, PLUS[1], 206));
    let stall = Scenario::latency(
        "harness/stall",
        "a server that stalls for 2 ms every 500 requests, 20,000 requests a second",
        20_000.0,
    )
    .input("Poisson arrivals")
    .slow()
    .check_ops(10)
    .with(Contender::latency(Role::Ours, "steady", VERSION, |_| {
        black_box::<u64>
    }))
    .with(Contender::latency(
        Role::Context,
        "stalling",
        VERSION,
        |_| {
            |n| {
                if n % 500 == 499 {
                    let until = Instant::now() + Duration::from_millis(2);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                }
                black_box(n)
            }
        },
    ));
    vec![control, planted, stall]
}
