//! Tokens held in this process, and the task that gets them.
//!
//! - `held` is what may be spent. Spending is a compare-exchange, without a lock.
//! - One task, the keeper, makes all round trips, one at a time. It serves those who wait in order,
//!   so the queue's lock is held for a moment, and never over a trip.
//! - What is handed to one who has gone comes back by the drop of its [`Handed`], of which the
//!   keeper is told. What does not fit below `cap` any more is surplus, and goes back to the server.
//! - A keeper may go with its runtime at any moment, also before its first poll. Then [`End`] tells
//!   those who wait, and what was on its way back counts as lost, as it may have arrived.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::AtomicU64 as Figure;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use overdrive_core::{Deadline, Timestamp};
use overdrive_remote::RemoteError;
use tokio::sync::{Notify as Announcement, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::redis::limiter::Inner;
use crate::redis::script::Answer;
use crate::redis::units::Units;
use crate::sync::{AtomicBool, AtomicU64, Mutant, Mutex, MutexGuard, Notify, Ordering, removed};

/// So long after it was handed over a token can be spent, or after the idle time if that is longer.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) struct Store {
    held: AtomicU64,
    /// To go back to the server.
    surplus: AtomicU64,
    /// On its way there.
    returning: AtomicU64,
    /// Handed to those who wait, and not looked at by them.
    handed: AtomicU64,
    cap: u64,
    /// How long what was handed over can be spent.
    keeps: Duration,
    /// The time until which the server's last denial holds, in nanoseconds.
    denied_until: AtomicU64,
    /// What the server said then.
    denial: Mutex<Option<(Answer, Timestamp)>>,
    pub(crate) wanted: AtomicBool,
    pub(crate) work: Notify,
    pub(crate) running: AtomicBool,
    pub(crate) ending: AtomicBool,
    /// The keeper has ended and gives nothing more out.
    pub(crate) ended: Announcement,
    queue: Mutex<VecDeque<Waiter>>,
    pub(crate) trips: Figure,
    pub(crate) leased: Figure,
    pub(crate) returned: Figure,
    pub(crate) lost: Figure,
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
    /// The keeper has gone with its runtime.
    Orphaned,
}

/// Tokens on their way to one who waits.
pub(crate) struct Handed {
    store: Arc<Store>,
    n: u64,
    since: Instant,
}

impl Handed {
    /// Whether it can be spent: not if it lay there for too long, when it goes back to the server.
    pub(crate) fn take(mut self) -> bool {
        let in_time = self.since.elapsed() <= self.store.keeps;
        self.end(|store, n| {
            if !in_time {
                store.surplus.fetch_add(n, Ordering::AcqRel);
            }
        });
        in_time
    }

    fn end(&mut self, goes: impl FnOnce(&Store, u64)) {
        let n = std::mem::take(&mut self.n);
        if n > 0 {
            let looked_at = || self.store.handed.fetch_sub(n, Ordering::AcqRel);
            if removed(Mutant::CountEarly) {
                looked_at();
                goes(&self.store, n);
            } else {
                goes(&self.store, n);
                // After it: the keeper ends once nothing is left.
                looked_at();
            }
            self.store.work.notify_one();
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.end(Store::put);
    }
}

/// Tokens on their way back: lost, unless the server says that it has them.
struct Returning<'s> {
    store: &'s Store,
    n: u64,
    arrived: bool,
}

impl Drop for Returning<'_> {
    fn drop(&mut self) {
        let count = if self.arrived {
            &self.store.returned
        } else {
            &self.store.lost
        };
        count.fetch_add(self.n, Ordering::Relaxed);
        self.store.returning.fetch_sub(self.n, Ordering::AcqRel);
    }
}

impl Store {
    pub(crate) fn new(cap: u64, idle: Duration) -> Self {
        Self {
            held: AtomicU64::new(0),
            surplus: AtomicU64::new(0),
            returning: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            cap,
            keeps: idle.max(GRACE),
            denied_until: AtomicU64::new(0),
            denial: Mutex::new(None),
            wanted: AtomicBool::new(false),
            work: Notify::new(),
            running: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            ended: Announcement::new(),
            queue: Mutex::new(VecDeque::new()),
            trips: Figure::new(0),
            leased: Figure::new(0),
            returned: Figure::new(0),
            lost: Figure::new(0),
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Acquire)
    }

    /// What the server has not got back: held, handed over, or on its way.
    pub(crate) fn left(&self) -> u64 {
        let going = [&self.surplus, &self.returning];
        let going = going.map(|count| count.load(Ordering::Acquire));
        self.handed() + self.held() + going[0] + going[1]
    }

