//! Batches by key, driven from plain threads: no runtime, no async code.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    Deadline, Gather, Health, KeyedBatcher, KeyedBatcherBuilder, KeyedFlush, KeyedSubmit,
    KeyedSubmitOwned, KeyedTicket, Overload, Priority, SubmitError, TrySubmitError,
};
use overdrive_core::clock::ManualClock;

/// Longer than any test takes that does not hang.
const LONG: Duration = Duration::from_secs(20);

/// Runs a test that must not hang.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (tell, ended) = channel();
    let thread = thread::spawn(move || {
        test();
        let _heard = tell.send(());
    });
    match ended.recv_timeout(LONG) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p)),
    }
}

/// Panics without the hook, which would print it.
fn quiet_panic(message: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

/// A handler that tells of each batch and waits to be let go.
struct Gate {
    started: Receiver<(u32, Vec<u64>)>,
    go: Sender<()>,
}

type Echoed = Result<Vec<u64>, Infallible>;

impl Gate {
    fn new() -> (Self, impl Fn(&u32, Vec<u64>) -> Echoed + Send + Sync) {
        let (tell, started) = channel();
        let (go, wait) = channel();
        let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
        let handler = move |key: &u32, items: Vec<u64>| {
            let _told = tell.lock().unwrap().send((*key, items.clone()));
            let _released = wait.lock().unwrap().recv();
            Ok(items)
        };
        (Self { started, go }, handler)
    }

    fn next(&self) -> (u32, Vec<u64>) {
        self.started.recv_timeout(LONG).unwrap()
    }
}

fn builder() -> KeyedBatcherBuilder<u32, u64> {
    KeyedBatcher::builder().workers(1).gather(Gather::Immediate)
}

fn echo(_: &u32, items: Vec<u64>) -> Echoed {
    Ok(items)
}

type Echo = KeyedBatcher<u32, u64, u64>;

#[test]
fn handles_are_shared_and_futures_travel() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<KeyedBatcher<String, Vec<u8>, String, std::fmt::Error>>();
    shared::<KeyedBatcherBuilder<String, u8>>();
    sent::<KeyedSubmit<'_, String, Vec<u8>, String, String>>();
    sent::<KeyedSubmitOwned<String, Vec<u8>, String, String>>();
    sent::<KeyedTicket<String, Vec<u8>, String, String>>();
    sent::<KeyedFlush<'_, String, Vec<u8>, String, String>>();
}

#[test]
fn each_submitter_gets_its_own_result_from_a_batch_of_its_key() {
    ends(|| {
        let batcher = KeyedBatcher::builder().max_size(3).build_sync(
            |key: &String, items: Vec<(String, u64)>| {
                assert!(items.iter().all(|(own, _)| own == key));
                Ok::<_, Infallible>(items.iter().map(|(own, n)| format!("{own}{n}")).collect())
            },
        );
        let batcher = batcher.unwrap();
        thread::scope(|scope| {
            for thread in 0..8 {
                let batcher = &batcher;
                scope.spawn(move || {
                    for n in 0..200 {
                        let key = format!("k{}-", (thread + n) % 5);
                        let result = batcher.submit_blocking(key.clone(), (key.clone(), n));
                        assert_eq!(result.unwrap(), format!("{key}{n}"));
                    }
                });
            }
        });
        let stats = batcher.stats();
        assert_eq!((stats.completed, stats.failed), (1_600, 0), "{stats:?}");
    });
}

#[derive(Default)]
struct Seen {
    running: usize,
    most: usize,
    by_key: HashMap<u32, (bool, Vec<u64>)>,
}

