//! What the pool promises, operation by operation.

#[path = "support/at_rest.rs"]
mod at_rest;
mod support;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use at_rest::check;
use overdrive_pool::{
    ConfigError, Keep, MAX_LOCAL_CACHE, MAX_MAX_IDLE, OwnedPooled, Pool, PoolBuilder, Pooled,
    StaticPool,
};
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

/// Waits for the threads' real ends; the end of a scope does not wait for thread-local
/// destructors.
fn join(threads: Vec<thread::ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn an_object_is_used_again() {
    let pool = numbers().build().unwrap();
    assert_eq!(*pool.get(), 0);
    assert_eq!(*pool.get(), 0);
    let (a, b) = (pool.get(), pool.get());
    assert_eq!((*a, *b), (0, 1));
    drop((a, b));
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.returned), (2, 2, 4));
    assert_eq!((stats.in_use, stats.idle(), stats.thread_caches), (0, 2, 1));
    assert_eq!(stats.hit_ratio(), Some(0.5));
    check(&stats, pool.max_idle());
}

#[test]
fn the_newest_object_comes_first() {
    for local in [0, 1, 2, 3, 8] {
        let pool = numbers().max_idle(100).local_cache(local).build().unwrap();
        let held: Vec<_> = (0..20).map(|_| pool.get()).collect();
        for object in held {
            drop(object);
        }
        let again: Vec<_> = (0..20).map(|_| pool.get()).collect();
        let order: Vec<_> = again.iter().map(|object| **object).collect();
        let expected: Vec<_> = (0..20).rev().collect();
        assert_eq!(order, expected, "local_cache {local}");
        drop(again);
        check(&pool.stats(), 100);
    }
}

#[test]
fn addresses_are_stable() {
    let pool = Pool::builder().factory(|| [0_u8; 100]).build().unwrap();
    let first = std::ptr::from_ref(&*pool.get()).addr();
    let other: Vec<_> = (0..500).map(|_| pool.get()).collect();
    drop(other);
    let all: Vec<_> = (0..500).map(|_| pool.get()).collect();
    assert!(
        all.iter()
            .any(|object| std::ptr::from_ref(&**object).addr() == first)
    );
}

#[test]
fn reset_runs_at_each_return_and_decides() {
    let resets = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&resets);
    let pool = Pool::builder()
        .factory(Vec::<u8>::new)
        .reset(move |buffer| {
            seen.fetch_add(1, Ordering::Relaxed);
            buffer.clear();
            if buffer.capacity() > 100 {
                Keep::Discard
            } else {
                Keep::Yes
            }
        })
        .build()
        .unwrap();
    pool.get().push(1);
    assert!(pool.get().is_empty());
    pool.get().reserve(1000);
    let stats = pool.stats();
    assert_eq!(resets.load(Ordering::Relaxed), 3);
    assert_eq!(
        (stats.returned, stats.discarded_by_reset, stats.idle()),
        (2, 1, 0)
    );
    assert_eq!(pool.get().capacity(), 0);
    check(&pool.stats(), pool.max_idle());
}

#[test]
fn idle_objects_never_exceed_the_bound() {
    for (max_idle, local) in [
        (1, 0),
        (1, 1),
        (4, 0),
        (4, 1),
        (4, 2),
        (4, 4),
        (64, 8),
        (64, 64),
    ] {
        let ledger = Ledger::default();
        let pool = objects(&ledger)
            .max_idle(max_idle)
            .local_cache(local)
            .build()
            .unwrap();
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            let user = || {
                for round in 0..20 {
                    let held: Vec<_> = (0..20).map(|_| pool.get()).collect();
                    barrier.wait();
                    drop(held);
                    barrier.wait();
                    let stats = pool.stats();
                    assert!(
                        stats.idle() <= max_idle,
                        "{max_idle}/{local}@{round} {stats:?}"
                    );
                    barrier.wait();
                }
            };
            join((0..4).map(|_| scope.spawn(user)).collect());
        });
        let stats = pool.stats();
        check(&stats, max_idle);
        assert_eq!(stats.in_use, 0);
        assert_eq!(ledger.alive(), stats.idle());
        drop(pool);
        assert_eq!(ledger.alive(), 0);
    }
}

#[test]
fn threads_beyond_the_budget_share_the_depot() {
    // Half of 8 may be set aside: room for two caches of 2.
    let pool = numbers().max_idle(8).local_cache(2).build().unwrap();
    let barrier = Barrier::new(5);
    thread::scope(|scope| {
        let user = || {
            drop(pool.get());
            barrier.wait();
            barrier.wait();
            drop(pool.get());
        };
        let users: Vec<_> = (0..4).map(|_| scope.spawn(user)).collect();
        barrier.wait();
        assert_eq!(pool.stats().thread_caches, 2);
        barrier.wait();
        join(users);
    });
    let stats = pool.stats();
    assert_eq!((stats.thread_caches, stats.idle_local), (0, 0));
    check(&stats, 8);
}

