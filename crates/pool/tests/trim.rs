//! Giving idle memory back.

#[path = "support/at_rest.rs"]
mod at_rest;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, Weak};
use std::thread;
use std::time::Duration;

use at_rest::check;
use overdrive_pool::{Keep, Pool, PoolBuilder, TrimReport};
use support::{Ledger, Object};

fn objects(ledger: &Ledger) -> PoolBuilder<Object> {
    let ledger = ledger.clone();
    Pool::builder()
        .factory(move || ledger.make())
        .reset(|object| {
            object.dirty = false;
            Keep::Yes
        })
}

fn numbers() -> PoolBuilder<usize> {
    let next = AtomicUsize::new(0);
    Pool::builder().factory(move || next.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn trim_reaches_other_threads_at_their_next_operation() {
    let ledger = Ledger::default();
    let pool = objects(&ledger).local_cache(8).build().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let held: Vec<_> = (0..6).map(|_| pool.get()).collect();
            drop(held);
            barrier.wait();
            barrier.wait();
            // Sees the call, drops the six, has one made.
            let object = pool.get();
            assert_eq!(object.id, 6);
            assert_eq!(ledger.alive(), 1);
            drop(object);
            drop(pool.get());
            assert_eq!(ledger.made(), 7);
        });
        barrier.wait();
        assert_eq!(pool.stats().idle_local, 6);
        let report = pool.trim();
        assert_eq!((report.dropped, report.caches_asked), (0, 1));
        barrier.wait();
        // To its real end: a scope does not wait for thread-local destructors.
        owner.join().unwrap();
    });
    let stats = pool.stats();
    assert_eq!(stats.trimmed, 6);
    check(&stats, pool.max_idle());
}

#[test]
fn a_put_after_a_trim_does_not_take_the_cache_for_full() {
    // The cache is full when the trim calls, and empty when the put that sees the call goes on.
    let ledger = Ledger::default();
    let pool = objects(&ledger).local_cache(4).build().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let mut held: Vec<_> = (0..5).map(|_| pool.get()).collect();
            let last = held.pop();
            drop(held);
            barrier.wait();
            barrier.wait();
            drop(last);
            let stats = pool.stats();
            assert_eq!(
                (stats.idle_local, stats.idle_shared, stats.trimmed),
                (1, 0, 4)
            );
            let all: Vec<_> = (0..8).map(|_| pool.get()).collect();
            for object in &all {
                object.hold();
            }
            for object in all {
                object.release();
            }
        });
        barrier.wait();
        let _: TrimReport = pool.trim();
        barrier.wait();
        // To its real end: a scope does not wait for thread-local destructors.
        owner.join().unwrap();
    });
    check(&pool.stats(), pool.max_idle());
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn trim_weighs_what_it_drops() {
    let pool = Pool::builder()
        .factory(|| vec![0_u8; 100])
        .weigher(Vec::capacity)
        .local_cache(0)
        .build()
        .unwrap();
    pool.warm(3);
    let report = pool.trim();
    assert_eq!((report.dropped, report.bytes), (3, 300));
}

#[test]
fn trim_to_drops_the_oldest_first() {
    for local in [0, 4] {
        let pool = numbers()
            .weigher(|_| 10)
            .max_idle(100)
            .local_cache(local)
            .build()
            .unwrap();
        let held: Vec<_> = (0..10).map(|_| pool.get()).collect();
        drop(held);
        let report = pool.trim_to(35);
        assert_eq!(
            (report.dropped, report.bytes),
            (7, 70),
            "local_cache {local}"
        );
        let left: Vec<_> = (0..3).map(|_| pool.get().detach()).collect();
        assert_eq!(left, [9, 8, 7]);
        assert_eq!(pool.trim_to(0).dropped, 0);
        check(&pool.stats(), 100);
    }
}

#[test]
fn trim_to_counts_other_threads_caches_by_an_estimate() {
    let pool = numbers()
        .weigher(|_| 10)
        .max_idle(100)
        .local_cache(8)
        .build()
        .unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let held: Vec<_> = (0..3).map(|_| pool.get()).collect();
            drop(held);
            barrier.wait();
            barrier.wait();
            // Called in only by the second trim.
            assert_eq!(pool.stats().idle_local, 3);
            drop(pool.get());
            let stats = pool.stats();
            assert_eq!((stats.idle_local, stats.idle_shared), (1, 0), "{stats:?}");
        });
        barrier.wait();
        pool.warm(4);
        // The three over there weigh 30, so 20 are left for the depot.
        let report = pool.trim_to(50);
        assert_eq!(
            (report.dropped, report.bytes, report.caches_asked),
            (2, 20, 0)
        );
        let report = pool.trim_to(29);
        assert_eq!(
            (report.dropped, report.bytes, report.caches_asked),
            (2, 20, 1)
        );
        barrier.wait();
        // To its real end: a scope does not wait for thread-local destructors.
        owner.join().unwrap();
    });
    check(&pool.stats(), 100);
}

