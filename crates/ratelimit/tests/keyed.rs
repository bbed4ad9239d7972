//! The keyed limiters, on a clock that is moved by hand.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_ratelimit::{Carry, CheckError, ExactKeyedLimiter, KeyedLimiter, OnFull, Quota};

/// The same numbers in each run.
#[derive(Clone, Copy, Debug, Default)]
struct Seeded;

#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = self.0.rotate_left(23) ^ n;
    }
}

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer::default()
    }
}

type Limiter = KeyedLimiter<u64, Seeded, ManualClock>;

fn limiter(quota: Quota, capacity: usize, on_full: OnFull) -> (Limiter, ManualClock) {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(3600));
    let builder = KeyedLimiter::builder().quota(quota).capacity(capacity);
    let builder = builder.on_full(on_full).hasher(Seeded).clock(clock.clone());
    (builder.build().unwrap(), clock)
}

#[test]
fn each_hashed_key_has_its_own_quota() {
    let (limiter, clock) = limiter(Quota::per_hour(2), 100, OnFull::default());
    assert_eq!(limiter.check_n(&1, 2), Ok(()));
    assert_eq!(limiter.check(&2), Ok(()));
    let denied = limiter.check(&1).unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_secs(1800));
    assert_eq!(limiter.snapshot(&2).remaining, 1);
    assert_eq!(limiter.snapshot(&3).remaining, 2);
    let too_many = limiter.check_n(&3, 3);
    assert_eq!(
        too_many,
        Err(CheckError::ExceedsBurst { asked: 3, burst: 2 })
    );
    assert_eq!(limiter.check_n(&9, 0), Ok(()));
    assert_eq!(limiter.stats().keys, 2);
    assert!(limiter.reset(&1) && !limiter.reset(&1) && !limiter.reset(&77));
    assert_eq!(limiter.check_n(&1, 2), Ok(()));
    clock.advance(Duration::from_secs(3600));
    assert_eq!(limiter.stats().keys, 0);
}

#[test]
fn hardly_a_key_finds_no_room_at_capacity() {
    for keys in [10_000, 200_000] {
        let (limiter, _) = limiter(Quota::per_hour(1), keys, OnFull::default());
        for key in 0..keys as u64 {
            // Whether it is its own token or that of all without room.
            let _allowed = limiter.check(&key);
        }
        let stats = limiter.stats();
        assert_eq!(stats.keys + stats.overflowed as usize, keys);
        assert!(stats.overflowed * 10_000 <= keys as u64, "{stats:?}");
        assert!(
            limiter.slots() * 10 * 16 <= 233 * keys,
            "{}",
            limiter.slots()
        );
    }
}

#[test]
fn a_flood_of_hashed_keys_never_frees_a_limited_one_and_uses_idle_ones_again() {
    let (limiter, clock) = limiter(Quota::per_second(1), 1_000, OnFull::default());
    for key in 0..500 {
        assert_eq!(limiter.check(&key), Ok(()));
    }
    for key in 1_000_000..1_100_000 {
        let _allowed = limiter.check(&key);
    }
    assert!((0..500).all(|key| limiter.check(&key).is_err()));
    let stats = limiter.stats();
    assert_eq!(stats.keys, limiter.slots());
    assert!(stats.overflowed > 98_000 && stats.evicted == 0);
    // A second later all of them owe nothing, and their places are there for others.
    clock.advance(Duration::from_secs(1));
    for key in 2_000_000..2_000_500 {
        assert_eq!(limiter.check(&key), Ok(()));
    }
    assert_eq!(limiter.stats().reclaimed, 500);
}

#[test]
fn hashed_keys_without_room_can_be_denied() {
    let (limiter, clock) = limiter(Quota::per_second(1), 7, OnFull::Deny);
    let allowed = (0..1_000).filter(|key| limiter.check(key).is_ok()).count();
    assert_eq!(allowed, limiter.slots());
    let denied = limiter.check(&5_000).unwrap_err();
    clock.advance(denied.retry_after);
    assert_eq!(limiter.check(&5_000), Ok(()));
}

#[test]
fn a_key_that_takes_the_place_of_another_takes_its_debt() {
    let (limiter, clock) = limiter(Quota::per_minute(60).burst(10), 7, OnFull::Evict);
    let slots = limiter.slots() as u64;
    for key in 0..1_000 {
        clock.advance(Duration::from_micros(1));
        let _allowed = limiter.check(&key);
    }
    let stats = limiter.stats();
    // Each place gives out its burst and no more, however many keys come.
    assert!(stats.allowed <= 10 * slots, "{stats:?}");
    assert_eq!(stats.evicted, stats.allowed - slots);
}

