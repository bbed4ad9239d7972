//! What happens when user code panics, objects leak, threads come and go, and calls nest.

#[path = "support/at_rest.rs"]
mod at_rest;
mod support;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use at_rest::check;
use overdrive_core::thread_slot;
use overdrive_pool::{Keep, OwnedPooled, Pool, PoolBuilder};
use support::{Ledger, Object};

fn objects(ledger: &Ledger) -> PoolBuilder<Object> {
    let ledger = ledger.clone();
    Pool::builder().factory(move || ledger.make())
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_panic_in_the_factory_passes_through() {
    for local in [0, 4] {
        let calls = AtomicUsize::new(0);
        let pool = Pool::builder()
            .factory(move || match calls.fetch_add(1, Ordering::Relaxed) {
                n if n % 2 == 0 => panic_any("no object today"),
                n => n,
            })
            .local_cache(local)
            .build()
            .unwrap();
        assert!(panics(|| drop(pool.get())));
        assert_eq!(*pool.get(), 1);
        assert!(panics(|| pool.warm(5)));
        let held: Vec<_> = std::iter::from_fn(|| pool.try_get()).collect();
        assert!(panics(|| drop(pool.try_get_with(
            || -> Result<usize, ()> { panic_any("nor here") }
        ))));
        drop(held);
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0);
        assert!(stats.failed == 3);
        check(&stats, pool.max_idle());
    }
}

#[test]
fn a_panic_in_the_reset_costs_that_object_only() {
    for local in [0, 4] {
        let ledger = Ledger::default();
        let pool = objects(&ledger)
            .reset(|object| {
                if object.dirty {
                    panic_any("dirty");
                }
                Keep::Yes
            })
            .local_cache(local)
            .build()
            .unwrap();
        let (mut spoilt, clean) = (pool.get(), pool.get());
        spoilt.dirty = true;
        assert!(panics(|| drop(spoilt)));
        drop(clean);
        let mut owned = pool.get_owned();
        owned.dirty = true;
        assert!(panics(|| drop(owned)));
        let stats = pool.stats();
        assert_eq!(
            (stats.discarded_by_panic, stats.in_use, stats.idle()),
            (2, 0, 0)
        );
        check(&stats, pool.max_idle());
        assert_eq!(ledger.alive(), 0);
        drop(pool.get());
        drop(pool);
        assert_eq!((ledger.made(), ledger.dropped()), (3, 3));
    }
}

#[test]
fn a_panic_in_reset_and_then_in_drop_is_survived() {
    let ledger = Ledger::default();
    let pool = objects(&ledger)
        .reset(|_| panic_any("reset"))
        .build()
        .unwrap();
    let mut object = pool.get();
    object.bomb = true;
    assert!(panics(|| drop(object)));
    assert_eq!((ledger.alive(), pool.stats().discarded_by_panic), (0, 1));
}

#[test]
fn panics_in_destructors_lose_no_other_object() {
    for local in [0, 4, 16] {
        let ledger = Ledger::default();
        let pool = objects(&ledger)
            .max_idle(64)
            .local_cache(local)
            .build()
            .unwrap();
        let fill = |bombs: usize| {
            let mut held: Vec<_> = (0..32).map(|_| pool.get()).collect();
            held.iter_mut()
                .take(bombs)
                .for_each(|object| object.bomb = true);
        };
        fill(3);
        assert!(panics(|| pool.trim()), "local_cache {local}");
        assert_eq!((pool.stats().idle(), ledger.alive()), (0, 0));
        fill(3);
        assert!(panics(|| pool.trim_to(0)));
        assert_eq!((pool.stats().idle(), ledger.alive()), (0, 0));
        fill(32);
        pool.trim_idle();
        assert!(panics(|| pool.trim_idle()));
        check(&pool.stats(), 64);
        let mut object = pool.get();
        object.bomb = true;
        assert!(panics(|| object.discard()));
        check(&pool.stats(), 64);
        fill(8);
        assert!(panics(|| drop(pool)));
        assert_eq!(ledger.alive(), 0);
    }
}

