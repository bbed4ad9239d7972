//! Who gets a permit, and who is turned away.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_core::{Clock, Timestamp};
use overdrive_ratelimit::{
    Acquire, AcquireError, ConcurrencyLimit, Deadline, Permit, Priority, Shedding,
};

fn poll<'l>(acquire: &mut Acquire<'l>) -> Poll<Result<Permit<'l>, AcquireError>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

fn limit(permits: usize) -> (ConcurrencyLimit, ManualClock) {
    let clock = ManualClock::new();
    let builder = ConcurrencyLimit::builder().limit(permits);
    (builder.clock(clock.clone()).build().unwrap(), clock)
}

#[test]
fn the_higher_priority_goes_first() {
    let (limit, _) = limit(1);
    let mut held = Some(limit.try_acquire().unwrap());
    let order = [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Normal,
    ];
    let mut waiting = order.map(|priority| limit.acquire().priority(priority));
    for acquire in &mut waiting {
        assert!(poll(acquire).is_pending());
    }
    for expected in [2, 1, 3, 0] {
        drop(held.take());
        for (i, acquire) in waiting.iter_mut().enumerate() {
            if i == expected {
                match poll(acquire) {
                    Poll::Ready(Ok(permit)) => held = Some(permit),
                    other => panic!("{i}: {other:?}"),
                }
                *acquire = limit.acquire();
            }
        }
    }
    assert_eq!(limit.stats().waiting, 0);
}

#[test]
fn a_permit_is_not_handed_to_one_whose_time_is_up() {
    let (limit, clock) = limit(1);
    let held = limit.try_acquire().unwrap();
    let by = |millis| Deadline::after_on(&clock, Duration::from_millis(millis));
    let mut late = limit.acquire().deadline(by(5));
    let mut in_time = limit.acquire().deadline(by(50));
    assert!(poll(&mut late).is_pending() && poll(&mut in_time).is_pending());
    clock.advance(Duration::from_millis(10));
    drop(held);
    assert_eq!(
        poll(&mut late).map(Result::err),
        Poll::Ready(Some(AcquireError::TimedOut))
    );
    let permit = poll(&mut in_time);
    assert!(matches!(permit, Poll::Ready(Ok(_))));
    // One that comes too late is refused at once, free or not.
    drop(permit);
    let mut passed = limit.acquire().deadline(by(0));
    assert_eq!(
        poll(&mut passed).map(Result::err),
        Poll::Ready(Some(AcquireError::TimedOut))
    );
    let stats = limit.stats();
    assert_eq!((stats.refused, stats.in_flight, stats.waiting), (2, 0, 0));
}

#[test]
fn a_standing_queue_is_shed_and_those_who_come_now_are_served() {
    let clock = ManualClock::new();
    let builder = ConcurrencyLimit::builder()
        .limit(1)
        .shed(Shedding::default());
    let limit = builder.clock(clock.clone()).build().unwrap();
    let mut held = limit.try_acquire().unwrap();
    let mut old: Vec<_> = (0..50).map(|_| limit.acquire()).collect();
    for acquire in &mut old {
        assert!(poll(acquire).is_pending());
    }
    clock.advance(Duration::from_millis(120));
    let mut new = limit.acquire();
    assert!(poll(&mut new).is_pending());
    clock.advance(Duration::from_millis(1));
    drop(held);
    for acquire in &mut old {
        assert_eq!(
            poll(acquire).map(Result::err),
            Poll::Ready(Some(AcquireError::Shed))
        );
    }
    held = match poll(&mut new) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("{other:?}"),
    };
    drop(held);
    let stats = limit.stats();
    assert_eq!((stats.shed, stats.acquired, stats.in_flight), (50, 2, 0));
}

#[test]
fn the_limit_can_be_changed_while_permits_are_out() {
    let (limit, _) = limit(3);
    let mut held: Vec<_> = (0..3).map(|_| limit.try_acquire().unwrap()).collect();
    limit.set_limit(1).unwrap();
    drop(held.pop());
    assert!(limit.try_acquire().is_err());
    let mut waits = limit.acquire();
    assert!(poll(&mut waits).is_pending());
    drop(held.pop());
    assert!(poll(&mut waits).is_pending());
    limit.set_limit(2).unwrap();
    let granted = poll(&mut waits);
    assert!(matches!(granted, Poll::Ready(Ok(_))));
    assert_eq!((limit.limit(), limit.in_flight()), (2, 2));
    assert_eq!(limit.set_limit(usize::MAX).unwrap_err().field(), "limit");
    assert_eq!(limit.set_limit(0), Ok(()));
    drop(granted);
    drop(held);
    assert!(limit.try_acquire().is_err());
}

#[test]
fn shedding_that_makes_no_sense_is_refused_by_name() {
    let build = |target, interval| {
        let (target, interval) = (
            Duration::from_millis(target),
            Duration::from_millis(interval),
        );
        let builder = ConcurrencyLimit::builder().limit(1);
        let built = builder.shed(Shedding::new(target, interval)).build();
        built.map(drop).map_err(|error| error.field())
    };
    assert_eq!(build(5, 100), Ok(()));
    assert_eq!(
        (build(0, 100), build(101, 100)),
        (Err("target"), Err("target"))
    );
}

