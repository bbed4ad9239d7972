//! Futures that wait.

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use overdrive_core::unwind::survive;

use crate::parallel::drive::Source;
use crate::parallel::places::{Places, Wakers};

/// Places in the first ward, whose bits are one word.
const ROOM: usize = 63;
/// By how much each further ward is larger, up to `MOST` places.
const GROWTH: usize = 8;
const MOST: usize = 1 << 18;

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
    wakers: Arc<Wakers>,
    slots: Slots<'a, Fut>,
    room: usize,
}

struct Slots<'a, Fut> {
    /// The one in the map's own frame, which comes before the others, and its item's position.
    first: Option<(Pin<&'a mut Option<Fut>>, usize)>,
    places: Places<Fut>,
}

impl<Fut> Ward<'_, Fut> {
    fn new(room: usize) -> Self {
        Self {
            wakers: Wakers::new(room),
            slots: Slots {
                first: None,
                places: Places::new(room),
            },
            room,
        }
    }
}

impl<Fut> Slots<'_, Fut> {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.places.len()
    }

    fn get(&mut self, number: usize) -> (Pin<&mut Option<Fut>>, &mut usize) {
        match &mut self.first {
            Some((place, position)) if number == 0 => (place.as_mut(), position),
            Some(_) => self.places.get(number - 1),
            None => self.places.get(number),
        }
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

    pub(super) fn start(
        &mut self,
        first: Pin<&'a mut Option<Fut>>,
        position: usize,
        limit: NonZeroUsize,
    ) {
        let mut ward = Ward::new(limit.get().min(ROOM));
        ward.slots.first = Some((first, position));
        self.wards.push(ward);
        self.ask_first = true;
        self.places = 1;
        self.working = 1;
    }

    /// Makes one more place, the last of the last ward.
    fn push(&mut self, limit: NonZeroUsize) -> &mut Ward<'a, Fut> {
        let last = self.wards.last().expect("it was started");
        if last.slots.len() == last.room {
            let room = (last.room * GROWTH).min(MOST);
            let room = room.min(limit.get() - self.places);
            self.wards.push(Ward::new(room));
        }
        self.places += 1;
        let ward = self.wards.last_mut().expect("it was started");
        ward.slots.places.push();
        ward
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
            self.wards[0].wakers.ready().mark(0);
        }
        let Self {
            wards,
            working,
            again,
            ..
        } = self;
        for ward in wards {
            let Ward { wakers, slots, .. } = ward;
            wakers.ready().take(|number| {
                let place = slots.get(number);
                *again |= step(place, wakers, number, source, ended, working)?;
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
            let mut working = self.working + 1;
            let Ward { wakers, slots, .. } = self.push(limit);
            let number = slots.len() - 1;
            let (mut place, position) = slots.get(number);
            place.set(Some(future));
            *position = source.begun - 1;
            let place = (place, position);
            match step(place, wakers, number, source, ended, &mut working) {
                ControlFlow::Continue(again) => self.again |= again,
                ControlFlow::Break(stop) => return Poll::Ready(ControlFlow::Break(stop)),
            }
            self.working = working;
        }
        if self.working == 0 && source.exhausted {
            return Poll::Ready(ControlFlow::Continue(()));
        }
        if self.again {
            cx.waker().wake_by_ref();
        } else {
            for ward in &self.wards {
                ward.wakers.ready().sleep(cx.waker());
            }
        }
        Poll::Pending
    }
}

/// Polls a place's future, and those of the next items, until one is not ready. Says whether the
/// place is empty although there are items, for the poll's turn is over; then it is marked.
fn step<I, F, Fut, B>(
    (mut place, position): (Pin<&mut Option<Fut>>, &mut usize),
    wakers: &Wakers,
    number: usize,
    source: &mut Source<I, F>,
    ended: &mut impl FnMut(usize, Fut::Output) -> ControlFlow<B>,
    working: &mut usize,
) -> ControlFlow<B, bool>
where
    I: Iterator,
    F: Fn(I::Item) -> Fut,
    Fut: Future,
{
    let waker = wakers.borrow(number);
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Some(future) = place.as_mut().as_pin_mut() {
            let Poll::Ready(result) = future.poll(&mut cx) else {
                return ControlFlow::Continue(false);
            };
            place.set(None);
            *working -= 1;
            ended(*position, result)?;
        }
        if source.must_pause() {
            wakers.ready().mark(number);
            return ControlFlow::Continue(true);
        }
        let Some(future) = source.next() else {
            return ControlFlow::Continue(false);
        };
        *position = source.begun - 1;
        *working += 1;
        place.set(Some(future));
    }
}

impl<Fut> Drop for Crowd<'_, Fut> {
    fn drop(&mut self) {
        for ward in &mut self.wards {
            // Wakers that outlive the call wake nobody.
            survive(|| ward.wakers.ready().end());
            for number in 0..ward.slots.len() {
                clear(ward.slots.get(number).0);
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
