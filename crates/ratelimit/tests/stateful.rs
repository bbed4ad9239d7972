//! Random operations in lock step with specifications that are written down
//! another way: a list of every token ever taken, and a counter with a queue.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{
    Acquire, AcquireError, ConcurrencyLimit, KeyedLimiter, OnFull, Permit, Quota, RateLimiter,
};
use proptest::prelude::*;

fn cases(few: u32) -> ProptestConfig {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    ProptestConfig {
        cases: if deep { few * 200 } else { few },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A bucket that is filled in whole steps of `1 / tokens` nanoseconds: the level
/// in such parts of a token that nothing is ever rounded.
struct Bucket {
    quota: Quota,
    /// In `1 / period_ns` of a token.
    level: u128,
    seen: u128,
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        let level = u128::from(quota.burst) * quota.period.as_nanos();
        Self {
            quota,
            level,
            seen: 0,
        }
    }

    fn fill(&mut self, now: u128) {
        let full = u128::from(self.quota.burst) * self.quota.period.as_nanos();
        self.level = full.min(self.level + (now - self.seen) * u128::from(self.quota.tokens));
        self.seen = now;
    }

    fn take(&mut self, now: u128, n: u64) -> bool {
        self.fill(now);
        let cost = u128::from(n) * self.quota.period.as_nanos();
        let enough = cost <= self.level;
        if enough {
            self.level -= cost;
        }
        enough
    }

    fn whole(&mut self, now: u128) -> u128 {
        self.fill(now);
        self.level / self.quota.period.as_nanos()
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Check(u64),
    UpTo(u64),
    Advance(u64),
    AdvanceByRetry,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = prop_oneof![
        4 => (0..12_u64).prop_map(Ask::Check),
        1 => (0..12_u64).prop_map(Ask::UpTo),
        3 => (0..3_000_u64).prop_map(Ask::Advance),
        1 => (0..u64::MAX / 4).prop_map(Ask::Advance),
        1 => Just(Ask::AdvanceByRetry),
    ];
    proptest::collection::vec(ask, 0..200)
}

fn quotas() -> impl Strategy<Value = Quota> {
    let tokens = prop_oneof![1..20_u64, 1..1_000_000_u64];
    let period = prop_oneof![1..50_u64, 1..5_000_000_u64];
    (tokens, period, 1..10_u64).prop_map(|(tokens, period, burst)| {
        Quota::per(tokens, Duration::from_nanos(period)).burst(burst)
    })
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_limiter_is_a_bucket_without_rounding(quota in quotas(), asks in asks()) {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder().quota(quota).clock(clock.clone()).build().unwrap();
        let mut bucket = Bucket::new(quota);
        let mut now = 0_u128;
        let mut advance = |by: u64| {
            // The clock ends at 2^64.
            let by = by.min(u64::MAX - now as u64);
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            now
        };
        for ask in asks {
            let now = advance(0);
            match ask {
                Ask::Check(n) => {
                    prop_assert_eq!(limiter.check_n(n).is_ok(), bucket.take(now, n), "{}", n);
                }
                Ask::UpTo(n) => {
                    let there = bucket.whole(now).min(u128::from(n)) as u64;
                    prop_assert_eq!(limiter.check_up_to(n), there);
                    prop_assert!(bucket.take(now, there));
                }
                Ask::Advance(by) => { advance(by); }
                Ask::AdvanceByRetry => {
                    let wait = limiter.snapshot().retry_after.as_nanos() as u64;
                    if wait > 1 && now + u128::from(wait) < u128::from(u64::MAX) {
                        let now = advance(wait - 1);
                        prop_assert!(bucket.whole(now) == 0);
                        let now = advance(1);
                        prop_assert!(bucket.whole(now) > 0);
                    }
                }
            }
            let now = advance(0);
            prop_assert_eq!(u128::from(limiter.snapshot().remaining), bucket.whole(now));
        }
    }

    #[test]
    fn a_keyed_limiter_is_a_bucket_for_each_key(
        asks in proptest::collection::vec((0..6_u8, 1..4_u64, 0..2_000_u64), 0..200),
    ) {
        // Room for all keys but one.
        let quota = Quota::per(1, Duration::from_micros(1)).burst(3);
        let clock = ManualClock::new();
        let builder = KeyedLimiter::<u8>::builder().quota(quota).capacity(5).on_full(OnFull::Deny);
        let limiter = builder.clock(clock.clone()).build().unwrap();
        let mut buckets: Vec<Bucket> = (0..6).map(|_| Bucket::new(quota)).collect();
        let mut now = 0;
        for (key, n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            let full = u128::from(quota.burst) * quota.period.as_nanos();
            for bucket in &mut buckets {
                bucket.fill(now);
            }
            let others = buckets.iter().enumerate().filter(|(k, _)| *k != usize::from(key));
            let room = others.filter(|(_, b)| b.level < full).count() < 5;
            let allowed = room && buckets[usize::from(key)].take(now, n);
            prop_assert_eq!(limiter.check_n(&key, n).is_ok(), allowed);
            prop_assert!(limiter.stats().keys <= 5);
        }
    }

    #[test]
    fn permits_go_to_those_who_wait_in_order(ops in proptest::collection::vec(0..6_u8, 0..200)) {
        let limit = ConcurrencyLimit::builder().limit(2).max_waiters(3).build().unwrap();
        let mut held: Vec<Permit<'_>> = Vec::new();
        let mut waiting: VecDeque<Pin<Box<Acquire<'_>>>> = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut closed = false;
        for op in ops {
            match op {
                0 => {
                    let free = held.len() < 2 && !closed;
                    let got = limit.try_acquire();
                    prop_assert_eq!(got.is_ok(), free && waiting.is_empty());
                    held.extend(got);
                }
                1 | 2 => {
                    let mut acquire = Box::pin(limit.acquire());
                    match acquire.as_mut().poll(&mut context) {
                        Poll::Ready(Ok(permit)) => {
                            prop_assert!(held.len() < 2 && waiting.is_empty() && !closed);
                            held.push(permit);
                        }
                        Poll::Ready(Err(AcquireError::Closed)) => prop_assert!(closed),
                        Poll::Ready(Err(_)) => prop_assert_eq!(waiting.len(), 3),
                        Poll::Pending => {
                            prop_assert!(held.len() == 2 && waiting.len() < 3 && !closed);
                            waiting.push_back(acquire);
                        }
                    }
                }
                3 if !held.is_empty() => {
                    drop(held.remove(0));
                    // The first of those who wait has it, and only that one.
                    if let Some(mut first) = waiting.pop_front() {
                        match first.as_mut().poll(&mut context) {
                            Poll::Ready(Ok(permit)) => held.push(permit),
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    for other in &mut waiting {
                        prop_assert!(other.as_mut().poll(&mut context).is_pending());
                    }
                }
                4 if !waiting.is_empty() => drop(waiting.remove(waiting.len() / 2)),
                5 if !held.is_empty() && !waiting.is_empty() => {
                    // Handed to one who gives up in that moment: it goes on to the next.
                    drop(held.remove(0));
                    drop(waiting.pop_front());
                    if let Some(mut next) = waiting.pop_front() {
                        match next.as_mut().poll(&mut context) {
                            Poll::Ready(Ok(permit)) => held.push(permit),
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                }
                5 if limit.stats().acquired > 60 => {
                    limit.close();
                    closed = true;
                    for mut turned_away in waiting.drain(..) {
                        let poll = turned_away.as_mut().poll(&mut context);
                        prop_assert!(matches!(poll, Poll::Ready(Err(AcquireError::Closed))));
                    }
                }
                _ => {}
            }
            let stats = limit.stats();
            prop_assert_eq!(stats.in_flight, held.len());
            prop_assert_eq!(stats.waiting, waiting.len());
            prop_assert_eq!(stats.acquired - stats.released, held.len() as u64);
        }
    }
}
