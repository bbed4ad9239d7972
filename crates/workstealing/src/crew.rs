//! The worker threads: how many there are, how they start and leave.

use std::io;
use std::sync::Arc;

use crate::engine::Shared;
use crate::sync::{AtomicU32, JoinHandle, Mutex, Ordering, lock, spawn_thread};

pub(crate) struct Crew {
    slots: Mutex<Vec<Place>>,
    /// Threads that have not decided to leave.
    live: AtomicU32,
    /// Those of them that block.
    blocked: AtomicU32,
    /// Slots `0..places` have had a thread.
    places: AtomicU32,
}

#[derive(Default)]
struct Place {
    taken: bool,
    /// Of the last thread.
    handle: Option<JoinHandle<()>>,
}

impl Crew {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            slots: Mutex::new((0..threads).map(|_| Place::default()).collect()),
            live: AtomicU32::new(0),
            blocked: AtomicU32::new(0),
            places: AtomicU32::new(0),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn places(&self) -> usize {
        self.places.load(Ordering::Acquire) as usize
    }

    /// Workers that do not block.
    pub(crate) fn able(&self) -> usize {
        self.live().saturating_sub(self.blocked())
    }

    /// Whether there are more than that which do not block.
    pub(crate) fn is_surplus(&self, least: usize) -> bool {
        self.able() > least
    }

    pub(crate) fn block(&self) {
        self.blocked.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn unblock(&self) {
        self.blocked.fetch_sub(1, Ordering::AcqRel);
    }

    /// One leaves, if more than that are left that do not block.
    pub(crate) fn leave(&self, least: usize) -> bool {
        let mut live = self.live.load(Ordering::Relaxed);
        loop {
            if (live as usize).saturating_sub(self.blocked()) <= least {
                return false;
            }
            let left = self.live.compare_exchange_weak(
                live,
                live - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match left {
                Ok(_) => return true,
                Err(now) => live = now,
            }
        }
    }

    /// One leaves for good.
    pub(crate) fn end(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    /// That slot is free.
    pub(crate) fn vacate(&self, slot: usize) {
        lock(&self.slots)[slot].taken = false;
    }
}

impl Shared {
    /// Starts one more worker, if there is a slot. Whether there was.
    pub(crate) fn start_worker(
        self: &Arc<Self>,
        start: impl FnOnce(Arc<Self>, usize) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<bool> {
        let crew = &self.crew;
        let mut slots = lock(&crew.slots);
        let Some(n) = slots.iter().position(|place| !place.taken) else {
            return Ok(false);
        };
        // Under the lock, so that an end finds either the thread or nothing.
        if self.ending.load(Ordering::SeqCst) {
            return Ok(false);
        }
        crew.live.fetch_add(1, Ordering::AcqRel);
        crew.places.fetch_max(n as u32 + 1, Ordering::AcqRel);
        match start(Arc::clone(self), n) {
            Ok(handle) => {
                slots[n] = Place {
                    taken: true,
                    handle: Some(handle),
                };
                Ok(true)
            }
            Err(error) => {
                crew.end();
                Err(error)
            }
        }
    }

    /// As the builder does.
    pub(crate) fn start_thread(self: &Arc<Self>) -> io::Result<bool> {
        self.start_worker(|shared, n| {
            let name = format!("overdrive-workstealing-{n}");
            let stack_size = shared.parts.stack_size;
            spawn_thread(name, stack_size, move || shared.work(n))
        })
    }

    /// The threads that have been started, to be joined.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        let mut slots = lock(&self.crew.slots);
        slots
            .iter_mut()
            .filter_map(|place| place.handle.take())
            .collect()
    }
}