#[test]
fn a_keys_items_keep_their_order_one_batch_at_a_time() {
    const EACH: u64 = 500;
    ends(|| {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let inside = Arc::clone(&seen);
        let batcher = KeyedBatcher::builder()
            .workers(4)
            .max_size(7)
            .capacity(20)
            .max_idle_keys(1)
            .build_sync(move |key: &u32, items: Vec<u64>| {
                {
                    let mut seen = inside.lock().unwrap();
                    seen.running += 1;
                    seen.most = seen.most.max(seen.running);
                    let (busy, list) = seen.by_key.entry(*key).or_default();
                    assert!(!std::mem::replace(busy, true), "one batch at a time");
                    list.extend(&items);
                }
                thread::yield_now();
                let mut seen = inside.lock().unwrap();
                seen.running -= 1;
                seen.by_key.get_mut(key).unwrap().0 = false;
                Ok::<_, Infallible>(items)
            })
            .unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let batcher = &batcher;
                scope.spawn(move || {
                    for n in 0..EACH {
                        for key in [thread, thread + 4] {
                            let mut ticket = batcher.try_submit(key, n);
                            while let Err(TrySubmitError::Full(n)) = ticket {
                                thread::yield_now();
                                ticket = batcher.try_submit(key, n);
                            }
                            ticket.unwrap().detach();
                        }
                    }
                });
            }
        });
        let report = batcher.shutdown_blocking(Deadline::NEVER);
        assert!(report.is_complete(), "{report:?}");
        let seen = seen.lock().unwrap();
        assert!(seen.most <= 4, "{}", seen.most);
        assert_eq!(seen.by_key.len(), 8);
        let expected: Vec<_> = (0..EACH).collect();
        assert!(seen.by_key.values().all(|(_, list)| *list == expected));
        assert_eq!(batcher.stats().completed, 8 * EACH);
    });
}

#[test]
fn as_many_batches_run_as_there_are_workers_and_no_more() {
    ends(|| {
        let (tell, started) = channel();
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let running = AtomicUsize::new(0);
        let tell = Mutex::new(tell);
        let batcher = builder()
            .workers(3)
            .build_sync(move |key: &u32, items: Vec<u64>| {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                tell.lock().unwrap().send((*key, now)).unwrap();
                wait.lock().unwrap().recv().unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(items)
            })
            .unwrap();
        let tickets: Vec<_> = (0..9).map(|n| batcher.try_submit(n, 1).unwrap()).collect();
        // Three run before any is let go.
        let mut seen: Vec<_> = (0..3)
            .map(|_| started.recv_timeout(LONG).unwrap())
            .collect();
        assert_eq!(batcher.stats().running, 3);
        for _ in 0..9 {
            go.send(()).unwrap();
        }
        for ticket in tickets {
            assert_eq!(ticket.wait_blocking().unwrap(), 1);
        }
        seen.extend(started.try_iter());
        assert_eq!(seen.len(), 9);
        assert_eq!(seen.iter().map(|(_, now)| *now).max(), Some(3));
    });
}

#[test]
fn a_key_may_have_several_batches_at_a_time() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().workers(3).per_key(2).max_size(1);
        let batcher = batcher.build_sync(handler).unwrap();
        let tickets: Vec<_> = (0..3).map(|n| batcher.try_submit(7, n).unwrap()).collect();
        let mut first = [gate.next(), gate.next()];
        first.sort();
        assert_eq!(first, [(7, vec![0]), (7, vec![1])]);
        let stats = batcher.stats();
        assert_eq!((stats.running, stats.queued), (2, 1));
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        for (ticket, n) in tickets.into_iter().zip(0..) {
            assert_eq!(ticket.wait_blocking().unwrap(), n);
        }
    });
}

#[test]
fn keys_take_turns_and_none_starves() {
    ends(|| {
        let own: Arc<OnceLock<Echo>> = Arc::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (inside, inside_log) = (Arc::clone(&own), Arc::clone(&log));
        let (tell, over) = channel();
        let tell = Mutex::new(tell);
        let batcher = builder()
            .max_size(4)
            .build_sync(move |key: &u32, items: Vec<u64>| {
                let own = inside.get().unwrap();
                let mut log = inside_log.lock().unwrap();
                log.push(*key);
                if *key == 0 && log.len() < 100 {
                    // More of its own than a batch takes, before the other key's first.
                    for n in 0..5 {
                        own.try_submit(0, n).unwrap().detach();
                    }
                    own.try_submit(1, 1).unwrap().detach();
                } else if log.len() == 100 {
                    tell.lock().unwrap().send(()).unwrap();
                }
                Ok(items)
            });
        own.set(batcher.unwrap()).unwrap();
        own.get().unwrap().try_submit(0, 0).unwrap().detach();
        over.recv_timeout(LONG).unwrap();
        let log = log.lock().unwrap();
        let turns = (0..100).map(|turn| turn % 2);
        assert!(log.iter().copied().take(100).eq(turns), "{log:?}");
    });
}

