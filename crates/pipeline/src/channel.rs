//! A bounded channel into a pipeline.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::Deadline;
use overdrive_core::unwind::survive;

use crate::error::{SendError, TrySendError};
use crate::item::{Item, Token};
use crate::monitor::Watch;
use crate::stage::{Stage, Threads};

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Room, or the end.
    changed: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    closed: bool,
    /// The pipeline is gone.
    ended: bool,
    receiver: Option<Waker>,
    /// Those who wait for room, by number.
    waiting: BTreeMap<u64, Waker>,
    next_id: u64,
}

impl<T> State<T> {
    fn takes_none(&self) -> bool {
        self.closed || self.ended
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of a user runs under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there is room, or will be none.
    fn tell_senders(&self, mut state: MutexGuard<'_, State<T>>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        waiting.into_values().for_each(wake);
    }

    fn tell_receiver(mut state: MutexGuard<'_, State<T>>) {
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            wake(receiver);
        }
    }
}

/// A waker is code of others: if one panics, the rest are woken all the same.
fn wake(waker: Waker) {
    survive(|| waker.wake());
}

/// The way into a pipeline that was made by
/// [`Pipeline::from_channel`](crate::Pipeline::from_channel). Clones send into the same pipeline.
///
/// The pipeline ends once it was [closed](Self::close), or the last clone dropped, and all that
/// was sent went through it. If it ends before that, by an error or a cancellation, what it never
/// took can be had back with [`reclaim`](Self::reclaim).
pub struct Ingress<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Ingress<T> {
    /// Sends an item if there is room now.
    ///
    /// # Errors
    /// The item: there is none, or the pipeline takes no more.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.shared.lock();
        if state.takes_none() {
            return Err(TrySendError::Closed(item));
        }
        if state.queue.len() >= state.capacity {
            return Err(TrySendError::Full(item));
        }
        state.queue.push_back(item);
        Shared::tell_receiver(state);
        Ok(())
    }

    /// Waits for room, and sends the item.
    pub fn send(&self, item: T) -> Sending<'_, T> {
        Sending {
            ingress: self,
            item: Some(item),
            id: None,
        }
    }

    /// Blocks the thread until there is room, and sends the item.
    ///
    /// # Errors
    /// The item: the pipeline takes no more.
    pub fn send_blocking(&self, item: T) -> Result<(), SendError<T>> {
        match self.send_until(item, Deadline::NEVER) {
            Ok(()) => Ok(()),
            Err(error) => Err(SendError::Closed(error.into_inner())),
        }
    }

    /// Blocks the thread until there is room, for so long at most, and sends the item.
    ///
    /// # Errors
    /// The item: there was no room in that time, or the pipeline takes no more.
    pub fn send_timeout_blocking(&self, item: T, timeout: Duration) -> Result<(), TrySendError<T>> {
        self.send_until(item, Deadline::after(timeout))
    }

    fn send_until(&self, item: T, deadline: Deadline) -> Result<(), TrySendError<T>> {
        let mut state = self.shared.lock();
        while !state.takes_none() && state.queue.len() >= state.capacity {
            let left = deadline.remaining();
            if left.is_zero() {
                return Err(TrySendError::Full(item));
            }
            let changed = &self.shared.changed;
            state = if deadline == Deadline::NEVER {
                changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
        if state.takes_none() {
            return Err(TrySendError::Closed(item));
        }
        state.queue.push_back(item);
        Shared::tell_receiver(state);
        Ok(())
    }

    /// Takes no more items. What was sent still goes through, and then the pipeline ends.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let receiver = state.receiver.take();
        self.shared.tell_senders(state);
        if let Some(receiver) = receiver {
            wake(receiver);
        }
    }

    /// Whether it takes no more items.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().takes_none()
    }

    /// What was sent and never taken by the pipeline, once that has ended; nothing before.
    #[must_use]
    pub fn reclaim(&self) -> Vec<T> {
        let mut state = self.shared.lock();
        if !state.ended {
            return Vec::new();
        }
        std::mem::take(&mut state.queue).into()
    }
}

