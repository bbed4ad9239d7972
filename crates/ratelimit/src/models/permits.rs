//! Permits: those that come back against those who wait, give up, or raise the limit.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use loom::thread;

use super::{block_on, fails_without};
use crate::sync::Mutant;
use crate::{ConcurrencyLimit, Permit};

fn acquire(limit: &ConcurrencyLimit) -> Permit<'_> {
    block_on(limit.acquire()).unwrap()
}

fn limit() -> ConcurrencyLimit {
    ConcurrencyLimit::builder().limit(1).build().unwrap()
}

fn at_rest(limit: &ConcurrencyLimit) {
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    drop(limit.try_acquire().expect("the permit is back"));
}

/// One waits for the permit that another gives back.
fn wait() {
    let limit = limit();
    let other = limit.clone();
    let thread = thread::spawn(move || drop(acquire(&other)));
    if let Ok(permit) = limit.try_acquire() {
        drop(permit);
    }
    thread.join().unwrap();
    at_rest(&limit);
}

#[test]
fn loom_a_permit_that_comes_back_is_never_overlooked() {
    loom::model(wait);
}

#[test]
fn loom_control_who_waits_must_say_so_before_the_last_look() {
    fails_without(Mutant::LookWithoutMark, wait);
}

/// One gives up in the moment in which the permit is handed to it; a third waits behind.
fn give_up() {
    let limit = limit();
    let held = limit.try_acquire().unwrap().into_owned();
    let other = limit.clone();
    let gives_up = thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        let mut acquire = pin!(other.acquire());
        let _either = acquire.as_mut().poll(&mut context);
    });
    let other = limit.clone();
    let waits = thread::spawn(move || drop(acquire(&other)));
    drop(held);
    gives_up.join().unwrap();
    waits.join().unwrap();
    at_rest(&limit);
}

#[test]
fn loom_a_permit_handed_to_one_who_gives_up_goes_on() {
    loom::model(give_up);
}

/// The limit is raised while one waits.
fn raise() {
    let limit = limit();
    let held = limit.try_acquire().unwrap().into_owned();
    let other = limit.clone();
    let waits = thread::spawn(move || drop(acquire(&other)));
    limit.set_limit(2).unwrap();
    waits.join().unwrap();
    drop(held);
    at_rest(&limit);
}

#[test]
fn loom_a_higher_limit_lets_in_who_waits() {
    loom::model(raise);
}

/// All permits are waited for while one comes back.
fn drain() {
    let limit = limit();
    let held = limit.try_acquire().unwrap().into_owned();
    let thread = thread::spawn(move || drop(held));
    block_on(crate::drain::Idle::new(&limit));
    thread.join().unwrap();
    at_rest(&limit);
}

#[test]
fn loom_the_last_permit_ends_a_drain() {
    loom::model(drain);
}