#[test]
fn one_key_checked_by_many_threads_is_one_key() {
    for round in 0..200_u64 {
        let (limiter, _) = limiter(Quota::per_hour(3), 64, OnFull::default());
        let allowed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for key in 0..4 {
                        let got = limiter.check(&(round * 16 + key)).is_ok();
                        allowed.fetch_add(u64::from(got), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(allowed.into_inner(), 12);
        assert_eq!(limiter.stats().keys, 4);
    }
}

#[test]
fn a_weak_hash_function_is_mixed() {
    #[derive(Clone, Debug, Default)]
    struct Identity(u64);
    impl Hasher for Identity {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, _: &[u8]) {}
        fn write_u64(&mut self, n: u64) {
            self.0 = n;
        }
    }
    let clock = ManualClock::new();
    let builder = KeyedLimiter::<u64>::builder().quota(Quota::per_hour(1));
    let hasher = std::hash::BuildHasherDefault::<Identity>::default();
    let builder = builder.capacity(10_000).hasher(hasher).clock(clock);
    let limiter = builder.build().unwrap();
    // Small numbers, and numbers that differ in their high bits only.
    for key in (0..5_000).chain((1..5_000).map(|key| key << 40)) {
        assert_eq!(limiter.check(&key), Ok(()));
    }
}

#[test]
fn a_customer_can_have_a_quota_of_its_own() {
    let clock = ManualClock::new();
    let builder = ExactKeyedLimiter::<String>::builder().quota(Quota::per_hour(1));
    let limiter = builder.capacity(3).clock(clock.clone()).build().unwrap();
    limiter
        .set_quota("large".into(), Quota::per_hour(5))
        .unwrap();
    limiter
        .set_quota("slow".into(), Quota::per_hour(1).burst(4))
        .unwrap();
    assert_eq!(limiter.check_n("large", 5), Ok(()));
    assert_eq!(limiter.check_n("slow", 4), Ok(()));
    assert!(
        limiter
            .check_n("other", 2)
            .unwrap_err()
            .retry_after()
            .is_none()
    );
    assert_eq!(limiter.check("other"), Ok(()));
    assert_eq!(limiter.snapshot("large").limit, 5);
    assert_eq!(limiter.quota_of("slow"), Quota::per_hour(1).burst(4));
    clock.advance(Duration::from_secs(3600));
    assert_eq!(limiter.snapshot("large").remaining, 5);
    assert_eq!(limiter.snapshot("slow").remaining, 1);
    // They are kept when room is made, even when they owe nothing.
    clock.advance(Duration::from_secs(36_000));
    assert_eq!(limiter.check("new"), Ok(()));
    assert_eq!(limiter.check_n("large", 5), Ok(()));
    let full = limiter.set_quota("third".into(), Quota::per_hour(2));
    assert_eq!(full.unwrap_err().field(), "capacity");
    assert!(limiter.reset("large"));
    assert_eq!(limiter.quota_of("large"), Quota::per_hour(1));
    assert!(
        limiter
            .set_quota("third".into(), Quota::per_hour(2))
            .is_ok()
    );
}

/// A key whose debt lies in the shared bucket gets a fresh burst as soon as a slot is free.
#[test]
fn a_key_without_room_has_one_burst_and_not_two() {
    let clock = ManualClock::new();
    let quota = Quota::per_second(1).burst(100);
    let keys = KeyedLimiter::<u64>::builder()
        .quota(quota)
        .capacity(1)
        .clock(clock.clone())
        .build()
        .unwrap();
    // One token each, so that they are idle in a second.
    let mut n = 0;
    while keys.stats().overflowed == 0 {
        keys.check(&n).unwrap();
        n += 1;
    }
    let late = (1 << 40..)
        .find(|k| {
            let before = keys.stats().overflowed;
            keys.check(k).is_ok() && keys.stats().overflowed > before
        })
        .unwrap();
    let mut got = 1;
    while keys.check(&late).is_ok() {
        got += 1;
    }
    clock.advance(Duration::from_secs(2));
    while keys.check(&late).is_ok() {
        got += 1;
    }
    assert!(
        got <= 102,
        "{got} in two seconds, burst 100 and one a second"
    );
}

#[test]
fn a_flood_at_the_rate_at_which_keys_become_idle_always_finds_room() {
    const KEYS: u64 = 65_536;
    let clock = ManualClock::new();
    let quota = Quota::per_second(1).burst(1);
    let keys = ExactKeyedLimiter::<u64>::builder()
        .quota(quota)
        .on_full(OnFull::Deny)
        .clock(clock.clone())
        .build()
        .unwrap();
    let step = Duration::from_nanos(1_000_000_000 / KEYS);
    for key in 0..KEYS {
        keys.check(&key).unwrap();
        clock.advance(step);
    }
    // Each takes the place of the one that has just become idle: a sweep for each would take an hour.
    clock.advance(Duration::from_secs(1) - (KEYS - 1) as u32 * step);
    for key in KEYS..4 * KEYS {
        keys.check(&key).unwrap();
        clock.advance(step + Duration::from_nanos(1));
    }
    assert_eq!(keys.stats().reclaimed, 3 * KEYS);
}

#[test]
fn hardly_a_key_finds_no_room_at_capacity_in_the_long_run() {
    const KEYS: u64 = 50_000;
    let (keys, clock) = limiter(Quota::per_second(1).burst(1), KEYS as usize, OnFull::Deny);
    let step = Duration::from_nanos(1_000_000_000 / KEYS);
    // Each lives for a second, and another comes then.
    for key in 0..12 * KEYS {
        let _room_or_not = keys.check(&key);
        clock.advance(step);
    }
    let stats = keys.stats();
    assert!(stats.keys as u64 > KEYS - KEYS / 100);
    assert!(stats.overflowed * 10_000 <= 11 * KEYS, "{stats:?}");
}

#[test]
fn a_new_quota_holds_for_all_keys_and_keeps_what_they_owe() {
    let (keys, clock) = limiter(Quota::per_hour(100), 1_000, OnFull::default());
    for key in 0..500 {
        keys.check_n(&key, key % 100).unwrap();
    }
    keys.set_quota(Quota::per_hour(10), Carry::Proportional)
        .unwrap();
    for key in 0..500 {
        assert_eq!(keys.snapshot(&key).remaining, (100 - key % 100) / 10);
    }
    assert_eq!(keys.quota(), Quota::per_hour(10));
    assert_eq!(keys.snapshot(&9_999).remaining, 10);
    clock.advance(Duration::from_secs(360));
    assert_eq!(keys.snapshot(&99).remaining, 1);
    keys.set_quota(Quota::per_second(1).burst(3), Carry::Reset)
        .unwrap();
    for key in 0..600 {
        assert!(keys.check_n(&key, 3).is_ok());
        assert!(keys.check(&key).is_err());
    }
    let refused = keys
        .set_quota(Quota::per_second(0), Carry::Keep)
        .unwrap_err();
    assert_eq!((refused.field(), keys.quota().tokens), ("tokens", 1));
}

#[test]
fn threads_that_check_while_the_quota_changes_get_no_more_than_each_allows() {
    let (keys, _clock) = limiter(Quota::per_hour(1_000), 1_000, OnFull::default());
    let allowed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..30_000_u64 {
                    allowed.fetch_add(u64::from(keys.check(&(i % 10)).is_ok()), Ordering::Relaxed);
                }
            });
        }
        for n in 0..50 {
            // The same tokens, in other units.
            let quota = Quota::per(1_000, Duration::from_secs(3_600 + n));
            keys.set_quota(quota, Carry::Keep).unwrap();
        }
    });
    let got = allowed.into_inner();
    // A change may round a token away from each key.
    assert!((10_000 - 500..=10_000).contains(&got), "{got}");
}