impl<T> Clone for Ingress<T> {
    fn clone(&self) -> Self {
        self.shared.lock().senders += 1;
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Ingress<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        if state.senders == 0 {
            state.closed = true;
            Shared::tell_receiver(state);
        }
    }
}

impl<T> fmt::Debug for Ingress<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Ingress")
            .field("queued", &state.queue.len())
            .field("capacity", &state.capacity)
            .field("closed", &state.takes_none())
            .finish_non_exhaustive()
    }
}

/// Sends an item once there is room, from [`Ingress::send`].
///
/// # Errors
/// [`SendError::Closed`] with the item.
///
/// # Cancel safety
/// Dropped before it is ready, nothing was sent, and the item is dropped with it.
///
/// # Panics
/// When polled after it was ready.
#[must_use = "a future does nothing until it is awaited"]
pub struct Sending<'i, T> {
    ingress: &'i Ingress<T>,
    item: Option<T>,
    /// Once it waits.
    id: Option<u64>,
}

// The item is only ever moved.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker().clone();
        let ingress = self.ingress;
        let Some(item) = self.item.take() else {
            panic!("a send was polled after it was ready");
        };
        let mut state = ingress.shared.lock();
        if !state.takes_none() && state.queue.len() >= state.capacity {
            // Woken all at once, so that none is lost if the one in front has gone.
            let id = self.id.unwrap_or(state.next_id);
            state.next_id = state.next_id.max(id + 1);
            let old = state.waiting.insert(id, waker);
            drop(state);
            drop(old);
            self.id = Some(id);
            self.item = Some(item);
            return Poll::Pending;
        }
        let old = self.id.take().and_then(|id| state.waiting.remove(&id));
        let result = if state.takes_none() {
            drop(state);
            Err(SendError::Closed(item))
        } else {
            state.queue.push_back(item);
            Shared::tell_receiver(state);
            Ok(())
        };
        drop((old, waker));
        Poll::Ready(result)
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.ingress.shared.lock();
        let waker = state.waiting.remove(&id);
        drop(state);
        drop(waker);
    }
}

impl<T> fmt::Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

/// The other end: a source.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    bound: u64,
    watch: Arc<Watch>,
}

pub(crate) fn channel<T>(capacity: usize, watch: &Arc<Watch>) -> (Ingress<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            capacity,
            senders: 1,
            closed: false,
            ended: false,
            receiver: None,
            waiting: BTreeMap::new(),
            next_id: 0,
        }),
        changed: Condvar::new(),
    });
    let ingress = Ingress {
        shared: Arc::clone(&shared),
    };
    let receiver = Receiver {
        shared,
        bound: u64::MAX,
        watch: Arc::clone(watch),
    };
    (ingress, receiver)
}

impl<T> Receiver<T> {
    pub(crate) fn bounded(mut self, bound: u64) -> Self {
        self.bound = bound;
        self
    }
}

impl<'env, T: Send> Stage<'env> for Receiver<T> {
    type Item = T;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &dyn Threads<'env>,
    ) -> Poll<Option<Item<T>>> {
        if !self.watch.admits(self.bound, context) {
            return Poll::Pending;
        }
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        let Some(value) = state.queue.pop_front() else {
            if state.closed {
                return Poll::Ready(None);
            }
            let old = state.receiver.replace(waker);
            drop(state);
            drop(old);
            return Poll::Pending;
        };
        self.shared.tell_senders(state);
        let token = Token::new(&self.watch);
        Poll::Ready(Some(Item::new(Ok(value), token)))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        let receiver = state.receiver.take();
        self.watch.abandon(state.queue.len() as u64);
        self.shared.tell_senders(state);
        drop(receiver);
    }
}
