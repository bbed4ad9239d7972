//! Panics, wrong results, errors: each hurts its own batch and nobody else.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use overdrive_batch::{Batcher, Clock, Deadline, Gather, SubmitError};
use overdrive_core::Timestamp;

/// Panics without the hook, which would print it.
fn quiet_panic(message: impl Send + 'static) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

#[test]
fn a_panic_fails_its_batch_and_the_worker_lives_on() {
    let batcher = Batcher::builder()
        .workers(1)
        .build_sync(|items: Vec<u8>| match items[0] {
            0 => quiet_panic("a plain text"),
            1 => quiet_panic(String::from("a text made up")),
            2 => quiet_panic(2_u8),
            _ => Ok::<_, Infallible>(items),
        });
    let batcher = batcher.unwrap();
    for (item, expected) in [
        (0, "a plain text"),
        (1, "a text made up"),
        (2, "a payload that is not text"),
    ] {
        match batcher.submit_blocking(item) {
            Err(SubmitError::Panicked(message)) => assert_eq!(&*message, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(batcher.submit_blocking(3).unwrap(), 3);
    assert_eq!(batcher.stats().failed, 3);
}

#[test]
fn a_wrong_number_of_results_is_given_to_nobody() {
    let batcher = Batcher::builder()
        .workers(1)
        .build_sync(|items: Vec<usize>| {
            let wanted = items.iter().sum();
            Ok::<_, Infallible>(vec![(); wanted])
        });
    let batcher = batcher.unwrap();
    for got in [0, 2, 100] {
        match batcher.submit_blocking(got) {
            Err(SubmitError::WrongResultCount {
                expected,
                got: seen,
            }) => {
                assert_eq!((expected, seen), (1, got));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(batcher.submit_blocking(1).is_ok());
}

#[test]
fn an_error_is_shared_by_its_batch() {
    let builder = Batcher::builder().gather(Gather::Linger { min_size: 3 });
    let failing = builder.build_sync(|_: Vec<u8>| Err::<Vec<()>, _>(std::fmt::Error));
    let results = failing.unwrap().submit_all([1, 2, 3]).wait_blocking();
    assert_eq!(results.len(), 3);
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, SubmitError::Batch(_)), "{error:?}");
        assert!(error.source().unwrap().is::<std::fmt::Error>());
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            quiet_panic("a destructor");
        }
    }
}

#[test]
fn destructors_of_results_without_takers_do_no_harm() {
    let (tell, started) = channel();
    let (go, wait) = channel::<()>();
    let gate = Mutex::new((tell, wait));
    let builder = Batcher::builder().workers(1).gather(Gather::Immediate);
    let batcher = builder.build_sync(move |items: Vec<bool>| {
        let gate = gate.lock().unwrap();
        gate.0.send(()).unwrap();
        gate.1.recv().unwrap();
        let bombs: Vec<_> = items.iter().map(|&armed| armed.then(|| Bomb)).collect();
        Ok::<_, Infallible>(bombs)
    });
    let batcher = batcher.unwrap();
    let blocker = batcher.try_submit(false).unwrap();
    started.recv().unwrap();
    let armed: Vec<_> = (0..3).map(|_| batcher.try_submit(true).unwrap()).collect();
    let kept = batcher.try_submit(false).unwrap();
    go.send(()).unwrap();
    started.recv().unwrap();
    drop(armed);
    go.send(()).unwrap();
    assert!(kept.wait_blocking().unwrap().is_none());
    assert!(blocker.wait_blocking().unwrap().is_none());
    go.send(()).unwrap();
    assert!(batcher.submit_blocking(false).unwrap().is_none());
}

/// Panics when it is dropped, even while another panic unwinds, which would end the process.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        quiet_panic("went off");
    }
}

#[test]
fn results_that_belong_to_nobody_are_dropped_one_by_one() {
    let batcher = Batcher::builder()
        .workers(1)
        .build_sync(|_: Vec<u8>| Ok::<_, Infallible>(vec![Mine, Mine]));
    let batcher = batcher.unwrap();
    for _ in 0..2 {
        let wrong = batcher.submit_blocking(1);
        assert!(matches!(wrong, Err(SubmitError::WrongResultCount { .. })));
    }
    assert_eq!(batcher.stats().failed, 2);
}

#[test]
fn results_of_an_abandoned_batch_are_dropped_one_by_one() {
    let (tell, started) = channel();
    let (go, wait) = channel::<()>();
    let gate = Mutex::new((tell, wait));
    let builder = Batcher::builder()
        .workers(1)
        .gather(Gather::Linger { min_size: 2 });
    let batcher = builder.build_sync(move |items: Vec<u8>| {
        let gate = gate.lock().unwrap();
        gate.0.send(()).unwrap();
        gate.1.recv().unwrap();
        Ok::<_, Infallible>(items.iter().map(|_| Mine).collect())
    });
    let batcher = batcher.unwrap();
    let both = [1, 2].map(|item| batcher.try_submit(item).unwrap());
    started.recv().unwrap();
    let report = batcher.drain_blocking(std::time::Duration::ZERO);
    assert_eq!(report.abandoned, 2);
    go.send(()).unwrap();
    assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
    for ticket in both {
        let outcome = ticket.wait_blocking();
        assert!(matches!(outcome, Err(SubmitError::Abandoned(None))));
    }
}

#[test]
fn destructors_of_abandoned_items_do_no_harm() {
    let (tell, started) = channel();
    let (go, wait) = channel::<()>();
    let gate = Mutex::new((tell, wait));
    let builder = Batcher::builder().workers(1).gather(Gather::Immediate);
    let batcher = builder.build_sync(move |items: Vec<Option<Bomb>>| {
        let gate = gate.lock().unwrap();
        gate.0.send(()).unwrap();
        let _let_go = gate.1.recv();
        Ok::<_, Infallible>(vec![(); items.len()])
    });
    let batcher = batcher.unwrap();
    let running = batcher.try_submit(None).unwrap();
    started.recv().unwrap();
    for _ in 0..3 {
        batcher.try_submit(Some(Bomb)).unwrap().detach();
    }
    let kept = batcher.try_submit(None).unwrap();
    assert_eq!(
        batcher.drain_blocking(std::time::Duration::ZERO).abandoned,
        5
    );
    assert!(matches!(
        kept.wait_blocking(),
        Err(SubmitError::Abandoned(Some(None)))
    ));
    assert!(matches!(
        running.wait_blocking(),
        Err(SubmitError::Abandoned(None))
    ));
    drop(go);
    assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
}

/// A waker that panics once it has told that it was called.
struct Unruly(AtomicBool);

impl Wake for Unruly {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        quiet_panic("a waker");
    }
}

