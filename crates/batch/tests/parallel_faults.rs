//! The bounded parallel map under panics, cancellation, odd wakes and many threads. No runtime.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use overdrive_batch::{ItemError, ParallelBatch, map_ordered, map_ordered_into, try_map_ordered};
use proptest::prelude::*;

fn n(concurrency: usize) -> NonZeroUsize {
    NonZeroUsize::new(concurrency).unwrap()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Wakes a thread, and counts.
struct Unpark(thread::Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

fn unpark() -> Arc<Unpark> {
    Arc::new(Unpark(thread::current(), AtomicUsize::new(0)))
}

/// Polls only when woken: a lost wake hangs.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (unpark, mut seen) = (unpark(), 0);
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while unpark.1.load(Ordering::SeqCst) == seen {
            thread::park();
        }
        seen = unpark.1.load(Ordering::SeqCst);
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn quiet_panic() -> ! {
    resume_unwind(Box::new("quiet"))
}

/// How many of something live.
#[derive(Default)]
struct Live {
    made: Cell<usize>,
    dropped: Cell<usize>,
}

impl Live {
    fn one(&self) -> Token<'_> {
        self.made.set(self.made.get() + 1);
        Token(self)
    }

    fn none_left(&self) -> bool {
        self.made.get() == self.dropped.get()
    }
}

struct Token<'a>(&'a Live);

impl Drop for Token<'_> {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + 1);
    }
}

#[test]
fn a_wake_polls_the_one_that_it_is_for() {
    for concurrency in [2, 63, 64, 200, 5000] {
        let polls = RefCell::new(vec![0; concurrency]);
        let wakers: RefCell<Vec<Option<Waker>>> = RefCell::new(vec![None; concurrency]);
        let open = RefCell::new(vec![false; concurrency]);
        let f = |item: usize| {
            let (polls, wakers, open) = (&polls, &wakers, &open);
            poll_fn(move |cx| {
                polls.borrow_mut()[item] += 1;
                if open.borrow()[item] {
                    return Poll::Ready(item);
                }
                wakers.borrow_mut()[item] = Some(cx.waker().clone());
                Poll::Pending
            })
        };
        let mut map = pin!(map_ordered(0..concurrency, n(concurrency), f));
        let turns = concurrency / 100 + 3;
        for _ in 0..turns {
            assert!(poll_once(map.as_mut()).is_pending());
        }
        let before = polls.borrow().clone();
        assert!(before[1..].iter().all(|&polls| polls == 1));
        assert!(before[0] <= 2, "the first is asked once more");
        let last = concurrency - 1;
        wakers.borrow()[last].as_ref().unwrap().wake_by_ref();
        assert!(poll_once(map.as_mut()).is_pending());
        assert_eq!(polls.borrow()[last], 2);
        assert_eq!(
            polls.borrow().iter().sum::<usize>(),
            before.iter().sum::<usize>() + 1
        );
        open.borrow_mut().fill(true);
        for waker in wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
        let Poll::Ready(results) = poll_once(map.as_mut()) else {
            panic!("all were woken");
        };
        assert!(results.into_iter().eq(0..concurrency));
    }
}

#[test]
fn a_row_of_ready_futures_lets_others_run_now_and_then() {
    let mut map = pin!(map_ordered(0..10_000, n(4), ready));
    let unpark = unpark();
    let waker = Waker::from(Arc::clone(&unpark));
    let mut turns = 0;
    let results = loop {
        match map.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(results) => break results,
            Poll::Pending => turns += 1,
        }
        assert_eq!(unpark.1.load(Ordering::SeqCst), turns, "it wakes itself");
    };
    assert!(turns > 10);
    assert!(results.into_iter().eq(0..10_000));
}

#[test]
fn dropped_at_any_await_it_drops_everything_once() {
    for concurrency in [1, 3, 70] {
        for polls in 0..40 {
            let (futures, results) = (Live::default(), Live::default());
            let f = |item: usize| {
                let token = futures.one();
                let results = &results;
                async move {
                    for _ in 0..item % 5 {
                        yield_now().await;
                    }
                    drop(token);
                    results.one()
                }
            };
            {
                let mut map = pin!(map_ordered(0..100, n(concurrency), f));
                for _ in 0..polls {
                    if poll_once(map.as_mut()).is_ready() {
                        break;
                    }
                }
                let working = futures.made.get() - futures.dropped.get();
                assert!(working <= concurrency);
            }
            assert!(futures.none_left() && results.none_left());
        }
    }
}

