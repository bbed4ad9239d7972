//! Loom models of the engine. They drive it with explicit thread ids.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_loom" cargo test -p overdrive-pool --lib --release loom
//! ```
//!
//! Four preemptions per execution unless `LOOM_MAX_PREEMPTIONS` says otherwise (4 take seconds, 8
//! take minutes). Each protocol is also run with its guard removed (see [`Mutant`]), and then it
//! must fail: a model that passes either way would show nothing.
//!
//! Outside the models: `Arc`'s count, which decides when a pool is dropped (here each model joins
//! its threads first), and the heap of thread ids, for which [`Ids`] stands in.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use crate::engine::{Inner, Parts};
use crate::local::Me;
use crate::stats::Count;
use crate::sync::{Mutant, REMOVED, STOLEN, removed};

/// A pool under test. Never dropped when a control may have corrupted it.
type Pool = Arc<ManuallyDrop<Inner<Object>>>;

struct Object {
    /// Loom fails the model if two threads are in here at a time.
    used: UnsafeCell<()>,
    dropped: Arc<AtomicUsize>,
}

impl Object {
    fn work(&self) {
        self.used.with_mut(|_| ());
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.work();
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

struct Model {
    pool: Pool,
    dropped: Arc<AtomicUsize>,
    made: usize,
}

impl Model {
    fn new(max_idle: usize, local: usize) -> Self {
        STOLEN.set(0);
        let parts = Parts {
            name: "model".into(),
            factory: Box::new(|| unreachable!("the model makes the objects")),
            reset: None,
            weigh: None,
            max_idle,
            local,
        };
        let pool = Inner::new(parts, std::sync::Weak::new());
        let dropped = Arc::new(AtomicUsize::new(0));
        Self {
            pool: Arc::new(ManuallyDrop::new(pool)),
            dropped,
            made: 0,
        }
    }

    fn object(&mut self) -> Box<Object> {
        self.made += 1;
        let dropped = Arc::clone(&self.dropped);
        Box::new(Object {
            used: UnsafeCell::new(()),
            dropped,
        })
    }

    fn stock(&mut self, n: usize) {
        for _ in 0..n {
            let object = self.object();
            assert!(
                self.pool.admit(object, Count::Added).is_ok(),
                "there is room"
            );
        }
    }

    fn spawn(&self, f: impl FnOnce(&Inner<Object>) + 'static) -> JoinHandle<()> {
        let pool = Arc::clone(&self.pool);
        thread::spawn(move || f(&pool))
    }

    /// With all threads joined: each object is idle in one place, dropped, or lent out `held`
    /// times; then drops the pool, and with it the rest.
    fn finish(self, held: usize) {
        // The look at the result is not part of what a control spoils.
        let guard = REMOVED.take();
        let max_idle = self.pool.max_idle();
        let stats = self.pool.stats();
        assert!(stats.idle() <= max_idle, "the bound holds: {stats:?}");
        // As raw pointers, so that a control's duplicates are not dropped twice.
        let mut idle = Vec::new();
        {
            let shared = &mut *self.pool.lock();
            let mut objects = shared.depot.take_all();
            shared.registry.dismantle(&mut objects);
            idle.extend(objects.into_iter().map(Box::into_raw));
        }
        assert_eq!(idle.len(), stats.idle(), "the figures are exact at rest");
        let dropped = self.dropped.load(Ordering::Relaxed);
        assert_eq!(
            self.made,
            idle.len() + dropped + held,
            "each object is in one place"
        );
        for object in &idle {
            // SAFETY: as many as were made and not dropped, so each came from a box once.
            drop(unsafe { Box::from_raw(*object) });
        }
        assert_eq!(self.dropped.load(Ordering::Relaxed) + held, self.made);
        let pool = Arc::into_inner(self.pool).expect("all threads are joined");
        drop(ManuallyDrop::into_inner(pool));
        REMOVED.set(guard);
    }
}

/// Stands in for the heap of thread ids.
#[derive(Clone)]
struct Ids(Arc<Mutex<Vec<u32>>>);

impl Ids {
    fn take(&self) -> Me {
        Me::model(self.0.lock().unwrap().pop().expect("an id is free"))
    }

    fn give_back(&self, id: u32) {
        self.0.lock().unwrap().push(id);
    }
}

fn take(pool: &Inner<Object>, me: Me) -> Option<Box<Object>> {
    let (object, owed) = pool.take(me);
    pool.settle(owed);
    if let Some(object) = &object {
        object.work();
    }
    object
}

/// Takes and puts back, if there is something.
fn cycle(pool: &Inner<Object>, me: Me) {
    if let Some(object) = take(pool, me) {
        object.work();
        pool.put(me, object);
    }
}

fn check(removed: Option<Mutant>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(4);
    }
    REMOVED.set(removed);
    // Also after the panic of a control.
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            REMOVED.set(None);
        }
    }
    let _restore = Restore;
    builder.check(model);
}

