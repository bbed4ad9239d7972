//! The engine behind `Pool`: the fast path, the slow paths and the end of a thread.
//!
//! # States of an object
//!
//! In a guard, in one thread's slot, in the depot, or in a local variable of the operation that
//! moves or drops it. It is a `Box` in each of them, so it is in one place, and its owner frees
//! it. Objects move between slot and depot only under the lock, by the slot's owner.
//!
//! # User code
//!
//! The factory, the reset, the weigher and the destructor of `T` run without the lock and between
//! operations, never inside one: they may use the same pool. What was true before such a call or
//! before the lock was taken is looked up anew after it.

use std::any::Any;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{OnceLock, PoisonError, Weak};

use overdrive_core::thread_slot::{self, ExitHook};
use overdrive_core::unwind::drop_payload;

use crate::depot::{Answer, Depot};
use crate::idle::Housekeeper;
use crate::local::{Front, Me, Mine, Registry, Slot};
use crate::stats::{COUNTS, Count, PoolStats};
use crate::sync::{AtomicU64, Mutant, Mutex, MutexGuard, Ordering, removed};
use crate::take_back::TakeBack;

pub(crate) type Factory<T> = Box<dyn Fn() -> T + Send + Sync>;
pub(crate) type Reset<T> = Box<dyn TakeBack<T>>;
pub(crate) type Weigher<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;

/// What a pool is made of, checked by the builder.
pub(crate) struct Parts<T> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) factory: Factory<T>,
    pub(crate) reset: Option<Reset<T>>,
    pub(crate) weigh: Option<Weigher<T>>,
    pub(crate) max_idle: usize,
    pub(crate) local: usize,
}

/// Aligned so that the fast path's fields, which are only read, share no line with the reference
/// counts before them or the lock after them.
#[repr(C, align(128))]
pub(crate) struct Inner<T> {
    reset: Option<Reset<T>>,
    front: Front<T>,
    cold: Cold<T>,
}

#[repr(align(128))]
struct Cold<T> {
    shared: Mutex<Shared<T>>,
    factory: Factory<T>,
    weigh: Option<Weigher<T>>,
    name: Cow<'static, str>,
    max_idle: usize,
    /// Capacity of a thread cache; zero in shared mode.
    local: usize,
    this: Weak<Inner<T>>,
    housekeeper: OnceLock<Housekeeper>,
    /// Counts of threads without a slot, made outside the lock.
    counts: [AtomicU64; COUNTS],
}

pub(crate) struct Shared<T> {
    pub(crate) depot: Depot<T>,
    pub(crate) registry: Registry<T>,
}

/// What a slow path still owes once the lock is free and its own object is safe.
#[must_use]
pub(crate) struct Owed<T> {
    /// Objects to drop.
    pub(crate) drop: Vec<Box<T>>,
}

impl<T> Owed<T> {
    pub(crate) const NOTHING: Self = Self { drop: Vec::new() };
}

