//! The primitives that the loom models replace, and the switch for their controls.

#[cfg(overdrive_loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};
#[cfg(not(overdrive_loom))]
pub(crate) use std::{
    sync::atomic::{AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};

/// A guard that a control takes away, to show that its model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Who puts a key in does so without the lock of its stripe.
    EnterUnlocked,
    /// A denial that was remembered is not forgotten when the cell is taken.
    KeepTheDenial,
    /// Who waits for a permit looks for one before those who give one back know of it.
    LookWithoutMark,
    /// Who puts a key in does not wait for slots that change hands.
    PassTheBusy,
    /// A change of quota may reuse arrival times of the quota before.
    RepeatArrivals,
    /// A check stores its charge instead of comparing.
    StoreBlindly,
    /// A check does not look again whether the quota changed.
    TrustTheQuota,
    /// A check does not look again whether the slot is still its key's.
    TrustTheTag,
}

/// Whether the running model has taken `mutant`'s guard away; constant `false` in real builds.
#[cfg(not(all(test, overdrive_loom)))]
#[inline(always)]
pub(crate) const fn removed(_: Mutant) -> bool {
    false
}

#[cfg(all(test, overdrive_loom))]
pub(crate) fn removed(mutant: Mutant) -> bool {
    REMOVED.get() == Some(mutant)
}

#[cfg(all(test, overdrive_loom))]
thread_local! {
    /// Loom runs all threads of a model on the thread of its test.
    pub(crate) static REMOVED: std::cell::Cell<Option<Mutant>> =
        const { std::cell::Cell::new(None) };
}