#[test]
fn a_panic_while_paying_for_a_trim_returns_the_object_in_hand() {
    let ledger = Ledger::default();
    let pool = objects(&ledger).local_cache(4).build().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let mut held: Vec<_> = (0..3).map(|_| pool.get()).collect();
            held.iter_mut().for_each(|object| object.bomb = true);
            drop(held);
            barrier.wait();
            barrier.wait();
            assert!(panics(|| drop(pool.get())));
            let stats = pool.stats();
            assert_eq!((stats.trimmed, stats.in_use, stats.idle()), (3, 0, 1));
        });
        barrier.wait();
        pool.trim();
        pool.warm(1);
        barrier.wait();
        // To its real end: a scope does not wait for thread-local destructors.
        owner.join().unwrap();
    });
    check(&pool.stats(), pool.max_idle());
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn a_panic_in_the_weigher_loses_nothing() {
    for local in [0, 4] {
        let ledger = Ledger::default();
        let pool = objects(&ledger)
            .weigher(|_| panic_any("heavy"))
            .max_idle(10)
            .local_cache(local)
            .build()
            .unwrap();
        let held: Vec<_> = (0..12).map(|_| pool.get()).collect();
        drop(held);
        let stats = pool.stats();
        let check = || {
            assert_eq!(pool.stats().idle(), ledger.alive());
            check(&pool.stats(), 10);
        };
        // Twice: the first has ended for good.
        for _ in 0..2 {
            assert!(panics(|| pool.trim_to(1)));
            assert_eq!(
                (pool.stats().idle(), pool.stats().trimmed),
                (stats.idle(), 0)
            );
            check();
        }
        assert!(panics(|| pool.trim()));
        assert_eq!((pool.stats().idle(), ledger.alive()), (0, 0));
        pool.warm(1);
        check();
    }
}

#[test]
fn a_panic_in_a_destructor_does_not_end_a_trim_to() {
    struct Bomb(Weak<Pool<Self>>, bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(pool) = self.0.upgrade() {
                pool.trim_to(2);
                assert!(!self.1, "a bomb");
            }
        }
    }
    let pool = Arc::new_cyclic(|pool: &Weak<Pool<Bomb>>| {
        let pool = pool.clone();
        Pool::builder()
            .factory(move || Bomb(pool.clone(), true))
            .weigher(|_| 1)
            .max_idle(10)
            .build()
            .unwrap()
    });
    pool.warm(9);
    // The first to be dropped asks for less, and panics.
    assert!(panics(|| pool.trim_to(8)));
    assert_eq!((pool.stats().idle(), pool.stats().trimmed), (2, 7));
    pool.trim_to(2);
    check(&pool.stats(), 10);
}

#[test]
fn a_forgotten_guard_leaks_one_object() {
    // Keeps the leak sanitizer from reporting what is leaked on purpose.
    static LEAKED: AtomicPtr<Object> = AtomicPtr::new(std::ptr::null_mut());
    let ledger = Ledger::default();
    let pool = objects(&ledger).build().unwrap();
    let mut leaked = pool.get();
    LEAKED.store(&raw mut *leaked, Ordering::Relaxed);
    std::mem::forget(leaked);
    drop(pool.get());
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.idle()), (1, 1));
    drop(pool);
    assert_eq!(ledger.alive(), 1);
}

#[test]
fn a_guard_may_be_dropped_on_another_thread() {
    let ledger = Ledger::default();
    let pool = objects(&ledger).build().unwrap();
    thread::scope(|scope| {
        let object = pool.get();
        scope.spawn(move || drop(object)).join().unwrap();
    });
    let owned = pool.get_owned();
    thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!((ledger.made(), pool.stats().idle()), (1, 1));
    // The owned guard may be the last one to hold the pool.
    let owned = pool.get_owned();
    drop(pool);
    thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn thread_local_destructors_may_use_the_pool() {
    type Late = Option<(OwnedPooled<Object>, Pool<Object>)>;
    struct AtEnd(RefCell<Late>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            if let Some((object, pool)) = self.0.take() {
                drop(object);
                drop((pool.get(), pool.try_get()));
                pool.trim_to(1 << 20);
                let _ = pool.stats();
            }
        }
    }
    thread_local! {
        static BEFORE: AtEnd = const { AtEnd(RefCell::new(None)) };
        static AFTER: AtEnd = const { AtEnd(RefCell::new(None)) };
    }
    for local in [0, 4] {
        let ledger = Ledger::default();
        let pool = objects(&ledger).local_cache(local).build().unwrap();
        for use_before in [true, false] {
            let pool = pool.clone();
            // One of the two is registered before the pool's own hook, one after, so that one is
            // destroyed after it whatever the order is.
            thread::spawn(move || {
                BEFORE.with(|_| ());
                if use_before {
                    drop(pool.get());
                }
                let fill = |cell: &AtEnd| {
                    *cell.0.borrow_mut() = Some((pool.get_owned(), pool.clone()));
                };
                BEFORE.with(fill);
                AFTER.with(fill);
            })
            .join()
            .unwrap();
        }
        let stats = pool.stats();
        assert_eq!(
            (stats.in_use, stats.thread_caches, stats.idle_local),
            (0, 0, 0),
            "{stats:?}"
        );
        check(&stats, pool.max_idle());
        drop(pool);
        assert_eq!(ledger.alive(), 0);
    }
}

