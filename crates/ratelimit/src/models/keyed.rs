//! The table of keys, with two slots in which all keys may lie: who puts a key in, charges it, and
//! takes its slot when it owes nothing. And a third part of one slot, for whom these are taken.

use std::time::Duration;

use loom::thread;
use overdrive_core::clock::ManualClock;

use super::{bounded, fails_without};
use crate::sync::Mutant;
use crate::{Carry, KeyedLimiter, OnFull, Quota};

type Limiter = KeyedLimiter<u64, Plain, ManualClock>;

/// The key is its hash.
#[derive(Clone, Copy, Debug)]
struct Plain;

#[derive(Default)]
struct PlainHasher(u64);

impl std::hash::Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

impl std::hash::BuildHasher for Plain {
    type Hasher = PlainHasher;
    fn build_hasher(&self) -> PlainHasher {
        PlainHasher::default()
    }
}

fn limiter(burst: u64, clock: &ManualClock) -> Limiter {
    limiter_of(2, burst, clock)
}

fn limiter_of(slots: usize, burst: u64, clock: &ManualClock) -> Limiter {
    let quota = Quota::per_hour(2).burst(burst);
    let builder = KeyedLimiter::builder().quota(quota).capacity(slots);
    let builder = builder.on_full(OnFull::Deny).hasher(Plain);
    builder.clock(clock.clone()).build().unwrap()
}

/// Two put the same key in, which has one token.
fn enter() {
    let limiter = limiter(1, &ManualClock::new());
    let other = limiter.clone();
    let thread = thread::spawn(move || other.check(&5).is_ok());
    let mine = limiter.check(&5).is_ok();
    let its = thread.join().unwrap();
    assert!(mine != its, "one token, in one slot");
    assert_eq!(limiter.stats().keys, 1);
}

#[test]
fn loom_a_key_is_put_in_once() {
    loom::model(enter);
}

#[test]
fn loom_control_a_key_is_put_in_under_the_lock_of_its_stripe() {
    fails_without(Mutant::EnterUnlocked, enter);
}

/// Two charge key 5, which has one full burst, while a third tries to take its idle slot for a key of
/// the same bucket and another stripe, and another idle slot is there.
fn restore() {
    let clock = ManualClock::new();
    let limiter = limiter(2, &clock);
    limiter.check_n(&5, 1).unwrap();
    limiter.check_n(&77, 2).unwrap();
    clock.advance(Duration::from_secs(2 * 3600));
    let (other, third) = (limiter.clone(), limiter.clone());
    let claims = thread::spawn(move || {
        let _any = third.check(&28);
    });
    let thread = thread::spawn(move || other.check_n(&5, 2).is_ok());
    let mine = limiter.check_n(&5, 2).is_ok();
    let its = thread.join().unwrap();
    claims.join().unwrap();
    assert!(!(mine && its), "two bursts of one key at one moment");
}

#[test]
fn loom_a_slot_that_is_given_back_is_not_doubled() {
    loom::model(restore);
}

#[test]
fn loom_control_who_enters_waits_for_slots_that_change_hands() {
    fails_without(Mutant::PassTheBusy, restore);
}

/// A quota becomes another while somebody takes a token, which is there by either.
fn change() {
    let limiter = limiter(2, &ManualClock::new());
    limiter.check(&5).unwrap();
    let other = limiter.clone();
    let thread = thread::spawn(move || other.check(&5).is_ok());
    let quota = Quota::per_hour(1).burst(1);
    limiter.set_quota(quota, Carry::Reset).unwrap();
    assert!(thread.join().unwrap());
    let _last = limiter.check(&5);
    assert_eq!(limiter.snapshot(&5).remaining, 0);
    let wait = limiter.check(&5).unwrap_err().retry_after.as_secs();
    assert_eq!(wait, 3600);
}

#[test]
fn loom_a_change_of_quota_holds_for_all_keys() {
    loom::model(change);
}

#[test]
fn loom_control_a_charge_must_look_at_the_version() {
    fails_without(Mutant::TrustTheQuota, change);
}

/// One comes back to its slot, after it owed nothing, while another takes it.
fn claim() {
    let clock = ManualClock::new();
    let limiter = limiter(2, &clock);
    limiter.check_n(&5, 2).unwrap();
    clock.advance(Duration::from_secs(3600));
    // Takes the other slot, for good.
    limiter.check_n(&6, 2).unwrap();
    assert_eq!(limiter.stats().keys, 1);
    let other = limiter.clone();
    let thread = thread::spawn(move || other.check(&7).is_ok());
    let mine = limiter.check(&5).is_ok();
    let its = thread.join().unwrap();
    assert!(mine != its, "one slot");
    let (owner, loser) = if mine { (5, 7) } else { (7, 5) };
    assert_eq!(limiter.snapshot(&owner).remaining, 1);
    assert_eq!(limiter.snapshot(&loser).remaining, 2);
    assert_eq!(limiter.snapshot(&6).remaining, 0);
}

#[test]
fn loom_a_slot_has_one_owner() {
    loom::model(claim);
}

#[test]
fn loom_control_a_charge_must_look_at_the_tag_again() {
    fails_without(Mutant::TrustTheTag, claim);
}

/// Two slots that are taken, and key 5 in the third part, with one token.
fn spilled() -> Limiter {
    let limiter = limiter_of(3, 2, &ManualClock::new());
    for (key, n) in [(77, 2), (6, 2), (5, 1)] {
        limiter.check_n(&key, n).unwrap();
    }
    limiter
}

/// A place becomes free in the parts that are looked at first, while two charge a key in the third.
fn spill() {
    let limiter = spilled();
    let (other, third) = (limiter.clone(), limiter.clone());
    let frees = thread::spawn(move || assert!(third.reset(&77)));
    let thread = thread::spawn(move || other.check(&5).is_ok());
    let mine = limiter.check(&5).is_ok();
    let its = thread.join().unwrap();
    frees.join().unwrap();
    assert!(mine != its, "one token, in one slot");
    assert_eq!(limiter.snapshot(&5).remaining, 0);
    assert_eq!(limiter.stats().keys, 2);
}

#[test]
fn loom_a_key_of_the_third_part_has_no_second_place() {
    loom::model(spill);
}

#[test]
fn loom_control_who_enters_looks_in_the_third_part() {
    fails_without(Mutant::SeekInTwo, spill);
}

/// Key 5 in the third part owes nothing, and another key takes its slot, as the others are taken. It
/// comes back meanwhile, twice, and one of the others becomes free.
fn respill() {
    let limiter = spilled();
    assert!(limiter.reset(&5));
    let (one, two, three) = (limiter.clone(), limiter.clone(), limiter.clone());
    let claims = thread::spawn(move || {
        let _any = one.check(&28);
    });
    let thread = thread::spawn(move || two.check_n(&5, 2).is_ok());
    let other = thread::spawn(move || {
        let _owed = three.reset(&77);
        three.check_n(&5, 2).is_ok()
    });
    claims.join().unwrap();
    let both = thread.join().unwrap() && other.join().unwrap();
    assert!(!both, "two bursts of one key at one moment");
}

#[test]
fn loom_a_slot_of_the_third_part_that_is_given_back_is_not_doubled() {
    bounded(3, respill);
}

#[test]
fn loom_control_who_enters_waits_for_a_slot_of_the_third_part() {
    fails_without(Mutant::PassTheBusy, respill);
}