#[test]
fn withdrawn_items_never_reach_the_handler() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().build_sync(handler).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        drop(batcher.submit(1, 0));
        assert_eq!(batcher.keys(), 0);
        let running = batcher.try_submit(1, 1).unwrap();
        assert_eq!(gate.next(), (1, vec![1]));
        let mut queued = Box::pin(batcher.submit(1, 2));
        assert!(queued.as_mut().poll(&mut cx).is_pending());
        let mut alone = Box::pin(batcher.submit_owned(2, 3));
        assert!(alone.as_mut().poll(&mut cx).is_pending());
        let kept = batcher.try_submit(1, 4).unwrap();
        let left = batcher.try_submit(3, 5).unwrap();
        assert_eq!(batcher.stats().queued, 4);
        drop((queued, alone, running));
        left.detach();
        assert_eq!(batcher.stats().cancelled, 2);
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        assert_eq!(kept.wait_blocking().unwrap(), 4);
        batcher.flush_blocking();
        let ran: Vec<_> = gate.started.try_iter().collect();
        assert!(ran == [(3, vec![5]), (1, vec![4])] || ran == [(1, vec![4]), (3, vec![5])]);
        let stats = batcher.stats();
        assert_eq!(
            (stats.completed, stats.cancelled, stats.submitted),
            (3, 2, 5)
        );
    });
}

#[test]
fn a_failing_batch_hurts_no_other() {
    ends(|| {
        let batcher =
            KeyedBatcher::builder()
                .workers(1)
                .build_sync(|key: &u32, items: Vec<u64>| match key {
                    0 => quiet_panic("a handler"),
                    1 => Ok(vec![0; items.len() + 1]),
                    2 => Err(std::fmt::Error),
                    _ => Ok(items),
                });
        let batcher = batcher.unwrap();
        for _ in 0..2 {
            let panicked = batcher.submit_blocking(0, 5);
            assert!(
                matches!(panicked, Err(SubmitError::Panicked(message)) if &*message == "a handler")
            );
            let wrong = batcher.submit_blocking(1, 5);
            assert!(matches!(
                wrong,
                Err(SubmitError::WrongResultCount {
                    expected: 1,
                    got: 2
                })
            ));
            assert!(matches!(
                batcher.submit_blocking(2, 5),
                Err(SubmitError::Batch(_))
            ));
            assert_eq!(batcher.submit_blocking(3, 5).unwrap(), 5);
        }
        let stats = batcher.stats();
        assert_eq!((stats.completed, stats.failed, stats.batches), (2, 6, 8));
    });
}

/// A key that counts how many of it there are.
struct Counted(u64, Arc<AtomicUsize>);

