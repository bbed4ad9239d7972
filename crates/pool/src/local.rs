//! The per-thread part: slots, and the table that leads a thread to its own. One of this crate's
//! two modules with unsafe code; the other is `guard`.
//!
//! # Structures
//!
//! A [`Slot`] is one thread's cache of one pool. The [`Registry`], under the pool's lock, lists
//! the slots by thread id and is the truth about which exist. The [`Front`] is read without the
//! lock: an entry per thread id, either null or that thread's slot. A null entry sends its thread
//! to the slow path, nothing more, so taking an entry away is how the pool asks a thread to look
//! at something ([`Registry::call_in`]): the thread's next operation takes the lock, answers, and
//! puts the entry back. The fast path pays nothing for it.
//!
//! Entries for ids below [`NEAR`] are inside the front; the others in buckets that double in size
//! and, once published, stay where they are until the front is dropped. Nothing is ever copied or
//! moved, so a thread cannot be left with an outdated table.
//!
//! # States of an entry
//!
//! null -> slot: by the owner, in `attach` (first use, or after it was called in), under the lock.
//! slot -> null: by anyone in `call_in`, by the owner in `detach`, under the lock.
//! The entry is read only by its owner, without the lock.
//!
//! # Invariants
//!
//! 1. *Owner.* Only the thread whose id a slot is listed under touches its `private` and `items`
//!    and writes its `len` and `counts`. It does so through [`Mine`], which is neither `Send` nor
//!    kept over user code. Others only load the atomics ([`Registry::peek`], under the lock).
//!    Exceptions with exclusive access: `Slot::drop`.
//! 2. *Contents.* `items[..len]` are initialised, the rest is not. A non-null `private` and each
//!    of `items[..len]` own their box, and nobody else does. While `private` is null, `len` is 0:
//!    the private object is the oldest.
//! 3. *Listed.* Between its making and its removal a slot is in the registry. It is removed by
//!    its owner in `detach`, which then owns it as a box, or by `Registry::drop`. Who holds the
//!    lock and finds it listed may therefore load from it.
//! 4. *Entry.* A non-null entry is the listed slot of its id. Entry [`UNREGISTERED`] and entry
//!    [`ENDING`] are always null.
//! 5. *Buckets* are freed only by `Front::drop`.
//! 6. *Ids.* At most one thread holds an id at a time, and what it did as the holder happens
//!    before what the next holder does (see `overdrive_core::thread_slot`). `detach` runs before
//!    the id is given up.
//!
//! # Who may free, and ABA
//!
//! A slot's memory is freed by its owner at the end of the thread or with the pool, never while
//! another thread could load from it (3), never while its owner could (1, 6). There is no
//! compare-and-swap in here, so no ABA.
//!
//! # Orderings
//!
//! A slot's atomics and the entries are written and read by one thread, or under the lock, or as
//! mere figures: Relaxed. A bucket may be read by a thread that did not publish it and has taken
//! no lock since: its pointer is stored with Release and loaded with Acquire.

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use overdrive_core::thread_slot::{self, ENDING, UNREGISTERED};

use crate::stats::{COUNTS, Count};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Mutant, Ordering, UnsafeCell, removed};

#[cfg(not(overdrive_loom))]
const NEAR_BITS: u32 = 6;
#[cfg(overdrive_loom)]
const NEAR_BITS: u32 = 1;

/// Ids below this have their entry in the front itself.
const NEAR: usize = 1 << NEAR_BITS;
const BUCKETS: usize = (u32::BITS - NEAR_BITS) as usize;

/// The calling thread, as the holder of a thread id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me {
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl Me {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self {
            id: thread_slot::current(),
            not_send: PhantomData,
        }
    }

    /// From an exit hook: the id that the calling thread holds until its hooks have run.
    pub(crate) fn ending(id: u32) -> Self {
        assert_eq!(thread_slot::current(), ENDING, "only from an exit hook");
        Self {
            id,
            not_send: PhantomData,
        }
    }

    /// A model's thread, which gives ids out itself.
    #[cfg(all(test, overdrive_loom))]
    pub(crate) fn model(id: u32) -> Self {
        Self {
            id,
            not_send: PhantomData,
        }
    }

    pub(crate) fn registered(self) -> Self {
        if self.id == UNREGISTERED {
            thread_slot::register();
            return Self::current();
        }
        self
    }

    pub(crate) fn id(self) -> u32 {
        self.id
    }

    pub(crate) fn has_id(self) -> bool {
        self.id != UNREGISTERED && self.id != ENDING
    }
}

