//! Random schedules of a whole cache: callers that make a value, wait for it, fail, panic and go
//! away, as threads and as tasks, and others that insert and remove meanwhile; and writers of all
//! weights under a bound that changes.
//!
//! Each load is stamped when it begins, so that one that runs beside another shows, and a value
//! that is older than a removal. A hang is a deadlock that shuttle reports. The controls take out
//! a protection, and must fail.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_testkit::control::Guard;
use shuttle::rand::{Rng, thread_rng};
use shuttle::{future, thread};

use crate::{Cache, Pending, Reservation, Reserve};

const CALLERS: usize = 4;
const ASKS: usize = 2;
const KEY: u8 = 1;
/// The stamp of what no load has made.
const INSERTED: u64 = u64::MAX;

type Hasher = BuildHasherDefault<DefaultHasher>;

/// What a control takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Who asks for what is being made waits for it.
    Sharing,
    /// What was begun before a removal is not stored after it.
    Fence,
    /// Who goes away gives its reservation up.
    GivingUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Nobody inserts or removes: the value is made exactly once, however many fail before.
    Calm,
    /// As calm, with a value there that is to be made anew.
    Stale,
    /// All comes together.
    Rough,
}

struct World {
    cache: Cache<u8, u64, Hasher>,
    weather: Weather,
    without: Without,
    time: AtomicU64,
    /// No value from before it is to be seen any more.
    floor: AtomicU64,
    /// Since when those who load have been asking.
    running: Mutex<Vec<u64>>,
    made: AtomicUsize,
    /// Changes under way, and when the last one ended.
    changing: AtomicUsize,
    changed: AtomicU64,
    /// What a control does not give up.
    kept: Mutex<Vec<Reservation<u8, u64, Hasher>>>,
}

/// A load that runs, until it is dropped, and since when it was asked for.
struct Load<'a>(&'a World, u64);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock().unwrap();
        let at = running.iter().position(|&asked| asked == self.1);
        running.swap_remove(at.unwrap());
    }
}

/// The panic of a loader.
struct AsTold;

fn one_in(n: u32) -> bool {
    thread_rng().gen_range(0..n) == 0
}

impl World {
    fn new(weather: Weather, without: Without) -> Arc<Self> {
        let second = Duration::from_secs(1);
        let clock = ManualClock::new();
        let builder = Cache::builder().max_entries(4).hasher(Hasher::default());
        let builder = builder.shards(1).clock(clock.clone());
        let cache = match weather {
            Weather::Stale => builder.refresh_after(second).build().unwrap(),
            _ => builder.build().unwrap(),
        };
        if weather == Weather::Stale {
            cache.insert(KEY, INSERTED).unwrap();
            clock.advance(second);
        }
        let mut state = cache.inner.shards[0].state.write();
        let guard = |of| match without == of {
            true => Guard::Removed,
            false => Guard::InPlace,
        };
        state.guards.sharing = guard(Without::Sharing);
        state.guards.fence = guard(Without::Fence);
        drop(state);
        Arc::new(Self {
            cache,
            weather,
            without,
            time: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            running: Mutex::default(),
            made: AtomicUsize::new(0),
            changing: AtomicUsize::new(0),
            changed: AtomicU64::new(0),
            kept: Mutex::default(),
        })
    }

    fn tick(&self) -> u64 {
        1 + self.time.fetch_add(1, Ordering::Relaxed)
    }

    fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    fn begin(&self, asked: u64) -> (Load<'_>, u64) {
        let stamp = self.tick();
        let others = {
            let mut running = self.running.lock().unwrap();
            let others = running.clone();
            running.push(asked);
            others
        };
        let load = Load(self, asked);
        if self.weather == Weather::Rough {
            // A second one only if the first was superseded since it was asked for.
            let changed = self.changed.load(Ordering::Relaxed);
            let is_changing = self.changing.load(Ordering::Relaxed) > 0;
            let are_superseded = is_changing || others.iter().all(|&asked| asked < changed);
            assert!(are_superseded, "one load at a time");
        } else {
            let made = self.made.load(Ordering::Relaxed);
            let is_alone = others.is_empty();
            assert!(
                is_alone && made == 0,
                "one load at a time, until one succeeds"
            );
        }
        (load, stamp)
    }

    fn end(&self, stamp: u64) -> Result<u64, ()> {
        match thread_rng().gen_range(0..6) {
            0 => Err(()),
            1 => resume_unwind(Box::new(AsTold)),
            _ => {
                self.made.fetch_add(1, Ordering::Relaxed);
                Ok(stamp)
            }
        }
    }

    fn load(&self, asked: u64) -> Result<u64, ()> {
        let (_load, stamp) = self.begin(asked);
        if one_in(2) {
            thread::yield_now();
        }
        self.end(stamp)
    }

