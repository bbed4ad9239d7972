//! Tokens held in this process, and the task that gets them.
//!
//! - `held` is what may be spent. Spending is a compare-exchange, without a lock.
//! - One task, the keeper, makes all round trips, one at a time. It serves those who wait in order,
//!   so the queue's lock is held for a moment, and never over a trip.
//! - What is handed to one who has gone comes back by the drop of its [`Handed`]. What does not
//!   fit below `cap` any more goes back to the server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::{Deadline, Timestamp};
use overdrive_remote::RemoteError;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::redis::limiter::Inner;

pub(crate) struct Store {
    held: AtomicU64,
    surplus: AtomicU64,
    cap: u64,
    /// The time until which the server's last denial holds, in nanoseconds.
    denied_until: AtomicU64,
    pub(crate) wanted: AtomicBool,
    pub(crate) work: Notify,
    pub(crate) running: AtomicBool,
    pub(crate) ending: AtomicBool,
    /// The keeper has ended and gives nothing more out.
    pub(crate) ended: Notify,
    queue: Mutex<VecDeque<Waiter>>,
    pub(crate) trips: AtomicU64,
    pub(crate) leased: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) lost: AtomicU64,
}

pub(crate) struct Waiter {
    pub(crate) n: u64,
    pub(crate) answer: oneshot::Sender<Result<Handed, Refused>>,
}

#[derive(Debug)]
pub(crate) enum Refused {
    Denied(Duration),
    Failed(RemoteError),
    Closed,
}

/// Tokens on their way to one who waits.
pub(crate) struct Handed {
    store: Arc<Store>,
    n: u64,
}

impl Handed {
    pub(crate) fn take(mut self) {
        self.n = 0;
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if self.n > 0 {
            self.store.put(self.n);
        }
    }
}

impl Store {
    pub(crate) fn new(cap: u64) -> Self {
        Self {
            held: AtomicU64::new(0),
            surplus: AtomicU64::new(0),
            cap,
            denied_until: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            work: Notify::new(),
            running: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
            queue: Mutex::default(),
            trips: AtomicU64::new(0),
            leased: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// What is left once `n` are spent, if they are there.
    pub(crate) fn spend(&self, n: u64) -> Option<u64> {
        let spent = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                held.checked_sub(n)
            });
        spent.ok().map(|before| before - n)
    }

    fn put(&self, n: u64) {
        let mut over = 0;
        let _always = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                let next = (held + n).min(self.cap);
                over = held + n - next;
                Some(next)
            });
        if over > 0 || self.ending.load(Ordering::Acquire) {
            self.surplus.fetch_add(over, Ordering::AcqRel);
            self.work.notify_one();
        }
    }

    /// How long the server's last denial holds yet.
    pub(crate) fn denied_for(&self) -> Option<Duration> {
        let until = self.denied_until.load(Ordering::Acquire);
        if until == 0 {
            return None;
        }
        let left = Timestamp::from_nanos(until).saturating_since(Timestamp::now());
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves those who wait from what is held: whether nobody waits any more.
    fn serve(self: &Arc<Self>) -> bool {
        loop {
            let mut queue = self.queue();
            let Some(first) = queue.front() else {
                return true;
            };
            if self.spend(first.n).is_none() {
                return false;
            }
            let first = queue.pop_front();
            drop(queue);
            if let Some(Waiter { n, answer }) = first {
                let store = Arc::clone(self);
                // Wakes: not under the lock. Who has gone gives it back by its drop.
                drop(answer.send(Ok(Handed { store, n })));
            }
        }
    }

    fn refuse(&self, refused: impl Fn() -> Refused) {
        let queue = std::mem::take(&mut *self.queue());
        for waiter in queue {
            drop(waiter.answer.send(Err(refused())));
        }
    }
}

/// The task that makes the round trips.
pub(crate) struct Keeper {
    pub(crate) store: Arc<Store>,
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) idle: Duration,
}

impl Keeper {
    pub(crate) async fn run(self) {
        // Also when the runtime ends: then another keeper takes over.
        let _end = End(Arc::clone(&self.store));
        let store = &self.store;
        let mut expires = Instant::now() + self.idle;
        loop {
            let surplus = store.surplus.swap(0, Ordering::AcqRel);
            self.give_back(surplus).await;
            if store.ending.load(Ordering::Acquire) {
                store.refuse(|| Refused::Closed);
                let held = store.held.swap(0, Ordering::AcqRel);
                self.give_back(held).await;
                if store.queue().is_empty() && store.held() == 0 {
                    return;
                }
                continue;
            }
            let served = store.serve();
            if !served || store.wanted.swap(false, Ordering::AcqRel) {
                if self.fetch().await {
                    expires = Instant::now() + self.idle;
                }
                continue;
            }
            let work = store.work.notified();
            if store.held() == 0 {
                work.await;
            } else if timeout_at(expires, work).await.is_err() {
                // Nobody has needed more for so long.
                let held = store.held.swap(0, Ordering::AcqRel);
                self.give_back(held).await;
            }
        }
    }

    /// One trip, and its answer for those who wait: whether it brought anything.
    async fn fetch(&self) -> bool {
        let (store, inner) = (&self.store, &*self.inner);
        store.trips.fetch_add(1, Ordering::Relaxed);
        let deadline = inner.by(Deadline::NEVER);
        let answer = match inner.take(&self.key, self.size, true, deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                store.refuse(|| Refused::Failed(error.clone()));
                return false;
            }
        };
        store.leased.fetch_add(answer.got, Ordering::Relaxed);
        inner.fallback.charge(&self.key, answer.got);
        // Those who wait come first: what they take need not fit below the cap.
        if answer.got > 0 {
            store.put(answer.got);
        }
        let served = store.serve();
        if answer.got == self.size {
            store.denied_until.store(0, Ordering::Release);
        } else {
            let next = inner.units.delay(answer.arrival, answer.now, 1);
            let until = Timestamp::now().saturating_add(next.min(self.idle));
            store
                .denied_until
                .store(until.as_nanos(), Ordering::Release);
            if !served {
                store.refuse(|| Refused::Denied(next));
            }
        }
        answer.got > 0
    }

    async fn give_back(&self, n: u64) {
        if n == 0 {
            return;
        }
        let deadline = self.inner.by(Deadline::NEVER);
        let given = self.inner.refund(&self.key, n, deadline).await;
        let count = match given {
            Ok(()) => &self.store.returned,
            Err(_) => &self.store.lost,
        };
        count.fetch_add(n, Ordering::Relaxed);
    }
}

struct End(Arc<Store>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
        self.0.refuse(|| Refused::Closed);
        self.0.ended.notify_waiters();
    }
}
