//! Awaits the futures of many items, so many at a time, in the caller's own task.

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use overdrive_core::unwind::survive;

use crate::parallel::ready::Ready;

/// After so many items were begun in one poll, other tasks get their turn.
const TURN: usize = 128;

/// Calls `f` with each item and awaits its futures, at most `limit` at a time. `ended` gets each
/// item's position and result, and may stop it all.
///
/// As long as each future is ready when it is first polled, there is one place, in this future's own
/// frame, and nothing is allocated. The first that is not makes a [`Crowd`] of it.
pub(super) async fn drive<I, F, Fut, B>(
    items: I,
    limit: NonZeroUsize,
    f: F,
    mut ended: impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
) -> ControlFlow<B>
where
    I: Iterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future,
{
    let mut source = Source {
        items,
        f,
        begun: 0,
        exhausted: false,
        turn: 0,
    };
    let mut work = Work {
        alone: Some(pin!(None)),
        crowd: Crowd::new(),
    };
    poll_fn(move |cx| {
        source.turn = TURN;
        if let Some(place) = &mut work.alone {
            match alone(place, &mut source, limit, cx, &mut ended) {
                Step::Return(poll) => return poll,
                Step::Crowd => {}
            }
            if let Some(place) = work.alone.take() {
                work.crowd.start(place, source.begun - 1);
            }
        } else if let ControlFlow::Break(stop) = work.crowd.turn(&mut source, &mut ended) {
            return Poll::Ready(ControlFlow::Break(stop));
        }
        work.crowd.grow(&mut source, limit, cx, &mut ended)
    })
    .await
}

/// Where the futures come from.
struct Source<I, F> {
    items: I,
    f: F,
    begun: usize,
    exhausted: bool,
    /// How many more may be begun in this poll.
    turn: usize,
}

impl<I, F, Fut> Source<I, F>
where
    I: Iterator,
    F: Fn(I::Item) -> Fut,
{
    fn next(&mut self) -> Option<Fut> {
        if self.exhausted {
            return None;
        }
        let Some(item) = self.items.next() else {
            self.exhausted = true;
            return None;
        };
        self.begun += 1;
        self.turn -= 1;
        Some((self.f)(item))
    }

    fn must_pause(&self) -> bool {
        self.turn == 0 && !self.exhausted
    }
}

struct Work<'a, Fut> {
    /// The place in the frame, until there is a crowd.
    alone: Option<Pin<&'a mut Option<Fut>>>,
    crowd: Crowd<'a, Fut>,
}

enum Step<T> {
    Return(T),
    Crowd,
}

/// One future after the other, polled with the task's own waker.
fn alone<I, F, Fut, B>(
    place: &mut Pin<&mut Option<Fut>>,
    source: &mut Source<I, F>,
    limit: NonZeroUsize,
    cx: &mut Context<'_>,
    ended: &mut impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
) -> Step<Poll<ControlFlow<B>>>
where
    I: Iterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future,
{
    loop {
        if place.is_none() {
            if source.must_pause() {
                cx.waker().wake_by_ref();
                return Step::Return(Poll::Pending);
            }
            let Some(future) = source.next() else {
                return Step::Return(Poll::Ready(ControlFlow::Continue(())));
            };
            place.set(Some(future));
        }
        let Some(future) = place.as_mut().as_pin_mut() else {
            continue;
        };
        match future.poll(cx) {
            Poll::Ready(result) => {
                place.set(None);
                if let ControlFlow::Break(stop) = ended(source.begun - 1, result) {
                    return Step::Return(Poll::Ready(ControlFlow::Break(stop)));
                }
            }
            Poll::Pending if limit.get() == 1 => return Step::Return(Poll::Pending),
            Poll::Pending => return Step::Crowd,
        }
    }
}

/// Futures that wait, each with a waker of its own, so that a wake polls no other.
///
/// The places are in wards, each made when the one before is full.
struct Crowd<'a, Fut> {
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
    fn new() -> Self {
        Self {
            wards: Vec::new(),
            places: 0,
            working: 0,
            ask_first: false,
            again: false,
        }
    }

    fn start(&mut self, first: Pin<&'a mut Option<Fut>>, position: usize) {
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
    fn turn<I, F, B>(
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
    fn grow<I, F, B>(
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

impl<Fut> Drop for Work<'_, Fut> {
    /// Of futures whose destructors panic, none keeps the others from being dropped.
    fn drop(&mut self) {
        let clear = |mut place: Pin<&mut Option<Fut>>| {
            if place.is_some() {
                survive(|| place.set(None));
            }
        };
        if let Some(place) = &mut self.alone {
            clear(place.as_mut());
        }
        for ward in &mut self.crowd.wards {
            survive(|| ward.ready.end());
            for place in &mut ward.places {
                clear(place.future.get());
            }
        }
    }
}