#[test]
fn a_late_answer_to_trim_to_leaves_the_depot_alone() {
    let pool = numbers().max_idle(1000).local_cache(8).build().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            drop(pool.get());
            barrier.wait();
            barrier.wait();
            drop(pool.get());
        });
        barrier.wait();
        assert_eq!(pool.trim_to(0).caches_asked, 1);
        assert_eq!(pool.warm(900), 900);
        barrier.wait();
        owner.join().unwrap();
    });
    let stats = pool.stats();
    assert_eq!((stats.idle(), stats.trimmed), (900, 1), "{stats:?}");
    check(&stats, 1000);
}

/// A pool whose weigher waits the first time, and a call of `trim_to` that is parked there while
/// `meanwhile` runs.
fn while_weighing(
    builder: PoolBuilder<usize>,
    stock: usize,
    bytes: usize,
    meanwhile: impl FnOnce(&Pool<usize>),
) -> (Pool<usize>, TrimReport) {
    // Channels, so that a failure on either side ends the other's wait.
    let ((arrive, arrived), (go, wait)) = (channel(), channel::<()>());
    let parked = Mutex::new(Some((arrive, wait)));
    let pool = builder
        .weigher(move |_| {
            let first = parked.lock().unwrap().take();
            if let Some((arrive, wait)) = first {
                arrive.send(()).unwrap();
                let _ = wait.recv();
            }
            10
        })
        .build()
        .unwrap();
    assert_eq!(pool.warm(stock), stock);
    let report = thread::scope(|scope| {
        let trimmer = scope.spawn(|| pool.trim_to(bytes));
        // Moved in here, so that unwinding drops it before the scope waits.
        let go = go;
        arrived.recv().unwrap();
        meanwhile(&pool);
        drop(go);
        trimmer.join().unwrap()
    });
    (pool, report)
}

#[test]
fn overlapping_calls_of_trim_to_leave_one_target() {
    for local in [0, 8] {
        let builder = numbers().max_idle(100).local_cache(local);
        let (pool, report) = while_weighing(builder, 20, 50, |pool| {
            assert_eq!(pool.warm(20), 20);
            assert_eq!(pool.trim_to(50), TrimReport::default());
            assert_eq!(pool.stats().idle(), 40);
        });
        assert_eq!((report.dropped, report.bytes), (35, 350));
        assert_eq!(pool.stats().idle(), 5);
        check(&pool.stats(), 100);
    }
}

#[test]
fn the_lowest_of_the_targets_asked_for_meanwhile_holds() {
    let builder = numbers().max_idle(100).local_cache(0);
    let (pool, report) = while_weighing(builder, 20, 100, |pool| {
        for bytes in [70, 30, 50] {
            assert_eq!(pool.trim_to(bytes).dropped, 0);
        }
    });
    assert_eq!((report.dropped, pool.stats().idle()), (17, 3));

    let builder = numbers().max_idle(100).local_cache(0);
    let (pool, report) = while_weighing(builder, 20, 100, |pool| {
        pool.warm(3);
        assert_eq!(pool.trim().dropped, 3);
    });
    assert_eq!((report.dropped, pool.stats().idle()), (20, 0));
}

#[test]
fn the_bound_holds_while_objects_are_weighed() {
    let builder = numbers().max_idle(16).local_cache(4);
    let (pool, report) = while_weighing(builder, 16, usize::MAX, |pool| {
        let look = || check(&pool.stats(), 16);
        assert_eq!(pool.stats().idle_shared, 16);
        assert_eq!((pool.warm(16), pool.add(0)), (0, Err(0)));
        look();
        // No room for a cache either, so that nothing can gather there.
        let held: Vec<_> = (0..6).map(|_| pool.get()).collect();
        look();
        drop(held);
        let stats = pool.stats();
        assert_eq!((stats.thread_caches, stats.surplus), (0, 6), "{stats:?}");
        assert_eq!(pool.trim_idle().dropped, 0);
        look();
    });
    assert_eq!((report.dropped, pool.stats().idle()), (0, 16));
    drop(pool.get());
    let stats = pool.stats();
    assert_eq!((stats.thread_caches, stats.idle()), (1, 16), "{stats:?}");
    check(&stats, 16);
}

