//! Awaits the futures of many items, so many at a time, in the caller's own task.

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::parallel::crowd::{Crowd, clear};

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
                work.crowd.start(place, source.begun - 1, limit);
            }
        } else if let ControlFlow::Break(stop) = work.crowd.turn(&mut source, &mut ended) {
            return Poll::Ready(ControlFlow::Break(stop));
        }
        work.crowd.grow(&mut source, limit, cx, &mut ended)
    })
    .await
}

/// Where the futures come from.
pub(super) struct Source<I, F> {
    items: I,
    f: F,
    pub(super) begun: usize,
    pub(super) exhausted: bool,
    /// How many more may be begun in this poll.
    turn: usize,
}

impl<I, F, Fut> Source<I, F>
where
    I: Iterator,
    F: Fn(I::Item) -> Fut,
{
    pub(super) fn next(&mut self) -> Option<Fut> {
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

    pub(super) fn must_pause(&self) -> bool {
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

impl<Fut> Drop for Work<'_, Fut> {
    fn drop(&mut self) {
        if let Some(place) = &mut self.alone {
            clear(place.as_mut());
        }
    }
}