/// One thread's cache of one pool.
#[repr(C, align(128))]
pub(crate) struct Slot<T> {
    /// The oldest object. Apart from `items` so that taking and returning one object depends on
    /// one store, not on two through `len`.
    private: AtomicPtr<T>,
    items: UnsafeCell<Box<[MaybeUninit<Box<T>>]>>,
    len: AtomicU32,
    /// The last call of [`Registry::call_in`] that this slot has answered; under the lock.
    seen: AtomicU64,
    counts: [AtomicU64; COUNTS],
    /// Lets loom see a slot freed under a reader.
    #[cfg(overdrive_loom)]
    alive: UnsafeCell<()>,
}

impl<T> Slot<T> {
    /// Room for `capacity` objects, of which one is the private one.
    fn new(capacity: usize, seen: u64) -> Self {
        Self {
            private: AtomicPtr::new(ptr::null_mut()),
            #[cfg(not(overdrive_loom))]
            items: UnsafeCell::new(Box::new_uninit_slice(capacity - 1)),
            // A control that reads beyond `len` finds null there.
            #[cfg(overdrive_loom)]
            items: UnsafeCell::new((1..capacity).map(|_| MaybeUninit::zeroed()).collect()),
            len: AtomicU32::new(0),
            seen: AtomicU64::new(seen),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            #[cfg(overdrive_loom)]
            alive: UnsafeCell::new(()),
        }
    }

    /// How many objects it holds; a figure, unless the caller is the owner.
    pub(crate) fn held(&self) -> usize {
        self.touch();
        let private = usize::from(!self.private.load(Ordering::Relaxed).is_null());
        self.len.load(Ordering::Relaxed) as usize + private
    }

    pub(crate) fn count(&self, which: Count) -> u64 {
        self.count_at(which as usize)
    }

    pub(crate) fn count_at(&self, index: usize) -> u64 {
        self.counts[index].load(Ordering::Relaxed)
    }