impl<T: Send + 'static> Inner<T> {
    pub(crate) fn new(parts: Parts<T>, this: Weak<Self>) -> Self {
        let depot = Depot::new(parts.max_idle, parts.local);
        Self {
            reset: parts.reset,
            front: Front::new(),
            cold: Cold {
                shared: Mutex::new(Shared {
                    depot,
                    registry: Registry::new(),
                }),
                factory: parts.factory,
                weigh: parts.weigh,
                name: parts.name,
                max_idle: parts.max_idle,
                local: parts.local,
                this,
                housekeeper: OnceLock::new(),
                counts: std::array::from_fn(|_| AtomicU64::new(0)),
            },
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.cold.name
    }

    pub(crate) fn max_idle(&self) -> usize {
        self.cold.max_idle
    }

    pub(crate) fn local(&self) -> usize {
        self.cold.local
    }

    pub(crate) fn weigh(&self, object: &T) -> usize {
        self.cold
            .weigh
            .as_ref()
            .map_or(size_of::<T>(), |weigh| weigh(object))
    }

    pub(crate) fn front(&self) -> &Front<T> {
        &self.front
    }

    pub(crate) fn housekeeper(&self) -> &OnceLock<Housekeeper> {
        &self.cold.housekeeper
    }

    /// Takes an idle object from the calling thread's cache, if that is near.
    #[inline(always)]
    pub(crate) fn take_if_near(&self, me: Me) -> Option<Box<T>> {
        let mine = self.front.mine_if_near(me)?;
        let object = mine.pop()?;
        mine.bump(Count::Hits);
        Some(object)
    }

    /// Takes an idle object from wherever there is one.
    pub(crate) fn take(&self, me: Me) -> (Option<Box<T>>, Owed<T>) {
        if let Some(mine) = self.front.mine(me) {
            if let Some(object) = mine.pop() {
                mine.bump(Count::Hits);
                return (Some(object), Owed::NOTHING);
            }
        }
        self.take_slow(me)
    }

    /// As `take` in shared mode, where nothing can be owed.
    pub(crate) fn take_shared(&self) -> Option<Box<T>> {
        let depot = &mut self.lock().depot;
        let object = depot.pop();
        depot.count(Count::Hits, u64::from(object.is_some()));
        object
    }

    #[cold]
    #[inline(never)]
    fn take_slow(&self, me: Me) -> (Option<Box<T>>, Owed<T>) {
        let me = me.registered();
        let mut owed = Owed::NOTHING;
        let Shared { depot, registry } = &mut *self.lock();
        let Some(mine) = self.attach(depot, registry, me) else {
            let object = depot.pop();
            depot.count(Count::Hits, u64::from(object.is_some()));
            return (object, owed);
        };
        answer(depot, mine, &mut owed);
        let object = mine.pop().or_else(|| {
            depot.take_top(|stack| mine.fill(stack, self.batch()));
            mine.pop()
        });
        mine.add(Count::Hits, u64::from(object.is_some()));
        (object, owed)
    }

    /// Runs the factory; on a panic counts it and lets it pass.
    pub(crate) fn make(&self) -> T {
        match self.make_with(|| Ok::<_, Infallible>((self.cold.factory)())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// Runs `make`; counts an error or a panic and lets it pass.
    pub(crate) fn make_with<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let failed = OnDrop(|| self.count(Count::Failed));
        let value = make()?;
        std::mem::forget(failed);
        Ok(value)
    }

    /// Takes an object back that a guard held.
    #[inline(always)]
    pub(crate) fn give_back(&self, object: Box<T>) {
        match &self.reset {
            None => self.put_here(object),
            Some(reset) => reset.take_back(self, object),
        }
    }

    /// Stores an object that is ready for its next user.
    #[inline(always)]
    pub(crate) fn put_here(&self, object: Box<T>) {
        self.put(Me::current(), object);
    }

    #[inline(always)]
    pub(crate) fn put(&self, me: Me, object: Box<T>) {
        let Some(mine) = self.front.mine_if_near(me) else {
            return self.put_far(me, object);
        };
        match mine.push(object) {
            Ok(()) => mine.bump(Count::Returned),
            Err(object) => self.put_slow(me, object),
        }
    }

    #[inline(never)]
    fn put_far(&self, me: Me, object: Box<T>) {
        let Some(mine) = self.front.mine(me) else {
            return self.put_slow(me, object);
        };
        match mine.push(object) {
            Ok(()) => mine.bump(Count::Returned),
            Err(object) => self.put_slow(me, object),
        }
    }

    #[inline(never)]
    fn put_slow(&self, me: Me, object: Box<T>) {
        if self.cold.local == 0 {
            let surplus = self.put_shared(object);
            return drop(surplus);
        }
        let owed = self.stow(me, object);
        self.settle(owed);
    }

    fn put_shared(&self, object: Box<T>) -> Option<Box<T>> {
        let depot = &mut self.lock().depot;
        depot.count(Count::Returned, 1);
        let surplus = depot.push(object).err()?;
        depot.count(Count::Surplus, 1);
        Some(surplus)
    }

    /// Stores an object as the newest: in the calling thread's cache, or in the depot.
    fn stow(&self, me: Me, object: Box<T>) -> Owed<T> {
        let me = me.registered();
        let mut owed = Owed::NOTHING;
        let Shared { depot, registry } = &mut *self.lock();
        let Some(mine) = self.attach(depot, registry, me) else {
            depot.count(Count::Returned, 1);
            if let Err(object) = depot.push(object) {
                depot.count(Count::Surplus, 1);
                owed.drop.push(object);
            }
            return owed;
        };
        mine.bump(Count::Returned);
        answer(depot, mine, &mut owed);
        let mut object = object;
        // Whatever brought us here, the cache need not be full any more: try again first.
        if !removed(Mutant::AssumeFull) {
            match mine.push(object) {
                Ok(()) => return owed,
                Err(back) => object = back,
            }
        }
        hand_over(depot, mine, self.batch(), &mut owed);
        if let Err(object) = mine.push(object) {
            depot.count(Count::Surplus, 1);
            owed.drop.push(object);
        }
        owed
    }

    /// Drops `object` for the reason counted.
    #[cold]
    #[inline(never)]
    pub(crate) fn discard(&self, reason: Count, object: Box<T>) {
        self.count(reason);
        drop(object);
    }

    pub(crate) fn count(&self, which: Count) {
        match self.front.mine(Me::current()) {
            Some(mine) => mine.bump(which),
            None => {
                self.cold.counts[which as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Pays what a slow path owes. Runs user code.
    pub(crate) fn settle(&self, owed: Owed<T>) {
        if !owed.drop.is_empty() {
            drop_all(owed.drop);
        }
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let shared = &*self.lock();
        let mut stats = PoolStats::from_counts(|which| {
            let slots = shared
                .registry
                .peek()
                .map(|(_, slot)| slot.count(which))
                .sum::<u64>();
            let outside = self.cold.counts[which as usize].load(Ordering::Relaxed);
            slots + outside + shared.depot.counted(which)
        });
        stats.idle_shared = shared.depot.len();
        stats.idle_local = shared.registry.peek().map(|(_, slot)| slot.held()).sum();
        stats.thread_caches = shared.registry.live();
        stats
    }

    /// Puts a new object into the depot, or gives it back when that is full.
    pub(crate) fn admit(&self, object: Box<T>, count: Count) -> Result<(), Box<T>> {
        let depot = &mut self.lock().depot;
        depot.push(object)?;
        depot.count(count, 1);
        Ok(())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared<T>> {
        // No user code runs under this lock, so a poisoned one is as good as any.
        self.cold
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread's slot, made if it has none and the budget allows, with its entry open.
    fn attach<'a>(
        &self,
        depot: &mut Depot<T>,
        registry: &'a mut Registry<T>,
        me: Me,
    ) -> Option<Mine<'a, T>> {
        if self.cold.local == 0 || !me.has_id() {
            return None;
        }
        if registry.mine(me).is_none() {
            if !depot.reserve(self.cold.local) {
                return None;
            }
            if !self.hook_exit() {
                depot.unreserve(self.cold.local);
                return None;
            }
            registry.create(me, self.cold.local, depot.calls.last);
            // What the depot may no longer hold always fits the new slot: the limit sank by
            // the slot's capacity.
            let surplus = depot.surplus();
            if let Some(mine) = registry.mine(me) {
                depot.take_top(|stack| mine.fill(stack, surplus));
            }
        }
        registry.attach(&self.front, me)
    }

    #[cfg(not(overdrive_loom))]
    fn hook_exit(&self) -> bool {
        let this: Weak<Self> = self.cold.this.clone();
        thread_slot::on_exit(this)
    }

    /// The models call `thread_ends` themselves.
    #[cfg(overdrive_loom)]
    fn hook_exit(&self) -> bool {
        let _ = (&self.cold.this, thread_slot::on_exit);
        true
    }

    /// How many objects move between a cache and the depot at a time.
    fn batch(&self) -> usize {
        (self.cold.local / 2).max(1)
    }

    /// Hands the ending thread's cache in. Everything fits, because its reservation ends too.
    pub(crate) fn thread_ends(&self, me: Me) {
        let mut guard = self.lock();
        let shared = &mut *guard;
        let Some(mut slot) = shared.registry.detach(&self.front, me) else {
            return;
        };
        shared.depot.unreserve(self.cold.local);
        shared.depot.fold(|index| slot.count_at(index));
        shared.depot.add_top(|stack| slot.empty_into(stack));
        drop(guard);
        free(slot);
    }
}

impl<T: Send + 'static> ExitHook for Inner<T> {
    fn thread_exit(&self, id: u32) {
        self.thread_ends(Me::ending(id));
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        if let Some(housekeeper) = self.cold.housekeeper.take() {
            housekeeper.stop();
        }
        let mut shared = self
            .cold
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut objects = shared.depot.take_all();
        shared.registry.dismantle(&mut objects);
        drop(shared);
        drop_all(objects);
    }
}

impl<T> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("name", &self.cold.name)
            .finish_non_exhaustive()
    }
}

/// Does what the slot's owner was called in for, if anything.
pub(crate) fn answer<T>(depot: &mut Depot<T>, mine: Mine<'_, T>, owed: &mut Owed<T>) {
    let slot = mine.slot();
    if slot.seen() == depot.calls.last {
        return;
    }
    match depot.calls.missed_since(slot.seen()) {
        Answer::Nothing => {}
        Answer::Halve => hand_over(depot, mine, slot.held().div_ceil(2), owed),
        Answer::Empty => {
            let dropped = mine.shed(slot.held(), &mut owed.drop);
            mine.add(Count::Trimmed, dropped as u64);
        }
    }
    slot.set_seen(depot.calls.last);
}

/// Moves the `k` oldest objects of a slot to the depot; of these the oldest are surplus if not
/// all fit.
pub(crate) fn hand_over<T>(depot: &mut Depot<T>, mine: Mine<'_, T>, k: usize, owed: &mut Owed<T>) {
    let k = if removed(Mutant::AssumeFull) {
        k
    } else {
        k.min(mine.slot().held())
    };
    let room = depot.room();
    let dropped = mine.shed(k.saturating_sub(room), &mut owed.drop);
    mine.add(Count::Surplus, dropped as u64);
    depot.add_top(|stack| {
        mine.shed(k.min(room), stack);
    });
}

/// Frees an empty slot that is listed no more.
fn free<T>(slot: Box<Slot<T>>) {
    if removed(Mutant::FreeOutsideLock) || removed(Mutant::IdReleasedFirst) {
        // These controls only mark it, because others go on to load from it.
        return Box::leak(slot).mark_freed();
    }
    drop(slot);
}

/// Drops all of them even if some destructors panic, then lets the first panic pass.
pub(crate) fn drop_all<T>(objects: Vec<Box<T>>) {
    let mut panics = FirstPanic::default();
    for object in objects {
        panics.catch(|| drop(object));
    }
    panics.pass();
}

/// Keeps the first of several panics for later.
#[derive(Default)]
pub(crate) struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    /// Runs `f`; `None` if it panics.
    pub(crate) fn catch<R>(&mut self, f: impl FnOnce() -> R) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => Some(result),
            Err(panic) => {
                match self.0 {
                    None => self.0 = Some(panic),
                    Some(_) => drop_payload(panic),
                }
                None
            }
        }
    }

    /// Lets it pass, unless another one is on its way already.
    pub(crate) fn pass(self) {
        match self.0 {
            Some(panic) if std::thread::panicking() => drop_payload(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

/// Runs when it is dropped; the good path forgets it.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