#[test]
fn permits_are_neither_lost_nor_doubled_by_many_threads() {
    let (limit, _) = limit(3);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let limit = &limit;
            scope.spawn(move || {
                for i in 0..2_000 {
                    match (thread + i) % 4 {
                        0 => drop(limit.acquire_blocking().unwrap()),
                        1 => drop(limit.try_acquire()),
                        2 => drop(poll(&mut limit.acquire())),
                        _ => {
                            let mut given_up = limit.acquire();
                            let _either = poll(&mut given_up);
                        }
                    }
                    assert!(limit.in_flight() <= 3);
                }
            });
        }
    });
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    assert_eq!(stats.acquired, stats.released);
    assert_eq!(
        stats.acquired + stats.refused + stats.abandoned_waits,
        12_000
    );
}

#[test]
fn many_that_give_up_leave_the_others_in_order() {
    let (limit, _clock) = limit(1);
    let held = limit.try_acquire().unwrap();
    let mut waits: Vec<_> = (0..40_000).map(|_| Some(limit.acquire())).collect();
    for wait in waits.iter_mut().flatten() {
        assert!(poll(wait).is_pending());
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut order: Vec<_> = (0..waits.len()).collect();
    random.shuffle(&mut order);
    let (stay, go) = order.split_at_mut(100);
    for at in go {
        waits[*at] = None;
    }
    stay.sort_unstable();
    let mut permit = Some(held);
    for at in stay {
        drop(permit.take());
        let Poll::Ready(Ok(next)) = poll(waits[*at].as_mut().unwrap()) else {
            panic!("the next is {at}");
        };
        permit = Some(next);
    }
    assert_eq!(limit.stats().abandoned_waits, 39_900);
}

#[test]
fn a_keys_thousand_do_not_keep_another_key_waiting() {
    let (limit, _clock) = limit(1);
    let held = limit.try_acquire().unwrap();
    let mut many: Vec<_> = (0..1_000).map(|_| limit.acquire().share("many")).collect();
    assert!(many.iter_mut().all(|wait| poll(wait).is_pending()));
    let mut few: Vec<_> = (0..3).map(|_| limit.acquire().share(&7_u32)).collect();
    assert!(few.iter_mut().all(|wait| poll(wait).is_pending()));
    drop(held);
    for (one, other) in many.iter_mut().zip(&mut few) {
        let Poll::Ready(Ok(permit)) = poll(one) else {
            panic!("one of the thousand");
        };
        assert!(poll(other).is_pending());
        drop(permit);
        let Poll::Ready(Ok(permit)) = poll(other) else {
            panic!("and one of the few");
        };
        drop(permit);
    }
    // The next has been handed its permit.
    assert_eq!(limit.stats().waiting, 996);
}

/// The clock of a user that asks the limit something.
#[test]
fn a_clock_that_asks_the_limiter_does_not_hang() {
    #[derive(Debug)]
    struct Asks(Mutex<Option<ConcurrencyLimit>>);
    impl Clock for Asks {
        fn now(&self) -> Timestamp {
            let limit = self.0.lock().unwrap().clone();
            if let Some(limit) = limit {
                let _ = limit.stats();
            }
            Timestamp::ZERO
        }
    }
    let clock = Arc::new(Asks(Mutex::new(None)));
    let limit = ConcurrencyLimit::builder()
        .limit(1)
        .shed(Shedding::default())
        .clock(Arc::clone(&clock))
        .build()
        .unwrap();
    let permit = limit.try_acquire().unwrap().into_owned();
    let other = limit.clone();
    let (joined, has_joined) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    *clock.0.lock().unwrap() = Some(limit);
    let handing_out = std::thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        let mut wait = Box::pin(other.acquire());
        let _ = wait.as_mut().poll(&mut context);
        joined.send(()).unwrap();
        drop(permit); // hands out: reads the clock under the lock
        done.send(()).unwrap();
    });
    has_joined.recv_timeout(Duration::from_secs(3)).unwrap();
    assert!(
        is_done.recv_timeout(Duration::from_secs(3)).is_ok(),
        "a deadlock: the clock is read under the lock"
    );
    handing_out.join().unwrap();
    // It holds the limit, which holds it.
    let limit = clock.0.lock().unwrap().take();
    drop(limit);
}

/// With a low in line, and a high, those between are passed for ever.
#[test]
fn nobody_waits_for_ever() {
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let mut permit = Some(limit.try_acquire().unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let mut normal = pin!(limit.acquire());
    assert!(normal.as_mut().poll(&mut context).is_pending());
    let mut others: Vec<(Priority, Pin<Box<Acquire<'_>>>)> = Vec::new();
    // Four of each, always: who is served comes again.
    let mut next: Vec<_> = [Priority::High, Priority::Low].repeat(4);
    let mut low = 0;
    for _ in 0..10_000 {
        for priority in next.drain(..) {
            let mut other = Box::pin(limit.acquire().priority(priority));
            assert!(other.as_mut().poll(&mut context).is_pending());
            others.push((priority, other));
        }
        drop(permit.take());
        if normal.as_mut().poll(&mut context).is_ready() {
            return;
        }
        let at = others
            .iter_mut()
            .position(|(_, other)| match other.as_mut().poll(&mut context) {
                Poll::Ready(got) => {
                    permit = Some(got.unwrap());
                    true
                }
                Poll::Pending => false,
            })
            .expect("somebody got it");
        let (priority, _) = others.remove(at);
        low += usize::from(priority == Priority::Low);
        next.push(priority);
    }
    panic!("10,000 permits went past one of normal priority, {low} of them to low ones");
}