#[test]
fn what_came_meanwhile_is_newer_than_what_was_weighed() {
    let builder = numbers().max_idle(16).local_cache(0);
    let (pool, _) = while_weighing(builder, 3, usize::MAX, |pool| {
        pool.warm(2);
    });
    let order: Vec<_> = (0..5).map(|_| pool.get().detach()).collect();
    assert_eq!(order, [4, 3, 2, 1, 0]);
}

#[test]
fn the_weigher_and_the_destructor_may_trim() {
    struct Trims(Weak<Pool<Self>>);
    impl Drop for Trims {
        fn drop(&mut self) {
            if let Some(pool) = self.0.upgrade() {
                assert_eq!(pool.trim_to(10).dropped, 0);
            }
        }
    }
    for local in [0, 8] {
        let pool = Arc::new_cyclic(|pool: &Weak<Pool<Trims>>| {
            let pool = pool.clone();
            Pool::builder()
                .factory(move || Trims(pool.clone()))
                .weigher(|object| {
                    if let Some(pool) = object.0.upgrade() {
                        // As low as the running call: nothing more to do. Lower: one more round.
                        assert_eq!(pool.trim_to(30).dropped, 0);
                        assert_eq!(pool.trim_to(20).dropped, 0);
                    }
                    1
                })
                .max_idle(100)
                .local_cache(local)
                .build()
                .unwrap()
        });
        pool.warm(50);
        assert_eq!(pool.trim_to(30).dropped, 40);
        assert_eq!(pool.stats().idle(), 10);
        check(&pool.stats(), 100);
    }
}

#[test]
fn an_idle_pass_drops_what_nobody_needed() {
    let pool = numbers().max_idle(100).local_cache(0).build().unwrap();
    let held: Vec<_> = (0..10).map(|_| pool.get()).collect();
    drop(held);
    pool.trim_idle();
    // Three are needed in this interval, seven are not.
    let held: Vec<_> = (0..3).map(|_| pool.get()).collect();
    drop(held);
    assert_eq!(pool.trim_idle().dropped, 7);
    assert_eq!(pool.stats().idle(), 3);
    let mut newest: Vec<_> = (0..3).map(|_| pool.get()).map(|object| *object).collect();
    newest.sort_unstable();
    assert_eq!(newest, [7; 3], "the newest is taken each time");
    assert_eq!(pool.trim_idle().dropped, 2);
    assert_eq!(pool.trim_idle().dropped, 1);
    check(&pool.stats(), 100);
}

#[test]
fn an_idle_pass_has_caches_give_half() {
    let pool = numbers().max_idle(100).local_cache(8).build().unwrap();
    let held: Vec<_> = (0..8).map(|_| pool.get()).collect();
    drop(held);
    assert_eq!(pool.stats().idle_local, 8);
    let mut local = Vec::new();
    for _ in 0..5 {
        pool.trim_idle();
        local.push(pool.stats().idle_local);
    }
    assert_eq!(local, [4, 2, 1, 0, 0]);
    pool.trim_idle();
    assert_eq!(pool.stats().idle(), 0);
    check(&pool.stats(), 100);
}

#[test]
fn the_clean_up_thread_cleans_and_ends() {
    let ledger = Ledger::default();
    let (send, receive) = channel();
    let pool = {
        let ledger = ledger.clone();
        Pool::builder()
            .name("cleaned")
            .factory(move || {
                struct Told {
                    _object: Object,
                    _notify: Notify,
                }
                struct Notify(std::sync::mpsc::Sender<Option<String>>);
                impl Drop for Notify {
                    fn drop(&mut self) {
                        let _ = self.0.send(thread::current().name().map(str::to_owned));
                    }
                }
                Told {
                    _object: ledger.make(),
                    _notify: Notify(send.clone()),
                }
            })
            .idle_timeout(Duration::from_millis(1))
            .local_cache(0)
            .build()
            .unwrap()
    };
    pool.warm(3);
    for _ in 0..3 {
        let name = receive.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(name.as_deref(), Some("overdrive-pool-cleaned"));
    }
    assert_eq!(ledger.alive(), 0);
    drop(pool);
    // The factory, and with it the only sender, is gone only when nobody holds the pool.
    assert!(receive.recv().is_err());
}

#[test]
fn a_pool_dropped_early_does_not_wait_for_the_timeout() {
    let pool = numbers()
        .idle_timeout(Duration::from_secs(3600))
        .build()
        .unwrap();
    drop(pool);
    let pool = numbers()
        .idle_timeout(Duration::MAX)
        .name("a\0b\n")
        .build()
        .unwrap();
    drop(pool.clone());
    drop(pool);
}
