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

#[cfg(all(feature = "redis", overdrive_loom))]
pub(crate) use loom::sync::atomic::AtomicBool;
#[cfg(all(feature = "redis", not(overdrive_loom)))]
pub(crate) use {std::sync::atomic::AtomicBool, tokio::sync::Notify};

/// With what its users read and write around it in order, of which loom would not know.
#[cfg(all(feature = "redis", overdrive_loom))]
#[derive(Debug)]
pub(crate) struct Notify {
    notify: tokio::sync::Notify,
    order: AtomicU64,
}

#[cfg(all(feature = "redis", overdrive_loom))]
impl Notify {
    pub(crate) fn new() -> Self {
        Self {
            notify: tokio::sync::Notify::new(),
            order: AtomicU64::new(0),
        }
    }

    pub(crate) fn notify_one(&self) {
        self.order.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_one();
    }

    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
        self.order.fetch_add(1, Ordering::AcqRel);
    }
}

/// A guard that a control takes away, to show that its model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Who puts a key in does so without the lock of its stripe.
    EnterUnlocked,
    /// A denial that was remembered is not forgotten when the cell is taken.
    KeepTheDenial,
    /// What was handed to one who has gone counts as looked at before it is back.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "of the leases"))]
    CountEarly,
    /// Who waits for a permit looks for one before those who give one back know of it.
    LookWithoutMark,
    /// Who puts a key in does not wait for slots that change hands.
    PassTheBusy,
    /// A change of quota may reuse arrival times of the quota before.
    RepeatArrivals,
    /// Who puts a key in does not look for it in the third part.
    SeekInTwo,
    /// A token of a lease is spent without a comparison.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "of the leases"))]
    SpendBlindly,
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