impl Counted {
    fn new(key: u64, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(key, Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Counted {}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

#[test]
fn a_flood_of_keys_leaves_few_behind() {
    ends(|| {
        let live = Arc::new(AtomicUsize::new(0));
        let batcher = KeyedBatcher::builder().workers(2).max_idle_keys(16);
        let batcher = batcher
            .build_sync(|_: &Counted, items: Vec<u64>| Ok::<_, Infallible>(items))
            .unwrap();
        for n in 0..10_000 {
            let key = Counted::new(n, &live);
            assert_eq!(batcher.submit_blocking(key, n).unwrap(), n);
            // Besides the idle ones, those that a worker is about to put to rest.
            assert!(batcher.keys() <= 16 + 2, "{}", batcher.keys());
            assert!(live.load(Ordering::SeqCst) <= 16 + 4);
        }
        assert_eq!(batcher.stats().completed, 10_000);
        assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
        assert_eq!(batcher.keys(), 0);
        assert_eq!(live.load(Ordering::SeqCst), 0);
        assert_eq!(batcher.stats().completed, 10_000);
    });
}

#[test]
fn a_key_too_many_is_refused_unless_another_is_idle() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().max_keys(2).build_sync(handler).unwrap();
        let first = batcher.try_submit(1, 1).unwrap();
        assert_eq!(gate.next().0, 1);
        let second = batcher.try_submit(2, 2).unwrap();
        assert_eq!(batcher.try_submit(3, 3).unwrap_err().into_inner(), 3);
        assert!(matches!(
            batcher.submit_blocking(3, 3),
            Err(SubmitError::Full(3))
        ));
        let third = batcher.try_submit(1, 4).unwrap();
        assert_eq!((batcher.keys(), batcher.max_keys()), (2, 2));
        assert_eq!(batcher.health(), Health::Degraded);
        for _ in 0..4 {
            gate.go.send(()).unwrap();
        }
        for ticket in [first, second, third] {
            ticket.wait_blocking().unwrap();
        }
        // The last worker puts the last key to rest after its results are out.
        let mut ticket = batcher.try_submit(3, 3);
        while ticket.is_err() {
            thread::yield_now();
            ticket = batcher.try_submit(3, 3);
        }
        assert_eq!(ticket.unwrap().wait_blocking().unwrap(), 3);
        assert_eq!(batcher.keys(), 2);
    });
}

#[test]
fn each_key_has_its_own_room() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().max_size(2).capacity(2).overload(Overload::Reject);
        let batcher = batcher.build_sync(handler).unwrap();
        let running = batcher.try_submit(1, 0).unwrap();
        gate.next();
        let full: Vec<_> = (1..3).map(|n| batcher.try_submit(1, n).unwrap()).collect();
        assert!(matches!(
            batcher.submit_blocking(1, 3),
            Err(SubmitError::Full(3))
        ));
        let other = batcher.try_submit(2, 4).unwrap();
        assert_eq!(batcher.health(), Health::Degraded);
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        for ticket in full.into_iter().chain([running, other]) {
            ticket.wait_blocking().unwrap();
        }
        assert_eq!(batcher.stats().rejected, 1);
    });
}

#[test]
fn heavy_items_make_smaller_batches_and_urgent_ones_go_first() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().max_weight(10, |&n| n as usize);
        let batcher = batcher.build_sync(handler).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(
            batcher.try_submit(1, 11),
            Err(TrySubmitError::TooHeavy(11))
        ));
        let blocker = batcher.try_submit(1, 1).unwrap();
        gate.next();
        let mut tickets: Vec<_> = [6, 5].map(|n| batcher.try_submit(1, n).unwrap()).into();
        tickets.push(blocker);
        let mut urgent = Box::pin(batcher.submit(1, 2).priority(Priority::High));
        assert!(urgent.as_mut().poll(&mut cx).is_pending());
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        for ticket in tickets {
            ticket.wait_blocking().unwrap();
        }
        assert_eq!(gate.next(), (1, vec![2, 6]));
        assert_eq!(gate.next(), (1, vec![5]));
        assert!(urgent.as_mut().poll(&mut cx).is_ready());
    });
}

#[test]
fn an_item_past_its_deadline_comes_back() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let clock = ManualClock::new();
        let batcher = builder().clock(clock.clone()).build_sync(handler).unwrap();
        let blocker = batcher.try_submit(1, 0).unwrap();
        gate.next();
        let soon = Deadline::after_on(&clock, Duration::from_secs(1));
        let mut cx = Context::from_waker(Waker::noop());
        let mut polled = Box::pin(batcher.submit(1, 1).deadline(soon));
        let mut left = Box::pin(batcher.submit_owned(2, 2).deadline(soon));
        assert!(polled.as_mut().poll(&mut cx).is_pending());
        assert!(left.as_mut().poll(&mut cx).is_pending());
        clock.advance(Duration::from_secs(1));
        let late = batcher.submit(3, 3).deadline(soon).wait_blocking();
        assert!(matches!(late, Err(SubmitError::DeadlineExceeded(3))));
        let polled = polled.as_mut().poll(&mut cx);
        assert!(matches!(
            polled,
            std::task::Poll::Ready(Err(SubmitError::DeadlineExceeded(1)))
        ));
        gate.go.send(()).unwrap();
        blocker.wait_blocking().unwrap();
        batcher.flush_blocking();
        let left = left.as_mut().poll(&mut cx);
        assert!(matches!(
            left,
            std::task::Poll::Ready(Err(SubmitError::DeadlineExceeded(2)))
        ));
        assert_eq!(batcher.stats().expired, 3);
        assert!(gate.started.try_recv().is_err());
    });
}