#[test]
fn the_last_handle_may_go_with_an_ending_thread() {
    thread_local! {
        static BEFORE: RefCell<Option<Pool<Object>>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<Pool<Object>>> = const { RefCell::new(None) };
    }
    for last in [&BEFORE, &AFTER] {
        let ledger = Ledger::default();
        let pool = objects(&ledger)
            .idle_timeout(Duration::from_secs(3600))
            .build()
            .unwrap();
        // One of the two is destroyed after the pool's own hook, whatever the order is.
        thread::spawn(move || {
            BEFORE.with(|_| ());
            drop(pool.get());
            AFTER.with(|_| ());
            last.set(Some(pool));
        })
        .join()
        .unwrap();
        assert_eq!((ledger.made(), ledger.alive()), (1, 0));
    }
}

#[test]
fn ten_thousand_short_threads_leave_nothing_behind() {
    let ledger = Ledger::default();
    let pool = objects(&ledger)
        .max_idle(64)
        .local_cache(4)
        .build()
        .unwrap();
    let mut highest = 0;
    for _ in 0..2_500 {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || {
                    drop((pool.get(), pool.get(), pool.get()));
                    thread_slot::current()
                })
            })
            .collect();
        for thread in threads {
            highest = highest.max(thread.join().unwrap());
        }
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.thread_caches, stats.idle_local, stats.in_use),
        (0, 0, 0)
    );
    assert_eq!(stats.hits + stats.misses, 30_000);
    // One is made only when the depot is empty: then each of the three other threads has at most
    // three in hand and one idle, since a cache is refilled by two, and this one has two.
    assert!(stats.misses <= 3 * 4 + 2 + 1, "{stats:?}");
    // Under `cargo test` other tests' threads hold ids too.
    assert!(highest < 256, "ids are dense, the highest was {highest}");
    check(&stats, 64);
    assert_eq!(ledger.alive(), stats.idle());
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn the_factory_may_use_the_pool() {
    for local in [0, 1, 4] {
        let this: Arc<OnceLock<Weak<Pool<usize>>>> = Arc::default();
        let (inside, calls) = (Arc::clone(&this), AtomicUsize::new(0));
        let pool = Pool::builder()
            .factory(move || {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                if call < 20 {
                    let pool = inside.get().and_then(Weak::upgrade).unwrap();
                    drop((pool.get(), pool.get()));
                }
                call
            })
            .max_idle(16)
            .local_cache(local)
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        this.set(Arc::downgrade(&pool)).unwrap();
        drop((pool.get(), pool.get()));
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0);
        check(&stats, 16);
    }
}

#[test]
fn the_reset_may_use_the_pool() {
    for local in [0, 1, 2, 4] {
        let ledger = Ledger::default();
        let this: Arc<OnceLock<Weak<Pool<Object>>>> = Arc::default();
        let inside = Arc::clone(&this);
        let pool = objects(&ledger)
            .reset(move |object| {
                if std::mem::take(&mut object.dirty) {
                    let pool = inside.get().and_then(Weak::upgrade).unwrap();
                    let held: Vec<_> = (0..6).map(|_| pool.get()).collect();
                    held.iter().for_each(|object| object.hold());
                    held.iter().for_each(|object| object.release());
                    drop(held);
                    pool.trim();
                    drop((pool.get(), pool.get()));
                }
                Keep::Yes
            })
            .max_idle(16)
            .local_cache(local)
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        this.set(Arc::downgrade(&pool)).unwrap();
        for _ in 0..20 {
            let mut held: Vec<_> = (0..5).map(|_| pool.get()).collect();
            held.iter_mut().for_each(|object| object.dirty = true);
        }
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0);
        check(&stats, 16);
        assert_eq!(ledger.alive(), stats.idle());
        drop(pool);
        assert_eq!(ledger.alive(), 0);
    }
}

