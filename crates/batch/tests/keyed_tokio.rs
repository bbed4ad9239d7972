//! Batches by key with handlers that are async functions, on tokio.
#![cfg(feature = "tokio")]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    Deadline, Gather, KeyedBatcher, KeyedSubmitOwned, SubmitError, TrySubmitError,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

const LONG: Duration = Duration::from_secs(20);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test that must not hang.
fn ends(test: impl Future<Output = ()>) {
    let runtime = current_thread();
    runtime.block_on(async {
        tokio::time::timeout(LONG, test).await.expect("it hangs");
    });
}

/// Runs a test on threads that must not hang.
fn returns(test: impl FnOnce() + Send + 'static) {
    let (tell, ended) = channel();
    let thread = thread::spawn(move || {
        test();
        let _heard = tell.send(());
    });
    match ended.recv_timeout(LONG) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p)),
    }
}

async fn echo(_: u32, items: Vec<u64>) -> Result<Vec<u64>, Infallible> {
    Ok(items)
}

#[test]
fn without_a_runtime_it_is_not_built() {
    let refused = KeyedBatcher::builder().build(echo).unwrap_err();
    assert_eq!(refused.field(), "runtime");
}

#[test]
fn a_tick_lets_all_ready_submitters_of_a_key_into_its_batch() {
    ends(async {
        let batcher = KeyedBatcher::builder().workers(1).build(echo).unwrap();
        let tasks: Vec<_> = (0..60)
            .map(|n| tokio::spawn(batcher.submit_owned(n % 3, n.into())))
            .collect();
        for (task, n) in tasks.into_iter().zip(0..) {
            assert_eq!(task.await.unwrap().unwrap(), n);
        }
        let stats = batcher.stats();
        assert_eq!((stats.batches, stats.largest_batch), (3, 20), "{stats:?}");
        assert!(batcher.shutdown(Deadline::NEVER).await.is_complete());
    });
}

#[test]
fn an_async_handler_serves_threads() {
    returns(|| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let batcher = KeyedBatcher::builder().max_idle_keys(2).build(echo);
        let batcher = batcher.unwrap();
        drop(entered);
        thread::scope(|scope| {
            for thread in 0..4 {
                let batcher = &batcher;
                scope.spawn(move || {
                    for n in 0..200 {
                        let result = batcher.submit_blocking((thread + n as u32) % 7, n);
                        assert_eq!(result.unwrap(), n);
                    }
                });
            }
        });
        assert!(batcher.shutdown_blocking(LONG).is_complete());
    });
}

