//! Handlers that run with a lease, and handlers whose failures are told apart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use overdrive_batch::{Batcher, Gather, SubmitError};

/// Fails if it is given a 13.
fn all_or_nothing(items: Vec<u64>) -> Result<Vec<u64>, &'static str> {
    if items.contains(&13) {
        return Err("unlucky");
    }
    Ok(items)
}

#[test]
fn one_bad_item_fails_alone() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |items| {
        counted.fetch_add(1, Ordering::SeqCst);
        all_or_nothing(items)
    };
    let batcher = Batcher::builder().isolate(50).build_sync(handler).unwrap();
    let results = batcher.submit_all(0..64).wait_blocking();
    for (item, result) in results.into_iter().enumerate() {
        match result {
            Ok(same) => assert_eq!(same, item as u64),
            Err(SubmitError::Batch(error)) => {
                assert_eq!((item, *error), (13, "unlucky"));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let stats = batcher.stats();
    assert_eq!((stats.completed, stats.failed), (63, 1));
    // As one batch: 64, then two halves of each of 64, 32, .. 2. It may have been two.
    assert!(calls.load(Ordering::SeqCst) <= 14, "{calls:?}");
}

#[test]
fn panics_and_wrong_counts_are_told_apart_too() {
    let handler = |items: Vec<u64>| {
        if items.contains(&13) {
            // No panic hook, which would print it.
            std::panic::resume_unwind(Box::new("unlucky"));
        }
        let short = items.contains(&5);
        Ok::<_, &str>(items.into_iter().skip(usize::from(short)).collect())
    };
    let batcher = Batcher::builder().isolate(50).build_sync(handler).unwrap();
    for (item, result) in batcher
        .submit_all(0..20)
        .wait_blocking()
        .into_iter()
        .enumerate()
    {
        match (item, result) {
            (
                5,
                Err(SubmitError::WrongResultCount {
                    expected: 1,
                    got: 0,
                }),
            ) => {}
            (13, Err(SubmitError::Panicked(message))) => assert_eq!(&*message, "unlucky"),
            (_, Ok(same)) => assert_eq!(same, item as u64),
            (item, other) => panic!("{item}: {other:?}"),
        }
    }
}

#[test]
fn a_clone_that_panics_fails_its_items_and_no_worker() {
    struct Rare(u64);
    impl Clone for Rare {
        fn clone(&self) -> Self {
            if self.0 == 13 {
                std::panic::resume_unwind(Box::new("unlucky"));
            }
            Self(self.0)
        }
    }
    let handler = |items: Vec<Rare>| Ok::<Vec<u64>, ()>(items.iter().map(|rare| rare.0).collect());
    let batcher = Batcher::builder().isolate(50).workers(1);
    let batcher = batcher.build_sync(handler).unwrap();
    let results = batcher.submit_all((10..16).map(Rare)).wait_blocking();
    let failed: Vec<_> = results.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, false, true, false, false]);
}

#[test]
fn too_few_calls_to_tell_apart_are_refused() {
    for max_calls in [0, 1] {
        let builder = Batcher::builder().isolate(max_calls);
        let refused = builder.build_sync(all_or_nothing).unwrap_err();
        assert_eq!(refused.field(), "isolate");
    }
    let builder = Batcher::builder().max_weight(0, |_: &u64| 1);
    assert_eq!(
        builder.build_sync(all_or_nothing).unwrap_err().field(),
        "max_weight"
    );
}

#[test]
fn a_batch_gathers_while_its_lease_is_acquired() {
    let (ask, asked) = channel();
    let (give, given) = channel::<u32>();
    let inner = Mutex::new((ask, given));
    let acquire = move || {
        let inner = inner.lock().unwrap();
        inner.0.send(()).unwrap();
        Ok::<_, &str>(inner.1.recv().unwrap())
    };
    let handler = |lease, items: Vec<u64>| {
        assert_eq!(lease, 7);
        Ok(vec![items.len(); items.len()])
    };
    let builder = Batcher::builder().gather(Gather::Immediate);
    let batcher = builder.build_sync_with(acquire, handler).unwrap();
    let first = batcher.try_submit(0).unwrap();
    asked.recv().unwrap();
    let others: Vec<_> = (1..5).map(|n| batcher.try_submit(n).unwrap()).collect();
    give.send(7).unwrap();
    assert_eq!(
        first.wait_blocking().unwrap(),
        5,
        "all are in the first batch"
    );
    for other in others {
        assert_eq!(other.wait_blocking().unwrap(), 5);
    }
    assert!(asked.try_recv().is_err(), "one lease was enough");
}

/// A lease that tells when it is given back.
struct Lease(Sender<()>);

impl Drop for Lease {
    fn drop(&mut self) {
        let _told = self.0.send(());
    }
}