    /// What is left once `n` are spent, if they are there.
    pub(crate) fn spend(&self, n: u64) -> Option<u64> {
        if removed(Mutant::SpendBlindly) {
            let left = self.held().checked_sub(n)?;
            self.held.store(left, Ordering::Release);
            return Some(left);
        }
        let spent = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                held.checked_sub(n)
            });
        spent.ok().map(|before| before - n)
    }

    pub(crate) fn put(&self, n: u64) {
        let mut over = 0;
        let _always = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                let next = (held + n).min(self.cap);
                over = held + n - next;
                Some(next)
            });
        self.surplus.fetch_add(over, Ordering::AcqRel);
    }

    /// All that is held is to go back.
    fn expire(&self) {
        let held = self.held.swap(0, Ordering::AcqRel);
        self.surplus.fetch_add(held, Ordering::AcqRel);
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

    /// How long until `n` are there, as far as is known.
    pub(crate) fn delay(&self, units: &Units, n: u64) -> Duration {
        let denial = *self.denial.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((answer, at)) = denial else {
            return Duration::ZERO;
        };
        let missing = n.saturating_sub(self.held()).max(1);
        let delay = units.delay(answer.arrival, answer.now, missing);
        delay.saturating_sub(Timestamp::now().saturating_since(at))
    }

    fn believe(&self, answer: Answer, next: Duration) {
        let now = Timestamp::now();
        *self.denial.lock().unwrap_or_else(PoisonError::into_inner) = Some((answer, now));
        let until = now.saturating_add(next).as_nanos();
        self.denied_until.store(until, Ordering::Release);
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves those who wait from what is held: whether nobody waits any more.
    pub(crate) fn serve(self: &Arc<Self>) -> bool {
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
            if let Some(first) = first {
                self.hand(first);
            }
        }
    }

    /// What was spent for it. Wakes: not under the lock. Who has gone gives it back by its drop.
    fn hand(self: &Arc<Self>, waiter: Waiter) {
        let Waiter { n, answer } = waiter;
        self.handed.fetch_add(n, Ordering::AcqRel);
        let (store, since) = (Arc::clone(self), Instant::now());
        drop(answer.send(Ok(Handed { store, n, since })));
    }

    /// Serves whom it can, whatever their place, and denies the others: there is no more to come.
    fn settle(self: &Arc<Self>, units: &Units) {
        let queue = std::mem::take(&mut *self.queue());
        let mut denied = Vec::new();
        for waiter in queue {
            if self.spend(waiter.n).is_some() {
                self.hand(waiter);
            } else {
                denied.push(waiter);
            }
        }
        for Waiter { n, answer } in denied {
            drop(answer.send(Err(Refused::Denied(self.delay(units, n)))));
        }
    }

    fn refuse(&self, refused: impl Fn() -> Refused) {
        let queue = std::mem::take(&mut *self.queue());
        for waiter in queue {
            drop(waiter.answer.send(Err(refused())));
        }
    }
}

/// Where tokens come from.
pub(crate) trait Source: Send + Sync {
    /// As many as there are, `n` at most.
    fn lease(&self, n: u64) -> impl Future<Output = Result<Answer, RemoteError>> + Send;

    fn give_back(&self, n: u64) -> impl Future<Output = Result<(), RemoteError>> + Send;

    fn units(&self) -> &Units;
}

/// One key at the server.
pub(crate) struct KeyAtServer {
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: Vec<u8>,
}

impl Source for KeyAtServer {
    async fn lease(&self, n: u64) -> Result<Answer, RemoteError> {
        let Self { inner, key } = self;
        let answer = inner.take(key, n, true, inner.by(Deadline::NEVER)).await?;
        inner.fallback.charge(key, answer.got);
        Ok(answer)
    }

    async fn give_back(&self, n: u64) -> Result<(), RemoteError> {
        let deadline = self.inner.by(Deadline::NEVER);
        self.inner.refund(&self.key, n, deadline).await
    }

    fn units(&self) -> &Units {
        &self.inner.units
    }
}

/// The task that makes the round trips.
pub(crate) struct Keeper<S> {
    pub(crate) store: Arc<Store>,
    pub(crate) source: S,
    pub(crate) size: u64,
    pub(crate) idle: Duration,
    /// There before the task is: also when that is never polled, another keeper takes over.
    #[expect(dead_code, reason = "it is there for its drop")]
    pub(crate) end: End,
}

impl<S: Source> Keeper<S> {
    pub(crate) async fn run(self) {
        let store = &self.store;
        let mut expires = Instant::now() + self.idle;
        loop {
            self.give_back().await;
            if store.ending.load(Ordering::Acquire) {
                store.refuse(|| Refused::Closed);
                store.expire();
                if store.left() == 0 && store.queue().is_empty() {
                    return;
                }
                if store.left() == store.handed() {
                    // Until they are looked at, or dropped.
                    store.work.notified().await;
                }
                continue;
            }
            let served = store.serve();
            // One lease does for both.
            let wanted = store.wanted.swap(false, Ordering::AcqRel);
            if !served || wanted {
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
                store.expire();
            }
        }
    }

    /// One trip, and its answer for those who wait: whether it brought anything.
    async fn fetch(&self) -> bool {
        let (store, units) = (&self.store, self.source.units());
        store.trips.fetch_add(1, Ordering::Relaxed);
        let answer = match self.source.lease(self.size).await {
            Ok(answer) => answer,
            Err(error) => {
                store.refuse(|| Refused::Failed(error.clone()));
                return false;
            }
        };
        store.leased.fetch_add(answer.got, Ordering::Relaxed);
        // What does not fit below the cap goes back, whoever waits: they ask again.
        store.put(answer.got);
        if answer.got == self.size {
            store.denied_until.store(0, Ordering::Release);
            store.serve();
        } else {
            let next = units.delay(answer.arrival, answer.now, 1);
            store.believe(answer, next.min(self.idle));
            store.settle(units);
        }
        answer.got > 0
    }

    async fn give_back(&self) {
        let store = &*self.store;
        let n = store.surplus.swap(0, Ordering::AcqRel);
        if n == 0 {
            return;
        }
        store.returning.fetch_add(n, Ordering::AcqRel);
        let mut returning = Returning {
            store,
            n,
            arrived: false,
        };
        returning.arrived = self.source.give_back(n).await.is_ok();
    }
}

/// The end of a keeper, however it comes.
pub(crate) struct End(pub(crate) Arc<Store>);

impl Drop for End {
    fn drop(&mut self) {
        let store = &self.0;
        // It reads what those wrote who counted on this keeper, so that they are seen below.
        store.running.swap(false, Ordering::AcqRel);
        let ending = store.ending.load(Ordering::Acquire);
        store.refuse(|| {
            if ending {
                Refused::Closed
            } else {
                Refused::Orphaned
            }
        });
        store.ended.notify_waiters();
    }
}