#[test]
fn workers_are_shared_and_a_waiting_handler_keeps_only_one() {
    ends(async {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (inside, inside_most) = (Arc::clone(&running), Arc::clone(&most));
        let batcher = KeyedBatcher::builder().workers(3).max_size(2);
        let batcher = batcher
            .build(move |_: u32, items: Vec<u64>| {
                let (running, most) = (Arc::clone(&inside), Arc::clone(&inside_most));
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(items)
                }
            })
            .unwrap();
        let tasks: Vec<_> = (0..100)
            .map(|n| tokio::spawn(batcher.submit_owned(n % 10, n.into())))
            .collect();
        for (task, n) in tasks.into_iter().zip(0..) {
            assert_eq!(task.await.unwrap().unwrap(), n);
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_panic_on_a_task_fails_its_batch_alone() {
    ends(async {
        let batcher = KeyedBatcher::builder().workers(1);
        let batcher = batcher.build(|key: u32, items: Vec<u64>| {
            if key == 0 {
                std::panic::resume_unwind(Box::new("at once"));
            }
            async move {
                tokio::task::yield_now().await;
                if key == 1 {
                    std::panic::resume_unwind(Box::new("later"));
                }
                Ok::<_, Infallible>(items)
            }
        });
        let batcher = batcher.unwrap();
        for (key, expected) in [(0, "at once"), (1, "later")] {
            match batcher.submit(key, 5).await {
                Err(SubmitError::Panicked(message)) => assert_eq!(&*message, expected),
                other => panic!("{other:?}"),
            }
            assert_eq!(batcher.submit(2, 5).await.unwrap(), 5);
        }
    });
}

/// Tells when it is dropped.
struct Told(Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_drain_that_comes_to_its_deadline_drops_the_handlers_that_wait() {
    ends(async {
        let dropped = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&dropped);
        let batcher = KeyedBatcher::builder().workers(2);
        let batcher = batcher.build(move |_: u32, _: Vec<u64>| {
            let told = Told(Arc::clone(&inside));
            async move {
                let _told = told;
                pending::<Result<Vec<u64>, Infallible>>().await
            }
        });
        let batcher = batcher.unwrap();
        let tickets: Vec<_> = (0..5).map(|n| batcher.try_submit(n, 7).unwrap()).collect();
        while batcher.stats().running < 2 {
            tokio::task::yield_now().await;
        }
        let report = batcher.drain(Duration::ZERO).await;
        assert_eq!(report.abandoned, 5);
        for ticket in tickets {
            assert!(matches!(ticket.await, Err(SubmitError::Abandoned(_))));
        }
        assert!(batcher.shutdown(Deadline::NEVER).await.is_complete());
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert_eq!((batcher.keys(), batcher.stats().abandoned), (0, 5));
    });
}

#[test]
fn a_runtime_that_is_dropped_abandons_everything() {
    returns(|| {
        for threads in [0, 2] {
            let runtime = if threads == 0 {
                current_thread()
            } else {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(threads).build().unwrap()
            };
            let entered = runtime.enter();
            let batcher = KeyedBatcher::builder()
                .workers(2)
                .build(|_: u32, _: Vec<u64>| pending::<Result<Vec<u64>, Infallible>>());
            let batcher = batcher.unwrap();
            drop(entered);
            let tickets: Vec<_> = (0..5).map(|n| batcher.try_submit(n, 7).unwrap()).collect();
            runtime.block_on(async {
                while batcher.stats().running < 2 {
                    tokio::task::yield_now().await;
                }
            });
            drop(runtime);
            for ticket in tickets {
                assert!(matches!(
                    ticket.wait_blocking(),
                    Err(SubmitError::Abandoned(_))
                ));
            }
            assert!(matches!(
                batcher.try_submit(1, 1),
                Err(TrySubmitError::Closed(1))
            ));
            assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
            let stats = batcher.stats();
            assert_eq!(
                (stats.abandoned, stats.rejected, stats.submitted),
                (5, 1, 6)
            );
            assert_eq!(batcher.keys(), 0);
        }
    });
}

#[test]
fn a_runtime_that_is_dropped_with_idle_workers_closes_the_batcher() {
    returns(|| {
        for ran in [false, true] {
            let runtime = current_thread();
            let entered = runtime.enter();
            let batcher = KeyedBatcher::builder().workers(2).build(echo).unwrap();
            drop(entered);
            if ran {
                assert_eq!(runtime.block_on(batcher.submit(1, 1)).unwrap(), 1);
            }
            // Nobody looks at it before the runtime goes.
            let ticket = batcher.try_submit(2, 2).unwrap();
            drop(runtime);
            let outcome = ticket.wait_blocking();
            assert!(matches!(outcome, Err(SubmitError::Abandoned(Some(2)))));
            assert!(matches!(
                batcher.try_submit(1, 3),
                Err(TrySubmitError::Closed(3))
            ));
            assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
            assert_eq!(batcher.keys(), 0);
        }
    });
}

#[test]
fn aborted_submitters_leave_nothing_behind() {
    ends(async {
        let batcher = KeyedBatcher::builder()
            .max_idle_keys(8)
            .build(echo)
            .unwrap();
        for n in 0..10_000_u32 {
            let task = tokio::spawn(batcher.submit_owned(n, 1));
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            task.abort();
        }
        batcher.flush().await;
        while batcher.keys() > 8 {
            tokio::task::yield_now().await;
        }
        let stats = batcher.stats();
        assert_eq!((stats.queued, stats.running), (0, 0));
    });
}

/// What is done to the batcher, one after the other.
#[derive(Clone, Debug)]
enum Step {
    Submit(u32),
    /// Drops that one of the open submits.
    Withdraw(usize),
    /// Lets that one of the running batches end.
    End(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..5_u32).prop_map(Step::Submit),
        2 => any::<usize>().prop_map(Step::Withdraw),
        4 => any::<usize>().prop_map(Step::End),
    ];
    let end = prop_oneof![Just(None), Just(Some(Step::Close))];
    (
        prop::collection::vec(step.clone(), 0..60),
        end,
        prop::collection::vec(step, 0..20),
    )
        .prop_map(|(mut steps, end, more)| {
            steps.extend(end);
            steps.extend(more);
            steps
        })
}

/// The specification: each key's items in order, and those with the handler.
#[derive(Default)]
struct Model {
    queued: BTreeMap<u32, VecDeque<u64>>,
    running: Vec<Running>,
    completed: u64,
    cancelled: u64,
    rejected: u64,
    closed: bool,
}

struct Running {
    key: u32,
    items: Vec<u64>,
    go: oneshot::Sender<()>,
}

type Started = (u32, Vec<u64>, oneshot::Sender<()>);
type Open = (u64, Pin<Box<KeyedSubmitOwned<u32, u64, u64, Infallible>>>);

const WORKERS: usize = 2;
const MAX_SIZE: usize = 3;
const CAPACITY: usize = 4;
const MAX_KEYS: usize = 3;

impl Model {
    /// Takes note of a batch that has begun, which must be what may begin.
    fn begun(&mut self, (key, items, go): Started) {
        assert!((1..=MAX_SIZE).contains(&items.len()), "{items:?}");
        assert!(self.running.iter().all(|one| one.key != key), "two at once");
        let queue = self.queued.get_mut(&key).expect("of a key with items");
        let taken: Vec<_> = queue.drain(..items.len()).collect();
        assert_eq!(taken, items);
        if queue.is_empty() {
            self.queued.remove(&key);
        }
        self.running.push(Running { key, items, go });
        assert!(self.running.len() <= WORKERS);
    }

    fn is_in_work(&self, key: u32) -> bool {
        self.running.iter().any(|one| one.key == key)
    }

    /// No worker is idle while there is something to run.
    fn check_idle(&self) {
        let could = self.queued.keys().any(|&key| !self.is_in_work(key));
        assert!(self.running.len() == WORKERS || !could);
    }

    fn queued(&self) -> usize {
        self.queued.values().map(VecDeque::len).sum()
    }
}

async fn settle(started: &mut mpsc::UnboundedReceiver<Started>, model: &mut Model) {
    for _ in 0..12 {
        tokio::task::yield_now().await;
        while let Ok(batch) = started.try_recv() {
            model.begun(batch);
        }
    }
    model.check_idle();
}

fn poll(open: &mut Open) -> Poll<Result<u64, SubmitError<u64, Infallible>>> {
    open.1
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

async fn run(steps: Vec<Step>, gather: Gather) {
    let (tell, mut started) = mpsc::unbounded_channel::<Started>();
    let builder = KeyedBatcher::builder().workers(WORKERS).max_size(MAX_SIZE);
    let builder = builder.capacity(CAPACITY).max_keys(MAX_KEYS);
    let batcher = builder.max_idle_keys(1).gather(gather);
    let batcher = batcher
        .build(move |key: u32, items: Vec<u64>| {
            let (go, wait) = oneshot::channel();
            tell.send((key, items.clone(), go)).unwrap();
            async move {
                wait.await.unwrap();
                Ok::<_, Infallible>(items.iter().map(|n| n * 2).collect())
            }
        })
        .unwrap();
    let mut model = Model::default();
    let mut open: Vec<Open> = Vec::new();
    let mut next = 0;
    settle(&mut started, &mut model).await;
    let ends = (0..200).map(|_| Step::End(0));
    for step in steps.into_iter().chain([Step::Close]).chain(ends) {
        match step {
            Step::Submit(key) => {
                let id = next;
                next += 1;
                let mut submit = (id, Box::pin(batcher.submit_owned(key, id)));
                let known = model.queued.contains_key(&key) || model.is_in_work(key);
                match poll(&mut submit) {
                    Poll::Pending => {
                        assert!(!model.closed);
                        model.queued.entry(key).or_default().push_back(id);
                        open.push(submit);
                    }
                    Poll::Ready(Err(SubmitError::Closed(item))) if model.closed => {
                        assert_eq!(item, id);
                        model.rejected += 1;
                    }
                    Poll::Ready(Err(SubmitError::Full(item))) => {
                        assert!(!known && !model.closed && item == id);
                        // A key whose last item was withdrawn stays until a worker has looked.
                        assert_eq!(batcher.keys(), MAX_KEYS);
                        model.rejected += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Withdraw(which) if !open.is_empty() => {
                let (id, submit) = open.remove(which % open.len());
                drop(submit);
                let mut cancelled = 0;
                model.queued.retain(|_, queue| {
                    let before = queue.len();
                    queue.retain(|&item| item != id);
                    cancelled += (before - queue.len()) as u64;
                    !queue.is_empty()
                });
                model.cancelled += cancelled;
            }
            Step::End(which) if !model.running.is_empty() => {
                let which = which % model.running.len();
                let batch = model.running.swap_remove(which);
                batch.go.send(()).unwrap();
                model.completed += batch.items.len() as u64;
                settle(&mut started, &mut model).await;
                open.retain_mut(|submit| match poll(submit) {
                    Poll::Ready(result) => {
                        assert!(batch.items.contains(&submit.0));
                        assert_eq!(result.unwrap(), submit.0 * 2);
                        false
                    }
                    Poll::Pending => {
                        assert!(!batch.items.contains(&submit.0));
                        true
                    }
                });
            }
            Step::Close if !model.closed => {
                batcher.close();
                model.closed = true;
                // Those beyond the capacity come back.
                open.retain_mut(|submit| match poll(submit) {
                    Poll::Ready(result) => {
                        assert!(matches!(result, Err(SubmitError::Closed(id)) if id == submit.0));
                        for queue in model.queued.values_mut().filter(|q| q.len() > CAPACITY) {
                            let before = queue.len();
                            queue.retain(|&item| item != submit.0);
                            model.rejected += (before - queue.len()) as u64;
                        }
                        false
                    }
                    Poll::Pending => true,
                });
                assert!(model.queued.values().all(|queue| queue.len() <= CAPACITY));
            }
            _ => {}
        }
        settle(&mut started, &mut model).await;
        let stats = batcher.stats();
        let running: usize = model.running.iter().map(|one| one.items.len()).sum();
        assert_eq!(stats.queued + stats.waiting, model.queued());
        assert_eq!(stats.running, running);
        assert_eq!(stats.completed, model.completed);
        assert_eq!(stats.cancelled, model.cancelled);
        assert_eq!(stats.rejected, model.rejected);
        assert_eq!(stats.submitted, next);
        assert!(batcher.keys() <= MAX_KEYS);
    }
    assert!(open.is_empty() && model.queued() == 0);
    assert!(batcher.shutdown(Deadline::NEVER).await.is_complete());
    assert_eq!(batcher.keys(), 0);
}

#[test]
fn any_operations_end_as_the_specification_says() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1");
    let config = ProptestConfig {
        cases: if deep { 5_000 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let gathers = prop_oneof![Just(Gather::Immediate), Just(Gather::Tick)];
    let result = runner.run(&(steps(), gathers), |(steps, gather)| {
        ends(run(steps, gather));
        Ok(())
    });
    result.unwrap();
}