#[test]
fn a_lease_without_items_is_given_back() {
    let (ask, asked) = channel();
    let (give, given) = channel();
    let (back, given_back) = channel();
    let inner = Mutex::new((ask, given, back));
    let acquire = move || {
        let inner = inner.lock().unwrap();
        inner.0.send(()).unwrap();
        let lease = Lease(inner.2.clone());
        inner.1.recv().map(|()| lease).map_err(|_| "gone")
    };
    let builder = Batcher::builder().gather(Gather::Immediate).workers(1);
    let batcher = builder
        .build_sync_with(acquire, |_lease, items: Vec<u64>| Ok(items))
        .unwrap();
    let withdrawn = batcher.try_submit(1).unwrap();
    asked.recv().unwrap();
    drop(withdrawn);
    give.send(()).unwrap();
    given_back.recv().unwrap();
    // The worker is free again, and asks anew.
    let ticket = batcher.try_submit(2).unwrap();
    asked.recv().unwrap();
    give.send(()).unwrap();
    assert_eq!(ticket.wait_blocking().unwrap(), 2);
    given_back.recv().unwrap();
    // A lease that cannot be had fails the batch that it was for.
    drop(give);
    let failed = batcher.submit_blocking(3).unwrap_err();
    assert!(
        matches!(failed, SubmitError::Batch(ref error) if **error == "gone"),
        "{failed:?}"
    );
}

#[cfg(feature = "tokio")]
mod on_tasks {
    use std::convert::Infallible;
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn isolation_and_leases_work_together() {
        block_on(async {
            let (back, given_back) = channel();
            let back = Mutex::new(back);
            let acquire = move || {
                let lease = Lease(back.lock().unwrap().clone());
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, &str>(lease)
                }
            };
            let handler = |lease: Lease, items: Vec<u64>| async move {
                tokio::task::yield_now().await;
                drop(lease);
                all_or_nothing(items)
            };
            let builder = Batcher::builder().isolate(100);
            let batcher = builder.build_with(acquire, handler).unwrap();
            let results = batcher.submit_all(0..40).await;
            let failed: Vec<_> = (0..40).filter(|&n| results[n].is_err()).collect();
            assert_eq!(failed, [13]);
            let leases = given_back.try_iter().count();
            assert!(leases > 1, "one for each call");
        });
    }

    #[test]
    fn a_panic_while_acquiring_fails_its_batch_and_no_other() {
        block_on(async {
            let fail = Arc::new(AtomicUsize::new(1));
            let acquire = move || {
                let fail = fail.fetch_min(0, Ordering::SeqCst) == 1;
                async move {
                    if fail {
                        std::panic::resume_unwind(Box::new("no lease"));
                    }
                    Ok::<_, Infallible>(())
                }
            };
            let handler = |(), items: Vec<u64>| async { Ok(items) };
            let batcher = Batcher::builder().build_with(acquire, handler).unwrap();
            let failed = batcher.submit(1).await.unwrap_err();
            assert!(matches!(failed, SubmitError::Panicked(_)), "{failed:?}");
            assert_eq!(batcher.submit(2).await.unwrap(), 2);
        });
    }

    #[test]
    fn only_one_worker_acquires_at_a_time() {
        block_on(async {
            let waiting = Arc::new(Semaphore::new(0));
            let asked = Arc::new(AtomicUsize::new(0));
            let (leases, counted) = (Arc::clone(&waiting), Arc::clone(&asked));
            let acquire = move || {
                counted.fetch_add(1, Ordering::SeqCst);
                let leases = Arc::clone(&leases);
                async move { Ok::<_, Infallible>(leases.acquire_owned().await.unwrap()) }
            };
            let handler = |_permit, items: Vec<u64>| async { Ok(items) };
            let builder = Batcher::builder().max_size(2).workers(4);
            let batcher = builder.build_with(acquire, handler).unwrap();
            let results: Vec<_> = (0..8)
                .map(|n| tokio::spawn(batcher.submit_owned(n)))
                .collect();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            waiting.add_permits(1);
            for (result, n) in results.into_iter().zip(0..) {
                assert_eq!(result.await.unwrap().unwrap(), n);
            }
        });
    }

    #[test]
    fn beside_a_handler_that_waits_a_lone_item_is_run_at_once() {
        block_on(async {
            let handler = |items: Vec<u64>| async move {
                if items[0] == 0 {
                    pending::<()>().await;
                }
                Ok::<_, Infallible>(items)
            };
            let batcher = Batcher::builder().build(handler).unwrap();
            let stuck = tokio::spawn(batcher.submit_owned(0));
            tokio::task::yield_now().await;
            for item in 1..100 {
                assert_eq!(batcher.submit(item).await.unwrap(), item);
            }
            stuck.abort();
        });
    }
}
