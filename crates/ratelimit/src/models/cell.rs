//! The cell of a rate limiter: charges against each other, against a holder of the lock, and against
//! a change of quota. The clock stands still, so what may be given out is known exactly.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;
use overdrive_core::clock::ManualClock;

use super::{bounded, fails_without};
use crate::sync::{Mutant, Ordering};
use crate::{Carry, Quota, RateLimiter};

type Limiter = RateLimiter<ManualClock>;

fn limiter(quota: Quota) -> Limiter {
    let builder = RateLimiter::builder().quota(quota);
    builder.clock(ManualClock::new()).build().unwrap()
}

/// Three take from two tokens.
fn charges() {
    let limiter = limiter(Quota::per_hour(2));
    let given = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (limiter, given) = (limiter.clone(), Arc::clone(&given));
            thread::spawn(move || {
                if limiter.check().is_ok() {
                    given.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    if limiter.check().is_ok() {
        given.fetch_add(1, Ordering::Relaxed);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(given.load(Ordering::Relaxed), 2);
    assert_eq!(limiter.snapshot().remaining, 0);
}

#[test]
fn loom_no_token_is_given_out_twice() {
    loom::model(charges);
}

#[test]
fn loom_control_charges_must_compare() {
    fails_without(Mutant::StoreBlindly, charges);
}

/// One gives back while another takes.
fn refund() {
    let limiter = limiter(Quota::per_hour(2));
    limiter.check_n(2).unwrap();
    let other = limiter.clone();
    let thread = thread::spawn(move || other.refund(1));
    let early = limiter.check().is_ok();
    thread.join().unwrap();
    let late = limiter.check().is_ok();
    assert!(early != late, "one token came back, and one was taken");
    assert!(limiter.check().is_err());
}

#[test]
fn loom_a_refund_is_neither_lost_nor_doubled() {
    loom::model(refund);
}

/// One is denied, and remembers it, while a token comes back.
fn denial() {
    let limiter = limiter(Quota::per_hour(1));
    limiter.check().unwrap();
    let other = limiter.clone();
    let thread = thread::spawn(move || other.check().is_ok());
    limiter.refund(1);
    let mine = limiter.check().is_ok();
    let its = thread.join().unwrap();
    assert!(mine != its, "the token that came back is there");
    assert!(limiter.check().is_err());
}

#[test]
fn loom_a_denial_is_not_remembered_past_a_refund() {
    loom::model(denial);
}

#[test]
fn loom_control_a_denial_must_be_forgotten() {
    fails_without(Mutant::KeepTheDenial, denial);
}

/// A quota of two tokens becomes one of a single, dearer token, while another takes one: of the old
/// quota or of the new one, at that quota's price.
fn change() {
    let limiter = limiter(Quota::per_hour(4).burst(2));
    let other = limiter.clone();
    let thread = thread::spawn(move || other.check().is_ok());
    let quota = Quota::per_hour(1).burst(1);
    limiter.set_quota(quota, Carry::Reset).unwrap();
    // After the change one token is there, for one of the two.
    let mine = limiter.check().is_ok();
    let its = thread.join().unwrap();
    assert!(mine || its);
    assert_eq!(limiter.snapshot().remaining, 0);
    // What is owed now is earned in an hour, not in a quarter of one.
    let wait = limiter.check().unwrap_err().retry_after.as_secs();
    assert_eq!(wait, 3600);
}

#[test]
fn loom_a_change_of_quota_is_seen_whole() {
    // Each word of the quota can be switched at.
    bounded(2, change);
}

#[test]
fn loom_control_a_check_must_look_at_the_version() {
    fails_without(Mutant::TrustTheQuota, change);
}

#[test]
fn loom_control_arrival_times_must_not_repeat() {
    fails_without(Mutant::RepeatArrivals, change);
}

/// Two threads with leases of one, of a limiter that has four tokens beside.
fn leases() {
    let quota = Quota::per_hour(4);
    let builder = RateLimiter::builder()
        .quota(quota)
        .clock(ManualClock::new());
    let leased = builder.leased(1).threads(2).build().unwrap();
    let given = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (1..=2)
        .map(|id| {
            let (leased, given) = (leased.clone(), Arc::clone(&given));
            thread::spawn(move || {
                for _ in 0..2 {
                    if leased.check_as(id).is_ok() {
                        given.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let given = given.load(Ordering::Relaxed);
    assert_eq!(given, 2, "the burst of four, less what two may hold");
    assert_eq!(leased.stats().tokens, given);
}

#[test]
fn loom_leases_stay_within_the_bound() {
    loom::model(leases);
}

#[test]
fn loom_control_leases_come_from_the_cell() {
    fails_without(Mutant::StoreBlindly, leases);
}
