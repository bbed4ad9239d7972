//! Futures that wait.

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use overdrive_core::unwind::survive;

use crate::parallel::drive::Source;
use crate::parallel::ready::Ready;

/// Futures that wait, each with a waker of its own, so that a wake polls no other.
///
/// The places are in wards, each made when the one before is full.
pub(super) struct Crowd<'a, Fut> {
    wards: Vec<Ward<'a, Fut>>,
    places: usize,
    working: usize,
    /// The first one knows the task's waker only: it is asked whenever the task is woken.
    ask_first: bool,
    /// There are places without a future, marked, for which the poll had no more time.
    again: bool,
}

struct Ward<'a, Fut> {
    ready: Arc<Ready>,
    places: Vec<Place<'a, Fut>>,
    room: usize,
}

struct Place<'a, Fut> {
    future: Pinned<'a, Fut>,
    /// Which item's it is.
    position: usize,
    waker: Waker,
}

enum Pinned<'a, Fut> {
    Framed(Pin<&'a mut Option<Fut>>),
    Boxed(Pin<Box<Option<Fut>>>),
}

impl<Fut> Pinned<'_, Fut> {
    fn get(&mut self) -> Pin<&mut Option<Fut>> {
        match self {
            Self::Framed(place) => place.as_mut(),
            Self::Boxed(place) => place.as_mut(),
        }
    }
}

struct PlaceWaker {
    ready: Arc<Ready>,
    number: usize,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.wake(self.number);
    }
}

impl<'a, Fut> Ward<'a, Fut> {
    fn push(&mut self, future: Pinned<'a, Fut>, position: usize) {
        let number = self.places.len();
        let ready = Arc::clone(&self.ready);
        self.places.push(Place {
            future,
            position,
            waker: Waker::from(Arc::new(PlaceWaker { ready, number })),
        });
    }
}

impl<'a, Fut: Future> Crowd<'a, Fut> {
    pub(super) fn new() -> Self {
        Self {
            wards: Vec::new(),
            places: 0,
            working: 0,
            ask_first: false,
            again: false,
        }
    }

    pub(super) fn start(&mut self, first: Pin<&'a mut Option<Fut>>, position: usize) {
        self.ask_first = true;
        self.push(Pinned::Framed(first), position);
        self.working = 1;
    }

    fn push(&mut self, future: Pinned<'a, Fut>, position: usize) {
        let room = match self.wards.last() {
            Some(ward) if ward.places.len() < ward.room => None,
            Some(ward) => Some(ward.room.saturating_mul(64)),
            None => Some(63),
        };
        if let Some(room) = room {
            self.wards.push(Ward {
                ready: Arc::new(Ready::new(room)),
                places: Vec::new(),
                room,
            });
        }
        self.places += 1;
        if let Some(ward) = self.wards.last_mut() {
            ward.push(future, position);
        }
    }

    /// Polls the futures that were woken; the places of those that end take the next items.
    pub(super) fn turn<I, F, B>(
        &mut self,
        source: &mut Source<I, F>,
        ended: &mut impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
    ) -> ControlFlow<B>
    where
        I: Iterator,
        F: Fn(I::Item) -> Fut,
    {
        self.again = false;
        if std::mem::take(&mut self.ask_first) {
            self.wards[0].ready.mark(0);
        }
        for ward in &mut self.wards {
            let Ward { ready, places, .. } = ward;
            ready.take(|number| {
                let place = &mut places[number];
                place.step(source, ended, &mut self.working)?;
                if place.future.get().is_none() && source.must_pause() {
                    ready.mark(number);
                    self.again = true;
                }
                ControlFlow::Continue(())
            })?;
        }
        ControlFlow::Continue(())
    }

    /// Takes further items up to the limit.
    pub(super) fn grow<I, F, B>(
        &mut self,
        source: &mut Source<I, F>,
        limit: NonZeroUsize,
        cx: &Context<'_>,
        ended: &mut impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
    ) -> Poll<ControlFlow<B>>
    where
        I: Iterator,
        F: Fn(I::Item) -> Fut,
    {
        while self.places < limit.get() {
            if source.must_pause() {
                self.again = true;
                break;
            }
            let Some(future) = source.next() else {
                break;
            };
            self.working += 1;
            let boxed = Pinned::Boxed(Box::pin(Some(future)));
            self.push(boxed, source.begun - 1);
            let (wards, working) = (&mut self.wards, &mut self.working);
            let Some(Ward { ready, places, .. }) = wards.last_mut() else {
                continue;
            };
            let number = places.len() - 1;
            if let ControlFlow::Break(stop) = places[number].step(source, ended, working) {
                return Poll::Ready(ControlFlow::Break(stop));
            }
            if places[number].future.get().is_none() && source.must_pause() {
                ready.mark(number);
                self.again = true;
            }
        }
        if self.working == 0 && source.exhausted {
            return Poll::Ready(ControlFlow::Continue(()));
        }
        if self.again {
            cx.waker().wake_by_ref();
        } else {
            for ward in &self.wards {
                ward.ready.sleep(cx.waker());
            }
        }
        Poll::Pending
    }
}

impl<Fut: Future> Place<'_, Fut> {
    /// Polls its future, and those of the next items, until one is not ready.
    fn step<I, F, B>(
        &mut self,
        source: &mut Source<I, F>,
        ended: &mut impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
        working: &mut usize,
    ) -> ControlFlow<B>
    where
        I: Iterator,
        F: Fn(I::Item) -> Fut,
    {
        let mut place = self.future.get();
        let mut cx = Context::from_waker(&self.waker);
        loop {
            if let Some(future) = place.as_mut().as_pin_mut() {
                let Poll::Ready(result) = future.poll(&mut cx) else {
                    return ControlFlow::Continue(());
                };
                place.set(None);
                *working -= 1;
                ended(self.position, result)?;
            }
            if source.must_pause() {
                return ControlFlow::Continue(());
            }
            let Some(future) = source.next() else {
                return ControlFlow::Continue(());
            };
            self.position = source.begun - 1;
            *working += 1;
            place.set(Some(future));
        }
    }
}

impl<Fut> Drop for Crowd<'_, Fut> {
    fn drop(&mut self) {
        for ward in &mut self.wards {
            // Wakers that outlive the call wake nobody.
            survive(|| ward.ready.end());
            for place in &mut ward.places {
                clear(place.future.get());
            }
        }
    }
}

/// Drops a future. A panic of its destructor keeps no other from being dropped.
pub(super) fn clear<Fut>(mut place: Pin<&mut Option<Fut>>) {
    if place.is_some() {
        survive(|| place.set(None));
    }
}