    /// Moves all objects to the end of `to`, oldest first. For who has removed the slot.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "exclusive access stands in for the owner"
    )]
    pub(crate) fn empty_into(&mut self, to: &mut Vec<Box<T>>) {
        Mine(self).shed(usize::MAX, to);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(crate) fn set_seen(&self, call: u64) {
        self.seen.store(call, Ordering::Relaxed);
    }

    #[cfg(not(overdrive_loom))]
    fn touch(&self) {}

    #[cfg(overdrive_loom)]
    fn touch(&self) {
        self.alive.with(|_| ());
    }

    #[cfg(not(overdrive_loom))]
    pub(crate) fn mark_freed(&self) {}

    #[cfg(overdrive_loom)]
    pub(crate) fn mark_freed(&self) {
        self.alive.with_mut(|_| ());
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.mark_freed();
        let mine = Mine(self);
        while let Some(object) = mine.pop() {
            drop(object);
        }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// The calling thread's own slot. Not `Send`, because a slot is not `Sync`.
#[derive(Debug)]
pub(crate) struct Mine<'a, T>(&'a Slot<T>);

impl<T> Clone for Mine<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Mine<'_, T> {}

impl<'a, T> Mine<'a, T> {
    pub(crate) fn slot(self) -> &'a Slot<T> {
        self.0
    }

    /// Takes the newest object.
    #[inline(always)]
    pub(crate) fn pop(self) -> Option<Box<T>> {
        let len = self.0.len.load(Ordering::Relaxed) as usize;
        if len > 0 {
            self.0.len.store(len as u32 - 1, Ordering::Relaxed);
            return self.0.items.with_mut(|items| {
                // SAFETY: invariant 1, we are the only one here; invariant 2, `len - 1` is
                // initialised and within the slice, and is forgotten by the new `len`.
                Some(unsafe { (&*items).get_unchecked(len - 1).assume_init_read() })
            });
        }
        let private = self.0.private.load(Ordering::Relaxed);
        if private.is_null() {
            return None;
        }
        self.0.private.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: invariant 2, it owned its box; invariant 1, nobody else took it.
        Some(unsafe { Box::from_raw(private) })
    }

    /// Stores `object` as the newest, or gives it back when the slot is full.
    #[inline(always)]
    pub(crate) fn push(self, object: Box<T>) -> Result<(), Box<T>> {
        if self.0.private.load(Ordering::Relaxed).is_null() {
            let object = Box::into_raw(object);
            self.0.private.store(object, Ordering::Relaxed);
            return Ok(());
        }
        let len = self.0.len.load(Ordering::Relaxed) as usize;
        self.0.items.with_mut(|items| {
            // SAFETY: invariant 1, we are the only one here.
            match unsafe { &mut *items }.get_mut(len) {
                None => Err(object),
                Some(place) => {
                    place.write(object);
                    self.0.len.store(len as u32 + 1, Ordering::Relaxed);
                    Ok(())
                }
            }
        })
    }

    /// Moves the `k` oldest objects to the end of `to`, oldest first, and returns how many.
    pub(crate) fn shed(self, k: usize, to: &mut Vec<Box<T>>) -> usize {
        let len = self.0.len.load(Ordering::Relaxed) as usize;
        let private = self.0.private.load(Ordering::Relaxed);
        let assume_full = removed(Mutant::AssumeFull);
        if k == 0 || (private.is_null() && !assume_full) {
            return 0;
        }
        // Beside the private object, which is the oldest.
        let from_items = match assume_full {
            false => (k - 1).min(len),
            // SAFETY: invariant 1, we are the only one here.
            true => (k - 1).min(self.0.items.with_mut(|items| unsafe { (&*items).len() })),
        };
        to.reserve(from_items + 1);
        if !assume_full || !private.is_null() {
            // SAFETY: invariant 2, it owned its box, which moves to `to`; `private` is
            // overwritten below.
            to.push(unsafe { Box::from_raw(private) });
        }
        let mut next = ptr::null_mut();
        let mut left = len.saturating_sub(from_items);
        self.0.items.with_mut(|items| {
            // SAFETY: invariant 1, we are the only one here.
            let base = unsafe { (*items).as_mut_ptr() };
            // SAFETY: invariant 2, the first `from_items <= len` are initialised; `to` has room
            // and is another allocation. They are moved: of the rest, the first becomes the
            // private object, the others close up, and `len` shrinks by as many.
            unsafe {
                let end = to.as_mut_ptr().add(to.len());
                ptr::copy_nonoverlapping(base.cast::<Box<T>>(), end, from_items);
                to.set_len(to.len() + from_items);
                if left > 0 {
                    left -= 1;
                    next = Box::into_raw(base.add(from_items).read().assume_init());
                    ptr::copy(base.add(from_items + 1), base, left);
                }
            }
        });
        self.0.private.store(next, Ordering::Relaxed);
        self.0.len.store(left as u32, Ordering::Relaxed);
        from_items + 1
    }

    /// Moves up to `k` objects from the end of `from` into this slot, which must be empty; the
    /// last becomes the newest. Returns how many.
    pub(crate) fn fill(self, from: &mut Vec<Box<T>>, k: usize) -> usize {
        debug_assert_eq!(self.0.held(), 0, "only an empty slot is filled");
        if k.min(from.len()) == 0 || self.0.held() > 0 {
            return 0;
        }
        let moved = self.0.items.with_mut(|items| {
            // SAFETY: invariant 1, we are the only one here.
            let items = unsafe { &mut *items };
            let k = k.min(from.len()).min(items.len() + 1);
            let rest = from.len() - k;
            // SAFETY: the last `k` of `from` are initialised, fit, and belong to another
            // allocation. They are moved: `from` forgets them, and `private` and `len` adopt
            // them.
            unsafe {
                from.set_len(rest);
                let start = from.as_ptr().add(rest);
                let oldest = Box::into_raw(start.read());
                self.0.private.store(oldest, Ordering::Relaxed);
                let items = items.as_mut_ptr().cast::<Box<T>>();
                ptr::copy_nonoverlapping(start.add(1), items, k - 1);
            }
            k
        });
        self.0.len.store(moved as u32 - 1, Ordering::Relaxed);
        moved
    }

    /// Adds one to a count: a load and a store, since nobody else writes it.
    #[inline(always)]
    pub(crate) fn bump(self, which: Count) {
        self.add(which, 1);
    }

    #[inline(always)]
    pub(crate) fn add(self, which: Count, n: u64) {
        let count = &self.0.counts[which as usize];
        count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

/// The entries, read by their owners without the lock.
#[derive(Debug)]
pub(crate) struct Front<T> {
    near: [AtomicPtr<Slot<T>>; NEAR],
    /// Bucket `b` holds the entries of ids `NEAR << b .. NEAR << (b + 1)`.
    far: [AtomicPtr<Bucket<T>>; BUCKETS],
}

#[derive(Debug)]
struct Bucket<T> {
    entries: Box<[AtomicPtr<Slot<T>>]>,
    /// Lets loom see a bucket read by a thread that its making did not happen before.
    #[cfg(overdrive_loom)]
    made: UnsafeCell<()>,
}

impl<T> Front<T> {
    pub(crate) fn new() -> Self {
        Self {
            near: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// The calling thread's slot, if it has one and is not called in.
    #[inline]
    pub(crate) fn mine(&self, me: Me) -> Option<Mine<'_, T>> {
        let slot = self.entry(me.id)?.load(Ordering::Relaxed);
        // SAFETY: invariant 4, it is the listed slot of the calling thread's id; invariants 1
        // and 3, it stays until this thread detaches it, which no caller does while it holds
        // the result.
        unsafe { slot.as_ref() }.map(Mine)
    }

    /// As [`mine`](Self::mine), but `None` also for the ids with an entry in a bucket. Without
    /// a call, so that the fast path can be a leaf function.
    #[inline(always)]
    pub(crate) fn mine_if_near(&self, me: Me) -> Option<Mine<'_, T>> {
        let slot = self.near.get(me.id as usize)?.load(Ordering::Relaxed);
        // SAFETY: as in `mine`.
        unsafe { slot.as_ref() }.map(Mine)
    }

    /// The entry of `id`, if its bucket exists.
    fn entry(&self, id: u32) -> Option<&AtomicPtr<Slot<T>>> {
        if let Some(entry) = self.near.get(id as usize) {
            return Some(entry);
        }
        let (bucket, index) = place(id);
        // Acquire: pairs with the Release in `entry_or_grow`, so that the entries are seen.
        let bucket = self.far[bucket].load(Ordering::Acquire);
        // SAFETY: invariant 5, a published bucket lives as long as `self`.
        let bucket = unsafe { bucket.as_ref() }?;
        #[cfg(overdrive_loom)]
        bucket.made.with(|_| ());
        Some(&bucket.entries[index])
    }

    /// The entry of `id`; makes its bucket if needed. Under the lock.
    fn entry_or_grow(&self, id: u32) -> &AtomicPtr<Slot<T>> {
        if id as usize >= NEAR {
            let (bucket, _) = place(id);
            if self.far[bucket].load(Ordering::Relaxed).is_null() {
                let fresh = Box::new(Bucket {
                    entries: (0..NEAR << bucket).map(|_| AtomicPtr::default()).collect(),
                    #[cfg(overdrive_loom)]
                    made: UnsafeCell::new(()),
                });
                #[cfg(overdrive_loom)]
                fresh.made.with_mut(|_| ());
                let publish = match removed(Mutant::RelaxedBucket) {
                    false => Ordering::Release,
                    true => Ordering::Relaxed,
                };
                self.far[bucket].store(Box::into_raw(fresh), publish);
            }
        }
        self.entry(id).expect("the bucket exists now")
    }
}

impl<T> Drop for Front<T> {
    fn drop(&mut self) {
        for bucket in &self.far {
            let bucket = bucket.load(Ordering::Relaxed);
            if !bucket.is_null() {
                // SAFETY: invariant 5, it came from a box and only this frees it.
                drop(unsafe { Box::from_raw(bucket) });
            }
        }
    }
}

/// The bucket of `id >= NEAR`, and its index therein.
fn place(id: u32) -> (usize, usize) {
    let bucket = id.ilog2() - NEAR_BITS;
    (bucket as usize, id as usize - (NEAR << bucket))
}

/// All slots by thread id. Lives under the lock of the pool whose `Front` it is used with.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    slots: Vec<*mut Slot<T>>,
    live: usize,
}

// SAFETY: the registry owns its slots, and they own objects of `T: Send`. Loading their atomics
// from another thread is what invariant 1 allows.
unsafe impl<T: Send> Send for Registry<T> {}

impl<T> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            live: 0,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The calling thread's slot, called in or not.
    pub(crate) fn mine(&self, me: Me) -> Option<Mine<'_, T>> {
        let slot = *self.slots.get(me.id as usize)?;
        // SAFETY: invariant 3, it is listed, and only this thread may remove it.
        unsafe { slot.as_ref() }.map(Mine)
    }

    /// Lists a new slot for the calling thread, which has none.
    pub(crate) fn create(&mut self, me: Me, capacity: usize, seen: u64) {
        let index = me.id as usize;
        assert!(
            me.has_id() && capacity > 0,
            "a slot needs an owner and room"
        );
        if index >= self.slots.len() {
            self.slots.resize(index + 1, ptr::null_mut());
        }
        assert!(self.slots[index].is_null(), "a thread has one slot");
        self.slots[index] = Box::into_raw(Box::new(Slot::new(capacity, seen)));
        self.live += 1;
    }

    /// Opens the fast path for the calling thread's slot, if it has one, and returns it.
    pub(crate) fn attach(&self, front: &Front<T>, me: Me) -> Option<Mine<'_, T>> {
        let mine = self.mine(me)?;
        let slot = self.slots[me.id as usize];
        front.entry_or_grow(me.id).store(slot, Ordering::Relaxed);
        Some(mine)
    }

    /// Takes the calling thread's slot out of the registry and off the fast path.
    ///
    /// The result owns its objects, and is freed by its drop.
    pub(crate) fn detach(&mut self, front: &Front<T>, me: Me) -> Option<Box<Slot<T>>> {
        let listed = self.slots.get_mut(me.id as usize)?;
        let slot = *listed;
        if slot.is_null() {
            return None;
        }
        if let Some(entry) = front.entry(me.id) {
            entry.store(ptr::null_mut(), Ordering::Relaxed);
        }
        if !removed(Mutant::FreeOutsideLock) {
            *listed = ptr::null_mut();
        }
        self.live -= 1;
        // SAFETY: invariant 3, a listed slot came from a box; it is listed no more, has no
        // entry, and its owner is the caller.
        Some(unsafe { Box::from_raw(slot) })
    }

    /// Sends the owner of each slot that holds something, except `me`, to its slow path.
    /// Slots without objects have nothing to answer and count as having seen `call`.
    /// Returns how many were called.
    pub(crate) fn call_in(&self, front: &Front<T>, me: Me, call: u64) -> usize {
        let mut called = 0;
        for (id, slot) in self.peek() {
            if id == me.id {
                continue;
            }
            if slot.held() == 0 {
                slot.set_seen(call);
            } else if let Some(entry) = front.entry(id) {
                entry.store(ptr::null_mut(), Ordering::Relaxed);
                called += 1;
            }
            #[cfg(all(test, overdrive_loom))]
            if removed(Mutant::StealFromOwner) {
                while let Some(object) = Mine(slot).pop() {
                    // Leaked, since the owner may take the same one.
                    Box::leak(object);
                    crate::sync::STOLEN.set(crate::sync::STOLEN.get() + 1);
                }
            }
        }
        called
    }

    /// The slots by id, for loading their figures.
    pub(crate) fn peek(&self) -> impl Iterator<Item = (u32, &Slot<T>)> {
        self.slots.iter().enumerate().filter_map(|(id, &slot)| {
            // SAFETY: invariant 3, it is listed, and `&self` keeps it so.
            Some((id as u32, unsafe { slot.as_ref() }?))
        })
    }

    /// Removes all slots and moves their objects to `to`. With the pool's last handle gone.
    pub(crate) fn dismantle(&mut self, to: &mut Vec<Box<T>>) {
        for slot in self.slots.drain(..) {
            if slot.is_null() {
                continue;
            }
            // SAFETY: invariant 3, a listed slot came from a box, and nobody else refers to it:
            // its owner would need a handle of the pool.
            let mut slot = unsafe { Box::from_raw(slot) };
            slot.empty_into(to);
        }
        self.live = 0;
    }
}

impl<T> Drop for Registry<T> {
    fn drop(&mut self) {
        self.dismantle(&mut Vec::new());
    }
}