    async fn load_async(&self, asked: u64) -> Result<u64, ()> {
        let (_load, stamp) = self.begin(asked);
        for _ in 0..thread_rng().gen_range(0..3) {
            future::yield_now().await;
        }
        self.end(stamp)
    }

    /// Of a value that was asked for when the floor was there.
    fn check(&self, floor: u64, value: u64) {
        assert!(value > floor, "{value} is from before {floor}");
    }

    fn ask(self: &Arc<Self>) {
        let kinds = if self.weather == Weather::Rough { 8 } else { 5 };
        let (floor, now) = (self.floor(), self.tick());
        match thread_rng().gen_range(0..kinds) {
            0 | 1 => {
                let asked = || self.cache.try_get_or_insert_with(KEY, || self.load(now));
                if let Some(Ok(value)) = as_told(asked) {
                    self.check(floor, value);
                }
            }
            2 => self.ask_and_maybe_go(floor, now),
            3 => self.ask_in_a_task(floor, now),
            4 => self.reserve(floor, now),
            5 => drop(self.change(|cache| cache.insert(KEY, INSERTED))),
            6 => drop(self.change(|cache| cache.remove(&KEY))),
            _ => self.change(|cache| cache.clear()),
        }
        let floor = self.floor();
        if let Some(value) = self.cache.get(&KEY) {
            self.check(floor, value);
        }
    }

    fn change<R>(&self, change: impl FnOnce(&Cache<u8, u64, Hasher>) -> R) -> R {
        self.changing.fetch_add(1, Ordering::Relaxed);
        let before = self.tick();
        let result = change(&self.cache);
        self.floor.fetch_max(before, Ordering::Relaxed);
        // Another one, begun later, may have come to its end before.
        self.changed.fetch_max(self.tick(), Ordering::Relaxed);
        self.changing.fetch_sub(1, Ordering::Relaxed);
        result
    }

    fn ask_and_maybe_go(&self, floor: u64, now: u64) {
        let patience = one_in(2).then(|| thread_rng().gen_range(0..3));
        let asked = || {
            let asked = self
                .cache
                .try_get_or_insert_async(KEY, || self.load_async(now));
            future::block_on(patiently(patience, asked))
        };
        if let Some(Some(Ok(value))) = as_told(asked) {
            self.check(floor, value);
        }
    }

    fn ask_in_a_task(self: &Arc<Self>, floor: u64, now: u64) {
        let world = Arc::clone(self);
        let task = future::spawn(async move {
            let asked = world
                .cache
                .try_get_or_insert_async(KEY, || world.load_async(now));
            let mut asked = pin!(asked);
            poll_fn(|cx| {
                let poll = as_told(|| asked.as_mut().poll(cx));
                poll.unwrap_or(Poll::Ready(Err(())))
            })
            .await
        });
        if one_in(2) {
            thread::yield_now();
            task.abort();
        }
        if let Ok(Ok(value)) = future::block_on(task) {
            self.check(floor, value);
        }
    }

    fn reserve(&self, floor: u64, now: u64) {
        match self.cache.reserve(KEY) {
            Reserve::Found(value) => self.check(floor, value),
            Reserve::Vacant(mine) if self.without == Without::GivingUp => {
                self.kept.lock().unwrap().push(mine);
            }
            Reserve::Vacant(mine) => {
                if let Some(Ok(value)) = as_told(|| self.load(now)) {
                    mine.insert(value);
                }
            }
            Reserve::Busy(pending) => self.wait(floor, pending),
        }
    }

    fn wait(&self, floor: u64, pending: Pending<u64>) {
        let patience = one_in(2).then(|| thread_rng().gen_range(0..3));
        let value = match one_in(2) {
            true => pending.wait_blocking(),
            false => future::block_on(patiently(patience, pending)).flatten(),
        };
        if let Some(value) = value {
            self.check(floor, value);
        }
    }

    fn check_end(&self) {
        assert!(self.running.lock().unwrap().is_empty());
        let state = self.cache.inner.shards[0].state.read();
        assert!(state.flights.is_empty(), "no flight is left behind");
        drop(state);
        let (made, found) = (self.made.load(Ordering::Relaxed), self.cache.get(&KEY));
        match self.weather {
            Weather::Calm => assert_eq!(made, usize::from(found.is_some())),
            Weather::Stale => assert_eq!(made == 0, found == Some(INSERTED)),
            Weather::Rough => {}
        }
        let stats = self.cache.stats();
        let left = stats.replaced + stats.evicted + stats.expired + stats.removed;
        assert_eq!(stats.inserted, stats.entries as u64 + left);
        assert_eq!(stats.weight, self.cache.weight());
    }
}