#[test]
fn a_destructor_may_use_the_pool() {
    struct Nested {
        pool: Weak<Pool<Self>>,
        depth: usize,
    }
    impl Drop for Nested {
        fn drop(&mut self) {
            if let Some(pool) = self.pool.upgrade() {
                if self.depth > 0 {
                    let mut object = pool.get();
                    object.depth = self.depth - 1;
                    object.discard();
                    drop((pool.get(), pool.get()));
                }
            }
        }
    }
    for local in [0, 2] {
        let this: Arc<OnceLock<Weak<Pool<Nested>>>> = Arc::default();
        let inside = Arc::clone(&this);
        let pool = Pool::builder()
            .factory(move || Nested {
                pool: inside.get().unwrap().clone(),
                depth: 0,
            })
            .max_idle(2)
            .local_cache(local)
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        this.set(Arc::downgrade(&pool)).unwrap();
        for _ in 0..10 {
            let mut held: Vec<_> = (0..5).map(|_| pool.get()).collect();
            held.iter_mut().for_each(|object| object.depth = 3);
            drop(held);
            pool.trim();
        }
        check(&pool.stats(), 2);
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn a_pool_may_go_while_threads_end() {
    for _ in 0..200 {
        let ledger = Ledger::default();
        let pool = objects(&ledger).build().unwrap();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    drop((pool.get(), pool.get()));
                    barrier.wait();
                    drop(pool);
                })
            })
            .collect();
        barrier.wait();
        drop(pool);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(ledger.alive(), 0);
    }
}

#[test]
fn the_last_handle_may_go_on_the_clean_up_thread() {
    /// Holds a handle of another pool, so that the trim of one ends the other, and at the end
    /// the pool itself, through what is in it.
    struct Link {
        _object: Object,
        next: Option<Pool<Self>>,
        told: std::sync::mpsc::Sender<()>,
    }
    impl Drop for Link {
        fn drop(&mut self) {
            // The last handle of the other pool, whose destructor stops that pool's thread.
            drop(self.next.take());
            let _ = self.told.send(());
        }
    }
    let ledger = Ledger::default();
    let (send, receive) = channel();
    let make = |name: &'static str| {
        let (ledger, send) = (ledger.clone(), send.clone());
        Pool::builder()
            .name(name)
            .factory(move || Link {
                _object: ledger.make(),
                next: None,
                told: send.clone(),
            })
            .local_cache(0)
            .idle_timeout(Duration::from_millis(1))
            .build()
            .unwrap()
    };
    let (a, b) = (make("a"), make("b"));
    drop(send);
    // A cycle of one: the pool owns an object that owns the pool, until the trim breaks it on
    // the clean-up thread.
    let mut in_a = a.get().detach();
    in_a.next = Some(a.clone());
    let mut in_b = b.get().detach();
    in_b.next = Some(a.clone());
    a.add(in_a).ok().unwrap();
    b.add(in_b).ok().unwrap();
    drop((a, b));
    // Two objects, and then the end of both factories with their senders.
    let told: Vec<()> = receive.iter().collect();
    assert!(!told.is_empty() && told.len() <= 2);
}

#[test]
fn a_panicking_destructor_does_not_end_the_clean_up() {
    let ledger = Ledger::default();
    let (send, receive) = channel();
    let pool = {
        let ledger = ledger.clone();
        Pool::builder()
            .factory(move || (ledger.make(), Told(send.clone())))
            .idle_timeout(Duration::from_millis(1))
            .build()
            .unwrap()
    };
    struct Told(std::sync::mpsc::Sender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    for _ in 0..3 {
        let mut bomb = pool.get().detach();
        bomb.0.bomb = true;
        assert!(pool.add(bomb).is_ok());
        receive.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    drop(pool);
    assert_eq!(ledger.alive(), 0);
}
