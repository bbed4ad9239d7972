//! Whole programs, written once for whatever can join.

use std::collections::HashMap;
use std::hint::black_box;

use overdrive_bench::Contender;
use overdrive_bench::results::Role;

/// A pool with a `join` that needs no context.
pub(crate) trait Joins: 'static {
    fn new(workers: usize) -> Self;

    /// Runs it in the pool.
    fn enter(&mut self, f: impl FnOnce() -> u64 + Send + 'static) -> u64;

    fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send;
}

/// One operation: the program once; its answer is the checksum.
pub(crate) fn program<P: Joins>(
    run: fn() -> u64,
    role: Role,
    name: &str,
    version: &str,
) -> Contender {
    Contender::time(role, name, version, move |setup| {
        let workers = setup.threads;
        move |_| {
            let mut pool = P::new(workers);
            move |ops| (0..ops).fold(0, |sum: u64, _| sum.wrapping_add(pool.enter(run)))
        }
    })
}

fn mix(n: u64) -> u64 {
    let z = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) const NUMBERS: u64 = 200_000;

/// Numbers in a random order, sorted by Hoare's algorithm; both sides joined.
pub(crate) fn quicksort<P: Joins>() -> u64 {
    fn sort<P: Joins>(numbers: &mut [u64]) {
        if numbers.len() <= 1000 {
            numbers.sort_unstable();
            return;
        }
        let last = numbers.len() - 1;
        numbers.swap(last / 2, last);
        let pivot = numbers[last];
        let mut low = 0;
        for n in 0..last {
            if numbers[n] < pivot {
                numbers.swap(n, low);
                low += 1;
            }
        }
        numbers.swap(low, last);
        let (left, right) = numbers.split_at_mut(low);
        P::join(|| sort::<P>(left), || sort::<P>(&mut right[1..]));
    }
    let mut numbers: Vec<u64> = (0..NUMBERS).map(mix).collect();
    sort::<P>(&mut numbers);
    let weigh =
        |sum: u64, (n, number): (usize, &u64)| sum.wrapping_add(number.wrapping_mul(n as u64));
    numbers.iter().enumerate().fold(0, weigh)
}

pub(crate) const BODIES: usize = 600;

/// The forces between bodies, each with all others, in whole numbers; rows halved and joined.
pub(crate) fn nbody<P: Joins>() -> u64 {
    fn rows<P: Joins>(bodies: &[[i64; 3]], from: usize, to: usize) -> u64 {
        if to - from > 20 {
            let middle = (from + to) / 2;
            let (a, b) = P::join(
                || rows::<P>(bodies, from, middle),
                || rows::<P>(bodies, middle, to),
            );
            return a.wrapping_add(b);
        }
        let mut sum = 0_u64;
        for one in &bodies[from..to] {
            let mut force = [0_f64; 3];
            for other in bodies {
                let apart = [0, 1, 2].map(|axis| (other[axis] - one[axis]) as f64);
                let square = apart.iter().map(|x| x * x).sum::<f64>() + 1.0;
                let by = 1e9 / (square * square.sqrt());
                for (force, apart) in force.iter_mut().zip(apart) {
                    *force += by * apart;
                }
            }
            sum = force
                .iter()
                .fold(sum, |sum, x| sum.wrapping_add((x * 1e3) as i64 as u64));
        }
        sum
    }
    let axis = |n: u64| (mix(n) % 1000) as i64;
    let bodies: Vec<[i64; 3]> = (0..BODIES as u64)
        .map(|n| [axis(3 * n), axis(3 * n + 1), axis(3 * n + 2)])
        .collect();
    rows::<P>(&bodies, 0, BODIES)
}

/// The nodes of an unbalanced tree, in the manner of the UTS benchmark: a node has children by its
/// hash, few have many.
pub(crate) fn uts<P: Joins>() -> u64 {
    fn below<P: Joins>(hash: u64, depth: u32) -> u64 {
        let children = match mix(hash) % 100 {
            _ if depth == 0 => 0,
            0..=29 => 3,
            30..=34 => 6,
            _ => 0,
        };
        1 + all::<P>(hash, 0, children, depth)
    }
    fn all<P: Joins>(hash: u64, from: u64, to: u64, depth: u32) -> u64 {
        let child = |n| mix(hash.wrapping_mul(31).wrapping_add(n + 1));
        match to - from {
            0 => 0,
            1 => below::<P>(child(from), depth - 1),
            _ => {
                let middle = (from + to) / 2;
                let (a, b) = P::join(
                    || all::<P>(hash, from, middle, depth),
                    || all::<P>(hash, middle, to, depth),
                );
                a + b
            }
        }
    }
    1 + all::<P>(42, 0, 200, 60)
}

pub(crate) const WORDS: u64 = 60_000;

/// How often each word comes in a text; halves counted, joined, and put together.
pub(crate) fn wordcount<P: Joins>() -> u64 {
    fn count<P: Joins>(words: &[u16]) -> HashMap<u16, u64> {
        if words.len() > 4000 {
            let (left, right) = words.split_at(words.len() / 2);
            let (mut a, b) = P::join(|| count::<P>(left), || count::<P>(right));
            for (word, n) in b {
                *a.entry(word).or_default() += n;
            }
            return a;
        }
        let mut counts = HashMap::new();
        for &word in words {
            *counts.entry(word).or_default() += 1;
        }
        counts
    }
    let words: Vec<u16> = (0..WORDS)
        .map(|n| {
            let r = mix(n) % 1_000_000;
            (r * r / 1_000_000_000) as u16
        })
        .collect();
    let counts = count::<P>(black_box(&words));
    let weigh = |sum: u64, (word, n): (&u16, &u64)| {
        sum.wrapping_add(mix(u64::from(*word)).wrapping_mul(*n))
    };
    counts.iter().fold(0, weigh)
}