#[test]
fn a_new_cache_takes_over_what_no_longer_fits_the_depot() {
    let ledger = Ledger::default();
    let pool = objects(&ledger)
        .max_idle(10)
        .local_cache(5)
        .build()
        .unwrap();
    assert_eq!(pool.warm(20), 10);
    drop(pool.get());
    let stats = pool.stats();
    assert_eq!(
        (stats.idle(), stats.surplus, stats.thread_caches),
        (10, 0, 1)
    );
    assert_eq!(ledger.alive(), 10);
}

#[test]
fn objects_travel_between_threads() {
    let ledger = Ledger::default();
    let pool = objects(&ledger)
        .max_idle(256)
        .local_cache(16)
        .build()
        .unwrap();
    let (send, receive) = channel::<OwnedPooled<Object>>();
    let consumer = thread::spawn(move || receive.into_iter().map(|o| usize::from(o.dirty)).sum());
    for _ in 0..10_000 {
        let mut object = pool.get_owned();
        object.hold();
        assert!(!object.dirty);
        object.dirty = true;
        object.release();
        send.send(object).unwrap();
    }
    drop(send);
    let received: usize = consumer.join().unwrap();
    assert_eq!(received, 10_000);
    check(&pool.stats(), 256);
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn try_get_takes_idle_objects_only() {
    let pool = numbers().build().unwrap();
    assert!(pool.try_get().is_none());
    assert!(pool.try_get_owned().is_none());
    assert_eq!(pool.warm(2), 2);
    let (a, b) = (pool.try_get(), pool.try_get_owned());
    assert!(a.is_some() && b.is_some());
    assert!(pool.try_get().is_none());
    assert_eq!(pool.stats().misses, 0);
}

#[test]
fn try_get_with_passes_the_error_on() {
    let pool = numbers().build().unwrap();
    assert_eq!(
        pool.try_get_with(|| Err::<usize, _>("no")).unwrap_err(),
        "no"
    );
    assert_eq!(*pool.try_get_with(|| Ok::<_, ()>(70)).unwrap(), 70);
    assert_eq!(*pool.try_get_with(|| Err("not needed")).unwrap(), 70);
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.failed), (1, 1, 1));
    check(&stats, pool.max_idle());
}

#[test]
fn detach_and_discard_take_objects_out() {
    let ledger = Ledger::default();
    let pool = objects(&ledger).build().unwrap();
    let object = pool.get().detach();
    pool.get().discard();
    let owned = pool.get_owned().detach();
    assert_eq!(pool.get_owned().pool().name(), "pool");
    pool.get_owned().discard();
    assert_eq!((ledger.made(), ledger.dropped()), (4, 2));
    let stats = pool.stats();
    assert_eq!(
        (stats.detached, stats.discarded_explicitly, stats.idle()),
        (2, 2, 0)
    );
    check(&stats, pool.max_idle());
    drop((object, owned));
}

#[test]
fn add_gives_back_what_does_not_fit() {
    let pool = numbers().max_idle(2).local_cache(0).build().unwrap();
    assert_eq!(
        [pool.add(5), pool.add(6), pool.add(7)],
        [Ok(()), Ok(()), Err(7)]
    );
    assert_eq!(*pool.get(), 6);
    check(&pool.stats(), 2);
}

#[test]
fn shared_mode_is_one_strict_stack() {
    let pool = numbers().max_idle(3).local_cache(0).build().unwrap();
    assert_eq!(pool.local_cache(), 0);
    let held: Vec<_> = (0..5).map(|_| pool.get()).collect();
    drop(held);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(*pool.get(), 2));
    });
    let stats = pool.stats();
    assert_eq!(
        (stats.idle_shared, stats.idle_local, stats.thread_caches),
        (3, 0, 0)
    );
    assert_eq!(stats.surplus, 2);
    let report = pool.trim();
    assert_eq!((report.dropped, report.caches_asked), (3, 0));
    assert_eq!(pool.stats().idle(), 0);
    check(&pool.stats(), 3);
}

#[test]
fn bad_settings_are_refused() {
    let none = Pool::<u8>::builder().build().unwrap_err();
    assert_eq!(none, ConfigError::Missing { field: "factory" });
    let refused = |builder: PoolBuilder<usize>| builder.build().unwrap_err();
    assert_eq!(
        refused(numbers().max_idle(0)),
        ConfigError::Zero { field: "max_idle" }
    );
    assert_eq!(
        refused(numbers().idle_timeout(Duration::ZERO)),
        ConfigError::Zero {
            field: "idle_timeout"
        }
    );
    assert_eq!(
        refused(numbers().idle_timeout(Duration::from_micros(999))),
        ConfigError::TooSmall {
            field: "idle_timeout",
            value: 999_000,
            min: 1_000_000
        }
    );
    assert_eq!(
        refused(numbers().max_idle(4).local_cache(5)),
        ConfigError::Contradiction {
            field: "local_cache",
            other: "max_idle",
            reason: "must not exceed"
        }
    );
    assert!(matches!(
        refused(numbers().max_idle(MAX_MAX_IDLE + 1)),
        ConfigError::TooLarge {
            field: "max_idle",
            ..
        }
    ));
    assert!(matches!(
        refused(
            numbers()
                .max_idle(MAX_MAX_IDLE)
                .local_cache(MAX_LOCAL_CACHE + 1)
        ),
        ConfigError::TooLarge {
            field: "local_cache",
            ..
        }
    ));
}

