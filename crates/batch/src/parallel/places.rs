//! Places of futures that stay where they are, and wakers that know their place, few allocations for
//! many of them.
//!
//! The only unsafe code of the map. With safe code each place is two allocations, a pinned box and a
//! shared waker, and a call of ten items that wait took more than twice as long (`batch/parallel_map_short`).
//!
//! # Invariants
//! 1. A [`Place`] never moves once its chunk is made: chunks are boxed slices, which are neither
//!    replaced nor handed out, and dropped where they are.
//! 2. A place's future is only ever reached through `Pin`, and cleared in place.
//! 3. An [`Entry`] is in the `entries` of the [`Wakers`] that its `owner` points to, which are never
//!    changed, moved or freed while an `Arc` of the owner lives.
//! 4. Each [`Waker`] made of an entry owns one strong count of the owner, given up when it is dropped;
//!    but that of [`Wakers::borrow`] owns none, is never dropped, and lives no longer than a borrow of
//!    the owner.
#![allow(unsafe_code, reason = "see above")]

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::parallel::ready::Ready;

/// Places in the first chunk; each further one has twice as many.
const FIRST: usize = 16;

/// A growing row of places.
pub(super) struct Places<Fut> {
    chunks: Vec<Box<[Place<Fut>]>>,
    len: usize,
    room: usize,
}

struct Place<Fut> {
    future: Option<Fut>,
    position: usize,
}

impl<Fut> Places<Fut> {
    /// For at most so many.
    pub(super) const fn new(room: usize) -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
            room,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// One more, empty. Not to be called beyond the room.
    pub(super) fn push(&mut self) {
        let (chunk, _) = split(self.len);
        if chunk == self.chunks.len() {
            let len = (FIRST << chunk).min(self.room - self.len);
            let empty = |_| Place {
                future: None,
                position: 0,
            };
            self.chunks.push((0..len).map(empty).collect());
        }
        self.len += 1;
    }

    /// A place, and the position of its item.
    pub(super) fn get(&mut self, index: usize) -> (Pin<&mut Option<Fut>>, &mut usize) {
        let (chunk, offset) = split(index);
        let Place { future, position } = &mut self.chunks[chunk][offset];
        // SAFETY: it stays where it is until it is dropped there (1), and nobody reaches it
        // otherwise (2).
        (unsafe { Pin::new_unchecked(future) }, position)
    }
}

/// Which chunk, and where in it.
const fn split(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST + 1).ilog2() as usize;
    (chunk, index - FIRST * ((1 << chunk) - 1))
}

/// The wakers of a row of places.
pub(super) struct Wakers {
    ready: Ready,
    entries: Box<[Entry]>,
}

struct Entry {
    owner: *const Wakers,
    place: usize,
}

// SAFETY: the pointer is used to reach the owner's `Ready` and count, which any thread may (3).
unsafe impl Send for Entry {}
// SAFETY: as above; an entry is never changed.
unsafe impl Sync for Entry {}

impl Wakers {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new_cyclic(|owner: &Weak<Self>| {
            let entry = |place| Entry {
                owner: owner.as_ptr(),
                place,
            };
            Self {
                ready: Ready::new(places),
                entries: (0..places).map(entry).collect(),
            }
        })
    }

    pub(super) const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A place's waker, which counts nothing until it is cloned.
    pub(super) fn borrow(&self, place: usize) -> Borrowed<'_> {
        let raw = RawWaker::new((&raw const self.entries[place]).cast(), &VTABLE);
        // SAFETY: the functions of the table keep the contract of `RawWaker` for pointers to entries
        // (3); this one owns no count, so it must not be dropped, and is not (4).
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw) });
        Borrowed {
            waker,
            _owner: self,
        }
    }
}

/// A waker that owns nothing.
pub(super) struct Borrowed<'a> {
    waker: ManuallyDrop<Waker>,
    _owner: &'a Wakers,
}

impl std::ops::Deref for Borrowed<'_> {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.waker
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: `data` is of a waker, so an entry whose owner lives (3, 4).
    unsafe { Arc::increment_strong_count((*data.cast::<Entry>()).owner) };
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    /// Gives the count up also when the task's waker panics.
    struct Release(*const ());
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: the waker that was consumed owned a count (4).
            unsafe { release(self.0) };
        }
    }
    let _release = Release(data);
    // SAFETY: as the caller's; the count is given up afterwards.
    unsafe { wake_by_ref(data) };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: `data` is of a waker, so an entry whose owner lives (3, 4).
    let entry = unsafe { &*data.cast::<Entry>() };
    // SAFETY: as above.
    unsafe { &*entry.owner }.ready.wake(entry.place);
}

unsafe fn release(data: *const ()) {
    // SAFETY: `data` is of a waker, so an entry whose owner lives (3); read before it may be freed.
    let owner = unsafe { (*data.cast::<Entry>()).owner };
    // SAFETY: the waker owned a count, and is gone (4).
    unsafe { Arc::decrement_strong_count(owner) };
}

#[cfg(test)]
#[cfg(not(overdrive_loom))]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_and_stay() {
        for room in [1, 15, 16, 17, 63, 1000] {
            let mut places = Places::new(room);
            let mut addresses = Vec::new();
            for index in 0..room {
                places.push();
                let (mut future, position) = places.get(index);
                future.set(Some(index));
                *position = index * 2;
                addresses.push(&raw const *future);
            }
            assert_eq!(places.len(), room);
            for (index, address) in addresses.into_iter().enumerate() {
                let (future, position) = places.get(index);
                assert_eq!((*future, *position), (Some(index), index * 2));
                assert_eq!(&raw const *future, address);
            }
        }
    }

    #[test]
    fn wakers_keep_their_row_until_the_last_is_dropped() {
        let wakers = Wakers::new(100);
        let seven = wakers.borrow(7).clone();
        let other = seven.clone();
        assert!(seven.will_wake(&other));
        assert!(!seven.will_wake(&wakers.borrow(8)));
        assert_eq!(Arc::strong_count(&wakers), 3);
        seven.wake();
        assert_eq!(Arc::strong_count(&wakers), 2);
        let row = Arc::downgrade(&wakers);
        drop(wakers);
        other.wake_by_ref();
        assert!(row.upgrade().is_some());
        other.wake();
        assert!(row.upgrade().is_none());
    }
}
