//! Random operations in lock step with specifications that are written down
//! another way: a list of every token ever taken, and a counter with a queue.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_core::{Clock, Timestamp};
use overdrive_ratelimit::{
    Acquire, AcquireError, Carry, ConcurrencyLimit, Deadline, ExactKeyedLimiter, KeyedLimiter,
    MAX_PERIOD, MAX_TOKENS, OnFull, Permit, Quota, RateLimiter, Reservation,
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
/// in such parts of a token that nothing is ever rounded, below zero after a reservation.
struct Bucket {
    quota: Quota,
    /// In `1 / period_ns` of a token.
    level: i128,
    seen: u128,
    /// What changes of quota may have rounded away.
    rounded: i128,
    /// Until when tokens are reserved ahead of their time, and how many were taken since.
    ahead: (u128, u64),
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        let mut bucket = Self {
            quota,
            level: 0,
            seen: 0,
            rounded: 0,
            ahead: (0, 0),
        };
        bucket.level = bucket.full();
        bucket
    }

    fn worth(&self, n: u64) -> i128 {
        i128::from(n) * self.quota.period.as_nanos() as i128
    }

    fn full(&self) -> i128 {
        self.worth(self.quota.burst)
    }

    fn fill(&mut self, now: u128) {
        let more = (now - self.seen) as i128 * i128::from(self.quota.tokens);
        self.level = self.full().min(self.level + more);
        self.seen = now;
    }

    fn take(&mut self, now: u128, n: u64) -> bool {
        self.fill(now);
        let enough = self.worth(n) <= self.level;
        if enough {
            self.level -= self.worth(n);
        }
        enough
    }

    /// What a limiter may keep back: four nanoseconds, or 2^-17 of a token.
    fn reserve(&self) -> i128 {
        let four_nanos = 4 * i128::from(self.quota.tokens);
        four_nanos.max(self.worth(1) >> 17) + self.rounded
    }

    fn change(&mut self, now: u128, quota: Quota, carry: Carry) {
        self.fill(now);
        let (token, full, kept) = (self.worth(1), self.full(), self.reserve());
        let kept = kept.min(1 << 100);
        self.quota = quota;
        let (times, parts) = match carry {
            Carry::Proportional if self.level >= 0 => (self.full(), full),
            _ => (self.worth(1), token),
        };
        // Up, for a limit that may never be passed; what is too much is counted as rounded.
        let scaled = |level: i128| {
            let (whole, rest) = (level.div_euclid(parts), level.rem_euclid(parts));
            whole.saturating_mul(times).min(1 << 110)
                + (rest as f64 / parts as f64 * times as f64) as i128
        };
        let more = 2 + (times >> 48);
        self.level = match carry {
            Carry::Reset => self.full() + scaled(self.level.min(0)) + more,
            _ => scaled(self.level) + more,
        };
        self.level = self.level.min(self.full());
        self.rounded = 0;
        self.rounded = scaled(kept).min(1 << 100) + 2 * more + self.reserve();
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Check(u64),
    UpTo(u64),
    Advance(u64),
    AdvanceByRetry,
    Refund(u64),
    Reserve(u64, bool),
    Change(Quota, Carry),
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let carry = prop_oneof![
        Just(Carry::Keep),
        Just(Carry::Proportional),
        Just(Carry::Reset)
    ];
    let ask = prop_oneof![
        8 => (0..12_u64).prop_map(Ask::Check),
        2 => (0..12_u64).prop_map(Ask::UpTo),
        6 => (0..3_000_u64).prop_map(Ask::Advance),
        2 => (0..1_u64 << 54).prop_map(Ask::Advance),
        2 => Just(Ask::AdvanceByRetry),
        1 => (0..12_u64).prop_map(Ask::Refund),
        2 => (0..12_u64, any::<bool>()).prop_map(|(n, cancel)| Ask::Reserve(n, cancel)),
        1 => (quotas(), carry).prop_map(|(quota, carry)| Ask::Change(quota, carry)),
    ];
    proptest::collection::vec(ask, 0..200)
}

fn quotas() -> impl Strategy<Value = Quota> {
    let tokens = prop_oneof![1..20_u64, 1..1_000_000_u64, 1..=MAX_TOKENS];
    let period = prop_oneof![
        1..50_u64,
        1..5_000_000_u64,
        1..=MAX_PERIOD.as_nanos() as u64
    ];
    let burst = prop_oneof![8 => 1..10_u64, 1 => 1..=MAX_TOKENS];
    (tokens, period, burst).prop_map(|(tokens, period, burst)| {
        let tokens = tokens.min(period.saturating_mul(16));
        Quota::per(tokens, Duration::from_nanos(period)).burst(burst)
    })
}

/// A clock that can be set back.
#[derive(Clone, Debug, Default)]
struct Wayward(Arc<AtomicU64>);

impl Clock for Wayward {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn a_limiter_is_a_bucket_without_rounding(quota in quotas(), asks in asks()) {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder().quota(quota).clock(clock.clone()).build().unwrap();
        let mut bucket = Bucket::new(quota);
        let mut now = 0_u128;
        let mut taken = 0_u64;
        let mut advance = |by: u64| {
            // Sixteen tokens a nanosecond reach their end after eighteen years.
            let by = by.min((1 << 58) - now as u64);
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            now
        };
        for ask in asks {
            let now = advance(0);
            bucket.fill(now);
            match ask {
                Ask::Check(n) => {
                    let peek = limiter.peek(n);
                    let got = limiter.check_n(n);
                    prop_assert_eq!(peek, got);
                    if got.is_ok() && n > 0 {
                        prop_assert!(bucket.take(now, n), "{} of {}", n, bucket.level);
                        bucket.ahead.1 += n;
                        taken += n;
                    } else if n > 0 {
                        let short = bucket.worth(n) - bucket.level;
                        let never = n > bucket.quota.burst;
                        prop_assert!(never || short > -bucket.reserve(), "{}", short);
                        prop_assert_eq!(got.unwrap_err().retry_after().is_none(), never);
                    }
                }
                Ask::UpTo(n) => {
                    let got = limiter.check_up_to(n);
                    prop_assert!(got <= n && (got == 0 || bucket.take(now, got)));
                    bucket.ahead.1 += got;
                    taken += got;
                    prop_assert!(got == n || bucket.level < bucket.worth(1) + bucket.reserve());
                }
                Ask::Advance(by) => { advance(by); }
                Ask::AdvanceByRetry => {
                    let wait = limiter.snapshot().retry_after.as_nanos() as u64;
                    if wait > 1 && now + u128::from(wait) < 1 << 58 {
                        let now = advance(wait - 1);
                        bucket.fill(now);
                        prop_assert!(bucket.level < bucket.worth(1) + bucket.reserve());
                        prop_assert_eq!(limiter.snapshot().remaining, 0);
                        let now = advance(1);
                        bucket.fill(now);
                        prop_assert!(bucket.level >= bucket.worth(1));
                        prop_assert!(limiter.snapshot().remaining > 0);
                    }
                }
                Ask::Refund(n) => {
                    let n = n.min(taken);
                    taken -= n;
                    limiter.refund(n);
                    // What was taken before tokens that are reserved would come on top of them.
                    let n = if now < bucket.ahead.0 { n.min(bucket.ahead.1) } else { n };
                    bucket.ahead.1 -= n.min(bucket.ahead.1);
                    bucket.level = bucket.full().min(bucket.level + bucket.worth(n));
                }
                Ask::Reserve(n, cancel) => {
                    let Ok(reservation) = limiter.reserve(n, Deadline::NEVER) else {
                        prop_assert!(n > bucket.quota.burst);
                        continue;
                    };
                    // It may be used once its tokens are earned, and not before.
                    let wait = reservation.delay().as_nanos() as i128;
                    bucket.level -= bucket.worth(n);
                    let earned = bucket.level + wait * i128::from(bucket.quota.tokens);
                    let in_reach = wait < 1 << 62;
                    prop_assert!(!in_reach || earned >= 0, "{}", earned);
                    let late = bucket.reserve() + i128::from(bucket.quota.tokens);
                    prop_assert!(n == 0 || wait == 0 || earned <= late, "{}", earned);
                    if cancel {
                        prop_assert_eq!(reservation.cancel(), n);
                        bucket.level += bucket.worth(n);
                    } else {
                        taken += n;
                        bucket.ahead.1 += n;
                        if n > 0 && wait > 0 {
                            bucket.ahead = (bucket.ahead.0.max(now + wait as u128), 0);
                        }
                    }
                }
                Ask::Change(quota, carry) => {
                    limiter.set_quota(quota, carry).unwrap();
                    bucket.change(now, quota, carry);
                    // What was taken under the former one counts as reserved with the rest.
                    bucket.ahead.1 = 0;
                }
            }
            let now = advance(0);
            bucket.fill(now);
            let there = i128::from(limiter.snapshot().remaining);
            prop_assert!(bucket.worth(1) * there <= bucket.level.max(0));
            let least = bucket.level - bucket.reserve();
            prop_assert!((there + 1) * bucket.worth(1) > least, "{} {}", there, least);
        }
    }

    #[test]
    fn no_window_holds_more_than_the_burst_and_the_rate(
        quota in quotas(),
        asks in proptest::collection::vec((0..8_u64, 0..3_000_i64, 0..8_u8), 0..150),
    ) {
        let clock = Wayward::default();
        clock.0.store(1 << 40, Ordering::Relaxed);
        let limiter = RateLimiter::builder().quota(quota).clock(clock.clone()).build().unwrap();
        let mut given: Vec<(u64, u64)> = Vec::new();
        for (n, by, how) in asks {
            let now = clock.0.load(Ordering::Relaxed);
            let moved = match how {
                0 => now.saturating_sub(by as u64),
                1 => now + quota.period.as_nanos() as u64 / quota.tokens,
                2 => now + (by as u64) * 1_000_000,
                _ => now + by as u64 % 10,
            };
            clock.0.store(moved, Ordering::Relaxed);
            let got = if how == 7 {
                limiter.check_up_to(n)
            } else if limiter.check_n(n).is_ok() {
                n
            } else {
                0
            };
            given.push((moved, got));
        }
        for first in 0..given.len() {
            let (mut from, mut to, mut sum) = (u64::MAX, 0, 0_u128);
            for (at, n) in &given[first..] {
                if *n > 0 {
                    (from, to) = (from.min(*at), to.max(*at));
                    sum += u128::from(*n);
                    let earned = u128::from(to - from) * u128::from(quota.tokens);
                    let allowed = u128::from(quota.burst) * quota.period.as_nanos() + earned;
                    prop_assert!(sum * quota.period.as_nanos() <= allowed);
                }
            }
        }
    }

    #[test]
    fn no_window_holds_more_where_tokens_are_reserved_cancelled_and_given_back(
        tokens in 1..6_u64,
        period in 1..40_u64,
        burst in 1..9_u64,
        ops in proptest::collection::vec((0..8_u8, 0..9_u64, 0..60_u64), 0..120),
    ) {
        let quota = Quota::per(tokens, Duration::from_nanos(period)).burst(burst);
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder().quota(quota).clock(clock.clone()).build().unwrap();
        // From when on how many may be used; none once they were given back.
        // A refund counts as so many less when it is made.
        let mut usable: Vec<(u64, i128)> = Vec::new();
        let mut reserved: VecDeque<(usize, Reservation<'_, ManualClock>)> = VecDeque::new();
        let mut unused: Vec<u64> = Vec::new();
        for (op, n, by) in ops {
            let now = clock.now().as_nanos();
            match op {
                0..=1 if limiter.check_n(n).is_ok() => {
                    unused.push(n);
                    usable.push((now, i128::from(n)));
                }
                2..=3 => if let Ok(reservation) = limiter.reserve(n, Deadline::NEVER) {
                    let at = reservation.ready_at().as_nanos();
                    reserved.push_back((usable.len(), reservation));
                    usable.push((at, i128::from(n)));
                },
                4 if !reserved.is_empty() => {
                    let (at, reservation) = reserved.remove(n as usize % reserved.len()).unwrap();
                    // Those whose time has come are used.
                    if reservation.ready_at().as_nanos() >= now {
                        prop_assert!(i128::from(reservation.cancel()) <= usable[at].1);
                        usable[at].1 = 0;
                    }
                }
                5 => if let Some(n) = unused.pop() {
                    limiter.refund(n);
                    usable.push((now, -i128::from(n)));
                },
                _ => clock.advance(Duration::from_nanos(by)),
            }
        }
        usable.sort_unstable_by_key(|(at, n)| (*at, *n < 0));
        for first in 0..usable.len() {
            let mut sum = 0;
            for (last, (at, n)) in usable.iter().enumerate().skip(first) {
                sum += n;
                // To the end of a moment only.
                if usable.get(last + 1).is_some_and(|next| next.0 == *at) {
                    continue;
                }
                // The moment of a reservation is rounded up to a nanosecond.
                let earned = i128::from(at - usable[first].0 + 1) * i128::from(tokens);
                let allowed = i128::from(burst * period) + earned;
                prop_assert!(sum * i128::from(period) <= allowed, "{:?}", usable);
            }
        }
    }

    #[test]
    fn leases_give_out_no_more_than_the_quota(
        batch in 1..8_u64,
        asks in proptest::collection::vec((0..4_u64, 0..400_u64), 0..200),
    ) {
        let quota = Quota::per(7, Duration::from_nanos(900)).burst(40);
        let clock = ManualClock::new();
        let builder = RateLimiter::builder().quota(quota).clock(clock.clone());
        let leased = builder.leased(batch.min(5)).threads(4).build().unwrap();
        let mut bucket = Bucket::new(quota);
        let (mut now, mut tokens) = (0, 0);
        for (n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            let got = match n {
                0 => leased.limiter().check().map_or(0, |()| 1),
                1 => leased.check().map_or(0, |()| 1),
                n => leased.check_n(n).map_or(0, |()| n),
            };
            prop_assert!(got == 0 || bucket.take(now, got));
            tokens += got;
            prop_assert_eq!(leased.stats().tokens, tokens);
        }
    }

    #[test]
    fn a_keyed_limiter_is_a_bucket_for_each_key(
        asks in proptest::collection::vec((0..6_u8, 1..4_u64, 0..2_000_u64), 0..200),
    ) {
        // Room for all keys but one.
        let quota = Quota::per(1, Duration::from_micros(1)).burst(3);
        let clock = ManualClock::new();
        let builder = ExactKeyedLimiter::<u8>::builder().quota(quota).capacity(5).on_full(OnFull::Deny);
        let limiter = builder.clock(clock.clone()).build().unwrap();
        let mut buckets: Vec<Bucket> = (0..6).map(|_| Bucket::new(quota)).collect();
        let mut now = 0;
        for (key, n, by) in asks {
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            let full = i128::from(quota.burst) * quota.period.as_nanos() as i128;
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
    fn a_hashed_limiter_is_a_bucket_for_each_key(
        quota in quotas(),
        asks in proptest::collection::vec((0..40_u64, 0..12_u64, 0..2_000_u64, 0..30_u8), 0..300),
    ) {
        let clock = ManualClock::new();
        let builder = KeyedLimiter::<u64>::builder().quota(quota).capacity(1_000);
        let limiter = builder.on_full(OnFull::Deny).clock(clock.clone()).build().unwrap();
        let mut buckets: Vec<Bucket> = (0..40).map(|_| Bucket::new(quota)).collect();
        let mut now = 0;
        for (key, n, by, how) in asks {
            let by = if how == 0 { by << 40 } else { by };
            clock.advance(Duration::from_nanos(by));
            now += u128::from(by);
            let bucket = &mut buckets[key as usize];
            bucket.fill(now);
            if how == 1 {
                limiter.reset(&key);
                *bucket = Bucket { seen: now, ..Bucket::new(quota) };
            }
            if limiter.check_n(&key, n).is_ok() {
                prop_assert!(bucket.take(now, n));
            } else {
                let short = bucket.worth(n) - bucket.level;
                prop_assert!(n > quota.burst || short > -bucket.reserve());
            }
            let there = i128::from(limiter.snapshot(&key).remaining);
            prop_assert!(there * bucket.worth(1) <= bucket.level.max(0));
        }
        prop_assert_eq!(limiter.stats().overflowed, 0);
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
