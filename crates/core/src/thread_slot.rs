//! Small dense thread ids, reused after a thread ends, and hooks for that end.
//!
//! A structure that keeps something per thread indexes it by [`current`]: one load of a
//! thread-local, no initialiser, no destructor check. The ids of the threads alive stay near
//! `1..=threads`, because the smallest free id is given out first.
//!
//! # Life of an id
//!
//! 1. [`UNREGISTERED`] until the thread calls [`register`].
//! 2. An id of its own. No other living thread has it.
//! 3. At the end of the thread [`current`] turns to [`ENDING`] for good, each hook of [`on_exit`]
//!    runs with the id, and only then does the id return to the heap of free ids.
//!
//! The heap is behind a lock, so whatever the last holder of an id did (its hooks included)
//! happens before anything its next holder does. That is what lets per-thread data be handed on
//! without further synchronisation.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use crate::unwind::survive;

/// The answer of [`current`] on a thread that has no id yet.
pub const UNREGISTERED: u32 = 0;

/// The answer of [`current`] on a thread whose exit hooks have begun to run.
pub const ENDING: u32 = u32::MAX;

/// The calling thread's id, or [`UNREGISTERED`], or [`ENDING`].
///
/// ```
/// use overdrive_core::thread_slot;
///
/// let id = thread_slot::register();
/// assert_eq!(id, thread_slot::current());
/// ```
#[inline]
#[must_use]
pub fn current() -> u32 {
    ID.get()
}

/// Gives the calling thread an id, unless it has one or is ending, and returns [`current`].
///
/// Never fails: on a thread that is ending the answer is [`ENDING`].
pub fn register() -> u32 {
    let id = ID.get();
    if id != UNREGISTERED {
        return id;
    }
    // The destructor must be in place before there is an id to give back.
    match EXIT.try_with(|_| ()) {
        Ok(()) => {
            let id = IDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            if id != ENDING {
                HIGHEST.fetch_max(id, Ordering::SeqCst);
            }
            ID.set(id);
        }
        Err(_) => ID.set(ENDING),
    }
    ID.get()
}

/// No thread has, or had, an id above this one.
///
/// An id counts here before its thread gets it. So who comes after a sequentially consistent
/// operation of that thread, in the one order of all such, sees it counted.
///
/// ```
/// use overdrive_core::thread_slot;
///
/// let id = thread_slot::register();
/// assert!(id <= thread_slot::highest());
/// ```
#[inline]
#[must_use]
pub fn highest() -> u32 {
    HIGHEST.load(Ordering::SeqCst)
}

/// Something to do when a thread ends.
pub trait ExitHook: Send + Sync {
    /// Runs on the ending thread, whose id was `id` and still belongs to it.
    ///
    /// [`current`] is [`ENDING`] by now. A panic in here is caught, so that the other hooks and
    /// the return of the id are not lost.
    fn thread_exit(&self, id: u32);
}

/// Registers the calling thread and has `hook` run once at its end, if it still exists then.
///
/// Returns whether it will: not on a thread that is already ending. Hooks that no longer exist
/// are pruned as the list grows, so the list stays proportional to the living ones.
#[must_use]
pub fn on_exit(hook: Weak<dyn ExitHook>) -> bool {
    if register() == ENDING {
        return false;
    }
    EXIT.try_with(|exit| {
        let mut hooks = exit.hooks.borrow_mut();
        if hooks.len() >= exit.prune_at.get() {
            hooks.retain(|hook| hook.strong_count() > 0);
            exit.prune_at.set((2 * hooks.len()).max(PRUNE_FROM));
        }
        hooks.push(hook);
    })
    .is_ok()
}

const PRUNE_FROM: usize = 16;

thread_local! {
    // No destructor, so it can be read at any time in a thread's life.
    static ID: Cell<u32> = const { Cell::new(UNREGISTERED) };
    static EXIT: Exit = const {
        Exit { hooks: RefCell::new(Vec::new()), prune_at: Cell::new(PRUNE_FROM) }
    };
}

static HIGHEST: AtomicU32 = AtomicU32::new(0);

static IDS: Mutex<Ids> = Mutex::new(Ids {
    free: BinaryHeap::new(),
    used: 0,
});