#[test]
fn busy_keys_do_not_hide_one_that_owes_nothing() {
    let clock = ManualClock::new();
    let limiter = ExactKeyedLimiter::<u64>::builder()
        .quota(Quota::per_second(1))
        .capacity(200)
        .on_full(OnFull::Deny)
        .clock(clock.clone())
        .build()
        .unwrap();
    for key in 0..199 {
        limiter.check(&key).unwrap();
    }
    clock.advance(Duration::from_millis(500));
    // This one comes once.
    limiter.check(&199).unwrap();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        for key in 0..199 {
            limiter.check(&key).unwrap();
        }
    }
    assert_eq!(limiter.check(&1_000), Ok(()));
}

#[test]
fn reset_forgets_what_a_key_took_of_the_overflow() {
    let clock = ManualClock::new();
    let builder = KeyedLimiter::<u64>::builder().capacity(1);
    let limiter = builder
        .quota(Quota::per_hour(2))
        .clock(clock.clone())
        .build()
        .unwrap();
    let builder = ExactKeyedLimiter::<u64>::builder().capacity(1);
    let exact = builder
        .quota(Quota::per_hour(2))
        .clock(clock)
        .build()
        .unwrap();
    // Fill all places, until one key has to share.
    let mut last = 0;
    limiter.check(&last).unwrap();
    while limiter.stats().overflowed == 0 {
        last += 1;
        limiter.check(&last).unwrap();
    }
    limiter.check(&last).unwrap();
    // Room for it again.
    for key in 0..=last {
        limiter.reset(&key);
    }
    assert_eq!(limiter.check_n(&last, 2), Ok(()));

    exact.check(&1).unwrap();
    exact.check_n(&2, 2).unwrap();
    assert_eq!(exact.stats().overflowed, 1);
    exact.reset(&1);
    exact.reset(&2);
    assert_eq!(exact.check_n(&2, 2), Ok(()));
}