#[test]
fn small_bounds_leave_the_default_cache_small() {
    for max_idle in 1..40 {
        let pool = numbers().max_idle(max_idle).build().unwrap();
        assert!(pool.local_cache() <= max_idle / 2);
        let held: Vec<_> = (0..50).map(|_| pool.get()).collect();
        drop(held);
        assert!(pool.stats().idle() <= max_idle);
    }
}

#[test]
fn zero_sized_objects_work() {
    let pool = Pool::builder()
        .factory(|| ())
        .max_idle(10)
        .local_cache(4)
        .build()
        .unwrap();
    let held: Vec<_> = (0..20).map(|_| pool.get()).collect();
    drop(held);
    check(&pool.stats(), 10);
    assert_eq!(pool.trim().bytes, 0);
}

#[test]
fn a_static_pool_is_built_at_first_use() {
    static POOL: StaticPool<Vec<u8>> = StaticPool::new("static", Vec::new, |buffer| {
        buffer.clear();
        Keep::Yes
    })
    .with_limits(NonZeroUsize::new(9).unwrap(), 3);
    static SHARED: StaticPool<u8> =
        StaticPool::new("shared", || 1, |_| Keep::Yes).with_limits(NonZeroUsize::MIN, 0);
    // Each setter stands for both numbers, so the last one decides and they cannot conflict.
    static SMALL: StaticPool<u8> = StaticPool::new("small", || 1, |_| Keep::Yes)
        .with_limits(NonZeroUsize::new(9).unwrap(), 9)
        .with_max_idle(NonZeroUsize::MIN);
    POOL.get().push(1);
    thread::spawn(|| assert!(POOL.get().is_empty()))
        .join()
        .unwrap();
    assert_eq!(
        (POOL.name(), POOL.max_idle(), POOL.local_cache()),
        ("static", 9, 3)
    );
    assert_eq!((*SHARED.get(), SHARED.local_cache()), (1, 0));
    assert_eq!((SMALL.max_idle(), SMALL.local_cache()), (1, 0));
}

#[test]
fn many_pools_on_one_thread_keep_their_caches() {
    let pools: Vec<_> = (0..300).map(|_| numbers().build().unwrap()).collect();
    for _ in 0..3 {
        for pool in &pools {
            drop(pool.get());
        }
    }
    assert!(pools.iter().all(|pool| pool.stats().misses == 1));
}

#[test]
fn more_threads_than_near_entries() {
    let ledger = Ledger::default();
    let pool = objects(&ledger)
        .max_idle(4096)
        .local_cache(4)
        .build()
        .unwrap();
    let barrier = Barrier::new(200);
    thread::scope(|scope| {
        let user = || {
            for _ in 0..100 {
                let held: Vec<_> = (0..7).map(|_| pool.get()).collect();
                held.iter().for_each(|object| object.hold());
                held.iter().for_each(|object| object.release());
            }
            if barrier.wait().is_leader() {
                assert_eq!(pool.stats().thread_caches, 200);
                assert!(pool.trim().caches_asked > 100);
            }
            barrier.wait();
            drop(pool.get());
        };
        join((0..200).map(|_| scope.spawn(user)).collect());
    });
    let stats = pool.stats();
    assert_eq!((stats.thread_caches, stats.in_use), (0, 0));
    check(&stats, 4096);
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn everything_is_debug() {
    let pool = numbers().name("shown").build().unwrap();
    assert!(format!("{pool:?}").contains("shown"));
    assert!(format!("{:?}", numbers().name("shown")).contains("shown"));
    assert_eq!(format!("{:?} {:?}", pool.get(), pool.get_owned()), "0 1");
}

#[test]
fn markers() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    // `Send` but not `Sync` is enough for the pool and for moving a guard.
    send::<Pool<std::cell::Cell<u8>>>();
    sync::<Pool<std::cell::Cell<u8>>>();
    sync::<StaticPool<std::cell::Cell<u8>>>();
    send::<Pooled<'static, std::cell::Cell<u8>>>();
    send::<OwnedPooled<std::cell::Cell<u8>>>();
    sync::<Pooled<'static, u8>>();
    sync::<OwnedPooled<u8>>();
    send::<PoolBuilder<u8>>();
}