#[test]
fn closed_it_runs_what_it_has_and_takes_no_more() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().build_sync(handler).unwrap();
        let tickets: Vec<_> = (0..4).map(|n| batcher.try_submit(n, 9).unwrap()).collect();
        gate.next();
        batcher.close();
        batcher.close();
        assert!(batcher.is_closed());
        assert_eq!(batcher.health(), Health::Unhealthy);
        assert!(matches!(
            batcher.submit_blocking(0, 1),
            Err(SubmitError::Closed(1))
        ));
        assert!(matches!(
            batcher.try_submit(77, 1),
            Err(TrySubmitError::Closed(1))
        ));
        for _ in 0..4 {
            gate.go.send(()).unwrap();
        }
        let report = batcher.shutdown_blocking(Deadline::NEVER);
        assert!(report.is_complete());
        for ticket in tickets {
            assert_eq!(ticket.wait_blocking().unwrap(), 9);
        }
        let stats = batcher.stats();
        assert_eq!(
            (stats.completed, stats.rejected, stats.submitted),
            (4, 2, 6)
        );
        assert_eq!(batcher.keys(), 0);
    });
}

#[test]
fn a_drain_that_comes_to_its_deadline_abandons_the_rest() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().build_sync(handler).unwrap();
        let running = batcher.try_submit(1, 1).unwrap();
        gate.next();
        let queued = [2, 3].map(|key| batcher.try_submit(key, key.into()).unwrap());
        let report = batcher.drain_blocking(Duration::ZERO);
        assert_eq!((report.finished, report.abandoned), (0, 3));
        assert!(matches!(
            running.wait_blocking(),
            Err(SubmitError::Abandoned(None))
        ));
        for (ticket, n) in queued.into_iter().zip(2..) {
            let outcome = ticket.wait_blocking();
            assert!(matches!(outcome, Err(SubmitError::Abandoned(Some(item))) if item == n));
        }
        gate.go.send(()).unwrap();
        assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
        let stats = batcher.stats();
        assert_eq!((stats.abandoned, stats.submitted, stats.running), (3, 3, 0));
        assert_eq!(batcher.keys(), 0);
    });
}

#[test]
fn without_handles_what_was_accepted_still_runs() {
    ends(|| {
        let (gate, handler) = Gate::new();
        let batcher = builder().build_sync(handler).unwrap();
        let tickets: Vec<_> = (0..3).map(|n| batcher.try_submit(n, 9).unwrap()).collect();
        drop(batcher.clone());
        drop(batcher);
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        for ticket in tickets {
            assert_eq!(ticket.wait_blocking().unwrap(), 9);
        }
        // The handler goes with the last worker.
        let last = gate.started.iter().count();
        assert_eq!(last, 3);
    });
}