#[test]
fn an_error_drops_what_was_begun() {
    let futures = Live::default();
    let f = |item: usize| {
        let token = futures.one();
        async move {
            let _token = token;
            yield_now().await;
            if item == 50 { Err("fifty") } else { Ok(item) }
        }
    };
    assert_eq!(block_on(try_map_ordered(0.., n(80), f)), Err((50, "fifty")));
    assert!(futures.none_left());
}

#[test]
fn a_panic_of_the_function_or_a_future_drops_what_was_begun() {
    for in_poll in [false, true] {
        let futures = Live::default();
        let f = |item: usize| {
            let token = futures.one();
            if item == 7 && !in_poll {
                quiet_panic();
            }
            async move {
                let _token = token;
                yield_now().await;
                if item == 7 {
                    quiet_panic();
                }
            }
        };
        let call = || block_on(map_ordered(0..20, n(5), f));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        assert!(futures.none_left());
    }
}

struct PanicsInDrop<'a> {
    _token: Token<'a>,
}

impl Future for PanicsInDrop<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for PanicsInDrop<'_> {
    fn drop(&mut self) {
        quiet_panic();
    }
}

#[test]
fn panics_of_destructors_keep_no_future_from_being_dropped() {
    let futures = Live::default();
    let begun = Cell::new(0);
    let f = |_: usize| {
        begun.set(begun.get() + 1);
        PanicsInDrop {
            _token: futures.one(),
        }
    };
    {
        let mut map = pin!(map_ordered(0..10, n(4), f));
        assert!(poll_once(map.as_mut()).is_pending());
    }
    assert_eq!(begun.get(), 4);
    assert!(futures.none_left());

    // While another panic unwinds as well.
    let f = |item: usize| {
        if item == 3 {
            quiet_panic();
        }
        PanicsInDrop {
            _token: futures.one(),
        }
    };
    let call = || block_on(map_ordered(0..10, n(4), f));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert!(futures.none_left());
}

#[test]
fn what_is_in_the_list_when_it_is_dropped_are_the_first_results() {
    let mut list = vec![100];
    {
        let f = |item: usize| async move {
            if item == 3 {
                pending::<()>().await;
            }
            item
        };
        let mut map = pin!(map_ordered_into(&mut list, 0..10, n(4), f));
        assert!(poll_once(map.as_mut()).is_pending());
    }
    assert_eq!(list, [100, 0, 1, 2]);
    block_on(map_ordered_into(&mut list, 7..9, n(4), ready));
    assert_eq!(list, [100, 0, 1, 2, 7, 8]);
}

#[test]
fn wakes_may_come_from_other_threads() {
    let (ask, asked) = mpsc::channel::<(usize, Arc<Mutex<(bool, Option<Waker>)>>)>();
    let asked = Arc::new(Mutex::new(asked));
    let servers: Vec<_> = (0..3)
        .map(|_| {
            let asked = Arc::clone(&asked);
            thread::spawn(move || {
                loop {
                    let Ok((_, answer)) = asked.lock().unwrap().recv() else {
                        return;
                    };
                    let waker = {
                        let mut answer = answer.lock().unwrap();
                        answer.0 = true;
                        answer.1.take()
                    };
                    waker.into_iter().for_each(Waker::wake);
                }
            })
        })
        .collect();
    let items = if cfg!(miri) { 50 } else { 5_000 };
    for concurrency in [1, 10, 100] {
        let f = |item: usize| {
            let answer = Arc::new(Mutex::new((false, None)));
            ask.send((item, Arc::clone(&answer))).unwrap();
            poll_fn(move |cx| {
                let mut answer = answer.lock().unwrap();
                if answer.0 {
                    return Poll::Ready(item);
                }
                answer.1 = Some(cx.waker().clone());
                Poll::Pending
            })
        };
        let results = block_on(map_ordered(0..items, n(concurrency), f));
        assert!(results.into_iter().eq(0..items));
    }
    drop(ask);
    for server in servers {
        server.join().unwrap();
    }
}