struct Exit {
    hooks: RefCell<Vec<Weak<dyn ExitHook>>>,
    prune_at: Cell<usize>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        let id = ID.replace(ENDING);
        for hook in self.hooks.take() {
            // A panic that left this destructor would end the process. The upgraded handle is
            // dropped inside as well: it may be the last one, and run a user's destructors.
            survive(|| {
                if let Some(hook) = hook.upgrade() {
                    hook.thread_exit(id);
                }
            });
        }
        if id != UNREGISTERED && id != ENDING {
            IDS.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .give_back(id);
        }
    }
}

struct Ids {
    free: BinaryHeap<Reverse<u32>>,
    /// Ids `1..=used` have been given out at some time.
    used: u32,
}

impl Ids {
    fn take(&mut self) -> u32 {
        if let Some(Reverse(id)) = self.free.pop() {
            return id;
        }
        if self.used == ENDING - 1 {
            // Four thousand million threads alive: the rest go without.
            return ENDING;
        }
        self.used += 1;
        self.used
    }

    fn give_back(&mut self, id: u32) {
        self.free.push(Reverse(id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    struct Recorder(Mutex<Vec<(u32, u32)>>);

    impl ExitHook for Recorder {
        fn thread_exit(&self, id: u32) {
            self.0.lock().unwrap().push((id, current()));
        }
    }

    struct Panics;

    impl ExitHook for Panics {
        fn thread_exit(&self, _: u32) {
            struct Payload;
            impl Drop for Payload {
                fn drop(&mut self) {
                    panic!("and so does its payload");
                }
            }
            std::panic::panic_any(Payload);
        }
    }

    fn weak<H: ExitHook + 'static>(hook: &Arc<H>) -> Weak<dyn ExitHook> {
        let weak: Weak<H> = Arc::downgrade(hook);
        weak
    }

    #[test]
    fn the_smallest_free_id_comes_first() {
        let mut ids = Ids {
            free: BinaryHeap::new(),
            used: 0,
        };
        assert_eq!([ids.take(), ids.take(), ids.take()], [1, 2, 3]);
        ids.give_back(3);
        ids.give_back(1);
        assert_eq!([ids.take(), ids.take(), ids.take()], [1, 3, 4]);
        ids.used = ENDING - 1;
        assert_eq!(ids.take(), ENDING);
    }

    #[test]
    fn living_threads_have_different_ids() {
        let barrier = Arc::new(Barrier::new(8));
        let (send, receive) = channel();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (barrier, send) = (Arc::clone(&barrier), send.clone());
                thread::spawn(move || {
                    assert_eq!(current(), UNREGISTERED);
                    send.send(register()).unwrap();
                    barrier.wait();
                    assert_eq!(register(), current());
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut ids: Vec<_> = receive.try_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8);
        assert!(!ids.contains(&UNREGISTERED) && !ids.contains(&ENDING));
    }

    #[test]
    fn hooks_see_the_id_and_an_ending_thread() {
        let recorder = Arc::new(Recorder(Mutex::new(Vec::new())));
        let gone = Arc::new(Panics);
        let panics = Arc::new(Panics);
        let (r, g, p) = (weak(&recorder), weak(&gone), weak(&panics));
        drop(gone);
        let id = thread::spawn(move || {
            assert!(on_exit(g));
            assert!(on_exit(p));
            assert!(on_exit(r));
            current()
        })
        .join()
        .unwrap();
        assert_eq!(*recorder.0.lock().unwrap(), [(id, ENDING)]);
    }

    #[test]
    fn an_ending_thread_takes_no_further_hook() {
        struct Late(AtomicU32);
        impl ExitHook for Late {
            fn thread_exit(&self, _: u32) {
                assert_eq!(register(), ENDING);
                let more: Weak<dyn ExitHook> = Weak::<Self>::new();
                if !on_exit(more) {
                    self.0.store(1, Ordering::Relaxed);
                }
            }
        }
        let late = Arc::new(Late(AtomicU32::new(0)));
        let hook = weak(&late);
        thread::spawn(move || assert!(on_exit(hook)))
            .join()
            .unwrap();
        assert_eq!(late.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn dead_hooks_are_pruned() {
        thread::spawn(|| {
            for _ in 0..10_000 {
                let hook = Arc::new(Panics);
                assert!(on_exit(weak(&hook)));
            }
            EXIT.with(|exit| assert!(exit.hooks.borrow().len() <= 2 * PRUNE_FROM));
        })
        .join()
        .unwrap();
    }
}