#[test]
fn a_handler_that_waits_for_its_own_batcher_panics_instead_of_hanging() {
    ends(|| {
        let own: Arc<OnceLock<Echo>> = Arc::default();
        let inside = Arc::clone(&own);
        let batcher = builder().build_sync(move |_: &u32, items: Vec<u64>| {
            inside.get().unwrap().submit_blocking(99, 1)?;
            Ok(items)
        });
        let batcher: KeyedBatcher<u32, u64, u64, SubmitError<u64, Infallible>> = batcher.unwrap();
        // Another batcher's thread may wait for this one.
        own.set(builder().build_sync(echo).unwrap()).unwrap();
        assert_eq!(batcher.submit_blocking(1, 7).unwrap(), 7);
        let own: Arc<OnceLock<Echo>> = Arc::default();
        let inside = Arc::clone(&own);
        let batcher = builder().build_sync(move |_: &u32, items: Vec<u64>| {
            let _never = inside.get().unwrap().submit_blocking(99, 1);
            Ok(items)
        });
        std::panic::set_hook(Box::new(|_| {}));
        own.set(batcher.unwrap()).unwrap();
        match own.get().unwrap().submit_blocking(1, 7) {
            Err(SubmitError::Panicked(message)) => assert_eq!(
                &*message,
                "a handler must not wait for its own batcher: the worker would wait for itself"
            ),
            other => panic!("{other:?}"),
        }
        drop(std::panic::take_hook());
    });
}

/// All keys of one hash; two that are told to panic when they meet do.
#[derive(Clone)]
struct Alike(u32);

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        if self.0 == 666 || other.0 == 666 {
            quiet_panic("no comparison");
        }
        self.0 == other.0
    }
}

impl Eq for Alike {}

impl Hash for Alike {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        if self.0 == 667 {
            quiet_panic("no hash");
        }
        hasher.write_u8(1);
    }
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    ends(|| {
        let batcher = KeyedBatcher::builder().workers(3).max_idle_keys(2);
        let batcher = batcher
            .build_sync(|key: &Alike, items: Vec<u32>| {
                Ok::<_, Infallible>(items.iter().map(|n| n * 10 + key.0).collect())
            })
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..300 {
                        let key = n % 6;
                        let result = batcher.submit_blocking(Alike(key), n);
                        assert_eq!(result.unwrap(), n * 10 + key);
                    }
                });
            }
        });
        assert_eq!(batcher.stats().completed, 1_200);
    });
}

#[test]
fn a_key_that_panics_costs_nobody_else_anything() {
    ends(|| {
        let batcher = KeyedBatcher::builder().workers(1);
        let batcher = batcher
            .build_sync(|_: &Alike, items: Vec<u32>| Ok::<_, Infallible>(items))
            .unwrap();
        assert_eq!(batcher.submit_blocking(Alike(1), 1).unwrap(), 1);
        for bad in [666, 667] {
            let submit = || drop(batcher.try_submit(Alike(bad), 2));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(submit)).is_err());
            assert_eq!(batcher.submit_blocking(Alike(1), 3).unwrap(), 3);
        }
        assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
        assert_eq!(batcher.stats().submitted, 3);
        assert_eq!(batcher.keys(), 0);
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |builder: KeyedBatcherBuilder<u32, u64>| {
        builder.build_sync(echo).unwrap_err().field().to_owned()
    };
    assert_eq!(refused(builder().workers(0)), "workers");
    assert_eq!(refused(builder().per_key(0)), "per_key");
    assert_eq!(refused(builder().per_key(2)), "per_key");
    assert_eq!(refused(builder().max_keys(0)), "max_keys");
    assert_eq!(refused(builder().max_keys(usize::MAX)), "max_keys");
    assert_eq!(
        refused(builder().max_keys(5).max_idle_keys(6)),
        "max_idle_keys"
    );
    assert_eq!(refused(builder().max_size(0)), "max_size");
    assert_eq!(refused(builder().capacity(0)), "capacity");
    assert_eq!(refused(builder().max_weight(0, |_| 1)), "max_weight");
    assert_eq!(
        refused(builder().gather(Gather::Linger { min_size: 2 })),
        "gather"
    );
    assert_eq!(refused(builder().gather(Gather::Adaptive)), "gather");
    assert_eq!(refused(builder().gather(Gather::Announced)), "gather");
    let least = builder().max_keys(1).max_idle_keys(0).name("least");
    let least = least.build_sync(echo).unwrap();
    assert_eq!(
        (least.name(), least.max_size(), least.capacity()),
        ("least", 100, 6_400)
    );
    assert_eq!(least.submit_blocking(1, 2).unwrap(), 2);
    assert!(format!("{least:?}").contains("least"));
}