/// Two threads exchange objects through the depot; one id is near, the other in a bucket.
#[test]
fn loom_depot_hand_off() {
    check(None, || {
        let mut model = Model::new(8, 2);
        model.stock(2);
        let threads = [1, 2].map(|id| {
            model.spawn(move |pool| {
                let me = Me::model(id);
                let (a, b) = (take(pool, me), take(pool, me));
                for object in [a, b].into_iter().flatten() {
                    pool.put(me, object);
                }
                pool.thread_ends(me);
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        model.finish(0);
    });
}

/// The same without thread caches, which is the fallback of the fast path.
#[test]
fn loom_shared_mode() {
    check(None, || {
        let mut model = Model::new(2, 0);
        model.stock(1);
        let extra = model.object();
        let other = model.spawn(move |pool| {
            let me = Me::model(2);
            pool.put(me, extra);
            cycle(pool, me);
        });
        let me = Me::model(1);
        let object = model.pool.take_shared();
        if let Some(object) = object {
            object.work();
            model.pool.put(me, object);
        }
        other.join().unwrap();
        model.finish(0);
    });
}

fn id_reuse() {
    let mut model = Model::new(8, 2);
    model.stock(2);
    let ids = Ids(Arc::new(Mutex::new(vec![2, 1])));
    // This one has an id before the other starts.
    let first = ids.take();
    let given = ids.clone();
    let old = model.spawn(move |pool| {
        cycle(pool, first);
        if removed(Mutant::IdReleasedFirst) {
            given.give_back(1);
            pool.thread_ends(first);
        } else {
            pool.thread_ends(first);
            given.give_back(1);
        }
    });
    let new = model.spawn(move |pool| {
        let me = ids.take();
        cycle(pool, me);
        pool.thread_ends(me);
    });
    old.join().unwrap();
    new.join().unwrap();
    model.finish(0);
}

/// A thread ends and hands its cache in while another starts, perhaps under its id.
#[test]
fn loom_id_reuse() {
    check(None, id_reuse);
}

#[test]
#[should_panic]
fn loom_control_id_released_before_the_cache_is_handed_in() {
    check(Some(Mutant::IdReleasedFirst), id_reuse);
}

fn cooperative_trim() {
    let mut model = Model::new(8, 3);
    let objects = [model.object(), model.object()];
    let owner = model.spawn(move |pool| {
        let me = Me::model(1);
        for object in objects {
            pool.put(me, object);
        }
        let (a, b) = (take(pool, me), take(pool, me));
        for object in [a, b].into_iter().flatten() {
            pool.put(me, object);
        }
    });
    model.pool.trim(Me::model(3));
    owner.join().unwrap();
    model.finish(0);
}

/// One thread trims while the other gets and puts.
#[test]
fn loom_cooperative_trim() {
    check(None, cooperative_trim);
}

#[test]
#[should_panic]
fn loom_control_trim_takes_from_another_threads_cache() {
    check(Some(Mutant::StealFromOwner), cooperative_trim);
}

/// All three kinds of trim, one of them by the owner, against the end of the thread.
#[test]
fn loom_trims_against_thread_end() {
    check(None, || {
        let mut model = Model::new(4, 2);
        let objects = [model.object(), model.object()];
        let owner = model.spawn(move |pool| {
            let me = Me::model(1);
            for object in objects {
                pool.put(me, object);
            }
            pool.trim_idle(me);
            pool.thread_ends(me);
        });
        let me = Me::model(3);
        model.pool.trim_to(me, size_of::<Object>());
        model.pool.trim_idle(me);
        owner.join().unwrap();
        model.finish(0);
    });
}

/// Two owners, one of whom ends, and a third thread that trims.
#[test]
fn loom_three_threads() {
    check(None, || {
        let mut model = Model::new(8, 2);
        model.stock(3);
        let threads = [1, 2].map(|id| {
            model.spawn(move |pool| {
                let me = Me::model(id);
                cycle(pool, me);
                cycle(pool, me);
                if id == 2 {
                    pool.thread_ends(me);
                }
            })
        });
        model.pool.trim(Me::model(3));
        for thread in threads {
            thread.join().unwrap();
        }
        model.finish(0);
    });
}

fn put_into_a_full_cache_after_a_trim() {
    let mut model = Model::new(16, 4);
    let me = Me::model(1);
    // The first put makes the cache, and takes the slow path for that.
    let guard = REMOVED.take();
    for _ in 0..4 {
        let object = model.object();
        model.pool.put(me, object);
    }
    REMOVED.set(guard);
    let trimmer = model.spawn(|pool| {
        pool.trim(Me::model(3));
    });
    let object = model.object();
    model.pool.put(me, object);
    trimmer.join().unwrap();
    model.finish(0);
}

/// The cache is full when the put begins; the trim that it answers on its slow path empties it.
#[test]
fn loom_put_looks_again_after_a_trim() {
    check(None, put_into_a_full_cache_after_a_trim);
}

#[test]
#[should_panic = "each object is in one place"]
fn loom_control_put_takes_the_cache_for_full() {
    check(Some(Mutant::AssumeFull), put_into_a_full_cache_after_a_trim);
}

fn bucket_publication() {
    let mut model = Model::new(8, 1);
    model.stock(1);
    // Both ids have their entry in the same bucket. Neither exists yet.
    let threads = [2, 3].map(|id| {
        model.spawn(move |pool| {
            let me = Me::model(id);
            cycle(pool, me);
            pool.thread_ends(me);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    model.finish(0);
}

/// The table grows by a bucket while another thread reads it without the lock.
#[test]
fn loom_bucket_publication() {
    check(None, bucket_publication);
}

#[test]
#[should_panic]
fn loom_control_bucket_published_without_release() {
    check(Some(Mutant::RelaxedBucket), bucket_publication);
}

fn stats_while_a_thread_works_and_ends() {
    let mut model = Model::new(4, 2);
    let object = model.object();
    let owner = model.spawn(move |pool| {
        let me = Me::model(1);
        pool.put(me, object);
        cycle(pool, me);
        pool.thread_ends(me);
    });
    let stats = model.pool.stats();
    assert!(
        stats.idle() <= 2 && stats.hits <= 1 && stats.returned <= 2,
        "{stats:?}"
    );
    owner.join().unwrap();
    if !removed(Mutant::FreeOutsideLock) {
        let stats = model.pool.stats();
        assert_eq!((stats.hits, stats.returned, stats.thread_caches), (1, 2, 0));
    }
    model.finish(0);
}

/// Figures are read while the owner writes them and frees its cache.
#[test]
fn loom_stats() {
    check(None, stats_while_a_thread_works_and_ends);
}

#[test]
#[should_panic]
fn loom_control_cache_freed_while_listed() {
    check(
        Some(Mutant::FreeOutsideLock),
        stats_while_a_thread_works_and_ends,
    );
}

fn trim_to_against_a_put() {
    let mut model = Model::new(1, 0);
    model.stock(1);
    let object = model.object();
    let other = model.spawn(move |pool| pool.put(Me::model(1), object));
    model.pool.trim_to(Me::model(3), usize::MAX);
    other.join().unwrap();
    model.finish(0);
}

/// What was taken out for weighing keeps its room, so that it can go back.
#[test]
fn loom_trim_to_keeps_the_bound() {
    check(None, trim_to_against_a_put);
}

/// A thread that wants a cache while everything is out for weighing does without one.
#[test]
fn loom_trim_to_against_a_new_cache() {
    check(None, || {
        let mut model = Model::new(2, 1);
        model.stock(2);
        let object = model.object();
        let other = model.spawn(move |pool| {
            let me = Me::model(1);
            pool.put(me, object);
            cycle(pool, me);
        });
        model.pool.trim_to(Me::model(3), usize::MAX);
        other.join().unwrap();
        model.finish(0);
    });
}

/// Of two overlapping calls one does the work of both, and what came before either is weighed.
#[test]
fn loom_overlapping_trim_to() {
    check(None, || {
        let mut model = Model::new(4, 0);
        model.stock(2);
        let object = model.object();
        let other = model.spawn(move |pool| {
            let me = Me::model(1);
            pool.put(me, object);
            pool.trim_to(me, size_of::<Object>());
        });
        model.pool.trim_to(Me::model(3), size_of::<Object>());
        other.join().unwrap();
        assert_eq!(model.pool.stats().idle(), 1);
        model.finish(0);
    });
}

#[test]
#[should_panic = "the bound holds"]
fn loom_control_trim_to_restores_blindly() {
    check(Some(Mutant::RestoreBlindly), trim_to_against_a_put);
}