/// `None` for a loader's panic.
fn as_told<R>(f: impl FnOnce() -> R) -> Option<R> {
    let fault = |payload: Box<dyn Any + Send>| {
        if !payload.is::<AsTold>() {
            resume_unwind(payload);
        }
    };
    catch_unwind(AssertUnwindSafe(f)).map_err(fault).ok()
}

/// Another waker each time, of which the last one alone wakes.
struct Relay {
    waker: Waker,
    number: usize,
    last: Arc<AtomicUsize>,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        if self.last.load(Ordering::Relaxed) == self.number {
            self.waker.wake_by_ref();
        }
    }
}

/// Polls so often at most, and then goes away; `None` for ever.
async fn patiently<F: Future>(patience: Option<usize>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let last = Arc::new(AtomicUsize::new(0));
    // It is polled without need too, so that the waker changes while it waits.
    let mut needless = thread_rng().gen_range(0..3);
    poll_fn(|cx| {
        let number = 1 + last.fetch_add(1, Ordering::Relaxed);
        if patience.is_some_and(|patience| number > patience) {
            return Poll::Ready(None);
        }
        let relay = Relay {
            waker: cx.waker().clone(),
            number,
            last: Arc::clone(&last),
        };
        let waker = Waker::from(Arc::new(relay));
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        if patience.is_some() || needless > 0 {
            needless -= 1_i32;
            cx.waker().wake_by_ref();
        }
        poll.map(Some)
    })
    .await
}

fn storm(weather: Weather, without: Without) {
    let world = World::new(weather, without);
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..ASKS).for_each(|_| world.ask()))
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    world.check_end();
}

fn runs() -> usize {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    if deep { 100_000 } else { 2_000 }
}

fn check(weather: Weather) {
    let storm = move || storm(weather, Without::Nothing);
    shuttle::check_random(storm, runs());
    shuttle::check_pct(storm, runs(), 4);
}

#[test]
fn shuttle_a_value_is_made_once_whoever_fails_or_goes_away() {
    check(Weather::Calm);
}

#[test]
fn shuttle_a_stale_value_is_made_anew_once() {
    check(Weather::Stale);
}

#[test]
fn shuttle_no_value_outlives_a_removal_and_nobody_hangs() {
    check(Weather::Rough);
}

#[test]
#[should_panic(expected = "one load at a time")]
fn shuttle_two_make_it_if_it_is_not_shared() {
    shuttle::check_random(|| storm(Weather::Calm, Without::Sharing), runs());
}

#[test]
#[should_panic(expected = "is from before")]
fn shuttle_a_value_outlives_a_removal_without_the_fence() {
    shuttle::check_random(|| storm(Weather::Rough, Without::Fence), runs());
}

#[test]
#[should_panic(expected = "deadlock")]
fn shuttle_all_hang_if_a_reservation_is_not_given_up() {
    shuttle::check_random(|| storm(Weather::Calm, Without::GivingUp), runs());
}

/// What may be in the cache at most, by turns.
const BOUNDS: [u64; 2] = [6, 12];

fn write(cache: &Cache<u8, u64, Hasher>) {
    for _ in 0..4 {
        let key = thread_rng().gen_range(0..6);
        // Some are too heavy for the lower bound, and some for a part of a shard.
        let weight = if one_in(4) {
            thread_rng().gen_range(4..10)
        } else {
            1
        };
        match thread_rng().gen_range(0..6) {
            0 => drop(cache.remove(&key)),
            1 => drop(cache.update(&key, |value| *value = weight)),
            2 => drop(cache.get_or_insert_with(key, || weight)),
            _ => drop(cache.insert(key, weight)),
        }
        assert!(cache.weight() <= BOUNDS[1], "more than there is");
    }
}

fn storm_of_weights() {
    let builder = Cache::builder().max_weight(BOUNDS[1]).shards(3);
    let builder = builder.weigher(|_, weight| *weight);
    let cache: Cache<u8, u64, Hasher> = builder.hasher(Hasher::default()).build().unwrap();
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let cache = cache.clone();
            thread::spawn(move || write(&cache))
        })
        .collect();
    for bound in [BOUNDS[0], BOUNDS[1], BOUNDS[0]] {
        cache.set_max_weight(bound).unwrap();
        for _ in 0..3 {
            assert!(cache.weight() <= bound, "more than there is");
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    let stats = cache.stats();
    assert_eq!(stats.weight, cache.weight());
    assert!(stats.weight <= BOUNDS[1]);
    cache.clear();
    assert_eq!(cache.weight(), 0, "no weight is lost");
}

#[test]
fn shuttle_no_more_is_kept_than_there_is_and_no_writer_hangs() {
    shuttle::check_random(storm_of_weights, runs());
    shuttle::check_pct(storm_of_weights, runs(), 4);
}