#[test]
fn wakers_of_ended_futures_and_of_an_ended_map_do_no_harm() {
    let kept: RefCell<Vec<Waker>> = RefCell::default();
    let f = |item: usize| {
        let kept = &kept;
        async move {
            poll_fn(|cx| {
                kept.borrow_mut().push(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
            for waker in kept.borrow().iter() {
                waker.wake_by_ref();
            }
            yield_now().await;
            item
        }
    };
    let unpark = unpark();
    let waker = Waker::from(Arc::clone(&unpark));
    {
        let mut map = pin!(map_ordered(0..50, n(3), f));
        let results = loop {
            if let Poll::Ready(results) = map.as_mut().poll(&mut Context::from_waker(&waker)) {
                break results;
            }
        };
        assert!(results.into_iter().eq(0..50));
    }
    drop(waker);
    // The first future was polled with the task's own waker; no other one keeps it.
    let own = kept
        .borrow()
        .iter()
        .filter(|w| w.data() == Arc::as_ptr(&unpark).cast())
        .count();
    assert_eq!(Arc::strong_count(&unpark), 1 + own);
    let wakes = unpark.1.load(Ordering::SeqCst);
    for waker in kept.borrow().iter().skip(own) {
        waker.wake_by_ref();
    }
    assert_eq!(unpark.1.load(Ordering::SeqCst), wakes);
}

#[test]
fn maps_may_be_nested_and_futures_need_not_be_send() {
    let shared = Rc::new(Cell::new(0));
    let f = |outer: usize| {
        let shared = Rc::clone(&shared);
        async move {
            let f = |inner: usize| {
                let shared = Rc::clone(&shared);
                async move {
                    yield_now().await;
                    shared.set(shared.get() + 1);
                    outer * inner
                }
            };
            map_ordered(0..10, n(4), f).await.iter().sum::<usize>()
        }
    };
    let sums = block_on(map_ordered(0..20, n(3), f));
    assert!(sums.into_iter().eq((0..20).map(|outer| outer * 45)));
    assert_eq!(shared.get(), 200);
}

#[test]
fn any_number_may_be_allowed_in_work() {
    for concurrency in [1, 64, usize::MAX] {
        let f = |item: usize| async move {
            yield_now().await;
            item
        };
        let results = block_on(map_ordered(0..1000, n(concurrency), f));
        assert!(results.into_iter().eq(0..1000));
    }
}

#[test]
fn calls_are_send_when_their_parts_are() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_both<T: Send + Sync>() {}
    is_both::<ParallelBatch>();
    let batch = ParallelBatch::builder().build().unwrap();
    let f = |item: u8| async move {
        yield_now().await;
        Ok::<_, ()>(item)
    };
    assert_eq!(block_on(is_send(map_ordered(0..3, n(2), f))).len(), 3);
    assert_eq!(block_on(is_send(batch.process(0..3, f))).len(), 3);
    assert_eq!(block_on(is_send(batch.process_collect(0..3, f))).len(), 3);
    assert_eq!(
        block_on(is_send(batch.try_process(0..3, f))),
        Ok(vec![0, 1, 2])
    );
}

#[test]
fn one_items_panic_is_its_own() {
    let batch = ParallelBatch::builder().concurrency(3).build().unwrap();
    let f = |item: usize| {
        if item == 1 {
            quiet_panic();
        }
        async move {
            yield_now().await;
            match item {
                2 => quiet_panic(),
                3 => resume_unwind(Box::new(3_u8)),
                4 => Err("four"),
                _ => Ok(item),
            }
        }
    };
    let quiet = || Err(ItemError::Panicked("quiet".into()));
    let results = block_on(batch.process_collect(0..6, f));
    let odd = results[3].clone().unwrap_err();
    assert!(matches!(odd, ItemError::Panicked(_)));
    let expected = [
        Ok(0),
        quiet(),
        quiet(),
        Err(odd),
        Err(ItemError::Failed("four")),
        Ok(5),
    ];
    assert_eq!(results, expected);
    let stats = batch.stats();
    assert_eq!((stats.begun, stats.completed, stats.failed), (6, 2, 1));
    assert_eq!((stats.panicked, stats.dropped), (3, 0));
}

#[test]
fn progress_counts_up_to_the_total() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let batch = ParallelBatch::builder()
        .name("rows")
        .concurrency(2)
        .on_progress(move |p| {
            assert_eq!(p.name, "rows");
            sink.lock().unwrap().push((p.done, p.failed, p.total));
        })
        .build()
        .unwrap();
    let f = |&item: &u8| async move { 6_u8.checked_div(item).ok_or(()) };
    block_on(batch.process_collect(&[1, 0, 2], f));
    let expected = [(1, 0, Some(3)), (2, 1, Some(3)), (3, 1, Some(3))];
    assert_eq!(*seen.lock().unwrap(), expected);
    seen.lock().unwrap().clear();
    block_on(batch.process((0..9).filter(|n| n % 4 == 0), ready));
    assert_eq!(
        *seen.lock().unwrap(),
        [(1, 0, None), (2, 0, None), (3, 0, None)]
    );
}

#[test]
fn a_panic_of_the_progress_callback_passes_and_figures_add_up() {
    let batch = ParallelBatch::builder()
        .on_progress(|p| {
            if p.done == 3 {
                quiet_panic();
            }
        })
        .build()
        .unwrap();
    let f = |item: usize| async move {
        yield_now().await;
        Ok::<_, ()>(item)
    };
    let call = || block_on(batch.process_collect(0..10, f));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    let stats = batch.stats();
    assert_eq!(stats.begun, stats.completed + stats.dropped);
    assert_eq!(stats.completed, 3);
}

/// What an item's future does.
#[derive(Clone, Debug)]
struct Script {
    yields: usize,
    /// Waits until somebody opens its gate.
    waits: bool,
    ends: End,
}

#[derive(Clone, Debug)]
enum End {
    Well,
    Badly,
    InPanic,
}

fn script() -> impl Strategy<Value = Script> {
    let ends = prop_oneof![6 => Just(End::Well), 1 => Just(End::Badly), 1 => Just(End::InPanic)];
    (0..4_usize, any::<bool>(), ends).prop_map(|(yields, waits, ends)| Script {
        yields,
        waits,
        ends,
    })
}

fn cases() -> u32 {
    if std::env::var_os("OVERDRIVE_DEEP").is_some() {
        20_000
    } else {
        150
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_scripts_end_as_one_after_the_other_would(
        scripts in prop::collection::vec(script(), 0..200),
        concurrency in prop_oneof![1..8_usize, 60..70_usize, 150..250_usize],
        opens in prop::collection::vec(any::<prop::sample::Index>(), 300),
        dropped_after in prop::option::of(0..60_usize),
    ) {
        let (live, most) = (Live::default(), Cell::new(0));
        let gates: RefCell<Vec<(bool, Option<Waker>)>> = RefCell::new(vec![(false, None); scripts.len()]);
        let f = |(item, script): (usize, &Script)| {
            let (token, gates, script) = (live.one(), &gates, script.clone());
            most.set(most.get().max(live.made.get() - live.dropped.get()));
            async move {
                let _token = token;
                for _ in 0..script.yields {
                    yield_now().await;
                }
                if script.waits {
                    poll_fn(|cx| {
                        let gate = &mut gates.borrow_mut()[item];
                        gate.1 = Some(cx.waker().clone());
                        if gate.0 { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                }
                match script.ends {
                    End::Well => Ok(item),
                    End::Badly => Err(item),
                    End::InPanic => quiet_panic(),
                }
            }
        };
        let batch = ParallelBatch::builder().concurrency(concurrency).build().unwrap();
        {
            let mut map = pin!(batch.process_collect(scripts.iter().enumerate(), f));
            let unpark = unpark();
            let waker = Waker::from(Arc::clone(&unpark));
            let (mut seen, mut polls, mut opens) = (0, 0, opens.iter());
            let results = loop {
                if dropped_after.is_some_and(|limit| polls >= limit) {
                    break None;
                }
                polls += 1;
                if let Poll::Ready(results) = map.as_mut().poll(&mut Context::from_waker(&waker)) {
                    break Some(results);
                }
                // Somebody opens a gate, sometimes without need; then all, until it is woken.
                let open = |gate: usize| {
                    let gate = &mut gates.borrow_mut()[gate];
                    gate.0 = true;
                    gate.1.clone()
                };
                if let Some(gate) = opens.next().filter(|_| !scripts.is_empty()) {
                    open(gate.index(scripts.len())).iter().for_each(Waker::wake_by_ref);
                }
                if unpark.1.load(Ordering::SeqCst) == seen {
                    let all: Vec<_> = (0..scripts.len()).filter_map(open).collect();
                    all.iter().for_each(Waker::wake_by_ref);
                    prop_assert!(unpark.1.load(Ordering::SeqCst) > seen, "nobody wakes it");
                }
                seen = unpark.1.load(Ordering::SeqCst);
            };
            if let Some(results) = results {
                let model = scripts.iter().enumerate().map(|(item, script)| match script.ends {
                    End::Well => Ok(item),
                    End::Badly => Err(ItemError::Failed(item)),
                    End::InPanic => Err(ItemError::Panicked("quiet".into())),
                });
                prop_assert_eq!(results, model.collect::<Vec<_>>());
                prop_assert_eq!(batch.stats().dropped, 0);
            }
        }
        prop_assert!(live.none_left());
        prop_assert!(most.get() <= concurrency);
        let stats = batch.stats();
        prop_assert_eq!(stats.begun, live.made.get() as u64);
        prop_assert_eq!(stats.begun, stats.completed + stats.failed + stats.panicked + stats.dropped);
    }
}