#[test]
fn a_panicking_waker_keeps_no_result_from_others() {
    let builder = Batcher::builder()
        .workers(1)
        .gather(Gather::Linger { min_size: 3 });
    let batcher = builder
        .build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items))
        .unwrap();
    let unruly = Arc::new(Unruly(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&unruly));
    let mut cx = Context::from_waker(&waker);
    let mut first = Box::pin(batcher.submit(1));
    assert!(first.as_mut().poll(&mut cx).is_pending());
    let results = batcher.submit_all([2, 3]).wait_blocking();
    assert!(results.iter().all(Result::is_ok));
    assert!(unruly.0.load(Ordering::SeqCst));
    assert!(first.as_mut().poll(&mut cx).is_ready());
    assert_eq!(batcher.submit_all([4, 5, 6]).wait_blocking().len(), 3);
}

#[test]
fn a_handler_that_waits_for_its_own_batcher_panics_instead_of_hanging() {
    type Slot = Arc<Mutex<Option<Batcher<u8, u8>>>>;
    let slot = Slot::default();
    let inside = Arc::clone(&slot);
    let batcher = Batcher::builder()
        .workers(1)
        .build_sync(move |items: Vec<u8>| {
            let own = inside.lock().unwrap().take().unwrap();
            let waits = || own.submit_blocking(1);
            std::panic::set_hook(Box::new(|_| {}));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(waits)).is_err());
            Ok::<_, Infallible>(items)
        });
    let batcher = batcher.unwrap();
    *slot.lock().unwrap() = Some(batcher.clone());
    assert_eq!(batcher.submit_blocking(7).unwrap(), 7);
    drop(std::panic::take_hook());
}

#[test]
fn the_last_handle_may_go_inside_the_handler() {
    type Slot = Arc<Mutex<Option<Batcher<u8, u8>>>>;
    let slot = Slot::default();
    let inside = Arc::clone(&slot);
    let batcher = Batcher::builder()
        .workers(1)
        .build_sync(move |items: Vec<u8>| {
            drop(inside.lock().unwrap().take());
            Ok::<_, Infallible>(items)
        });
    let batcher = batcher.unwrap();
    let ticket = {
        let mut slot = slot.lock().unwrap();
        let ticket = batcher.try_submit(7).unwrap();
        *slot = Some(batcher);
        ticket
    };
    assert_eq!(ticket.wait_blocking().unwrap(), 7);
}

#[test]
fn a_clock_that_panics_ends_no_worker() {
    #[derive(Debug)]
    struct Broken(Arc<AtomicBool>);
    impl Clock for Broken {
        fn now(&self) -> Timestamp {
            if self.0.load(Ordering::SeqCst) {
                quiet_panic("no time");
            }
            Timestamp::ZERO
        }
    }
    let broken = Arc::new(AtomicBool::new(false));
    let builder = Batcher::builder()
        .workers(1)
        .gather(Gather::Linger { min_size: 2 });
    let batcher = builder
        .clock(Broken(Arc::clone(&broken)))
        .build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items))
        .unwrap();
    let first = batcher.try_submit(1).unwrap();
    broken.store(true, Ordering::SeqCst);
    // It needs no time to see that it must not linger.
    batcher.flush_blocking();
    assert_eq!(first.wait_blocking().unwrap(), 1);
    broken.store(false, Ordering::SeqCst);
    let both = batcher.submit_all([2, 3]).wait_blocking();
    assert!(both.iter().all(Result::is_ok), "{both:?}");
}
