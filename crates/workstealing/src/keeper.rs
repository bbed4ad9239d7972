//! The thread beside the workers, of a pool that needs one: it asks the scaler, and ends tasks that
//! somebody awaits at their deadline. While no worker is awake and no deadline near, it sleeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use overdrive_core::unwind::survive;
use overdrive_core::{ConfigError, Deadline, Timestamp};

use crate::cell::Entry;
use crate::cpu::Cpu;
use crate::engine::Shared;
use crate::scaler::{Sample, Scaler};
use crate::sync::{AtomicBool, Condvar, JoinHandle, Mutex, Ordering, fence, lock, spawn_thread};
use crate::wait::wait_until;

#[derive(Default)]
pub(crate) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
    /// It waits for the workers to have something to do.
    asleep: AtomicBool,
}

#[derive(Default)]
struct State {
    started: bool,
    thread: Option<JoinHandle<()>>,
    timers: BTreeMap<Key, Weak<dyn Entry>>,
    next: u64,
    /// To look again, at once.
    stirred: bool,
}

/// Of a timer: the deadline, and a number.
pub(crate) type Key = (Timestamp, u64);

/// Starts it, for a scaler or for deadlines.
pub(crate) fn start(
    shared: &Arc<Shared>,
    scaler: Option<Box<dyn Scaler>>,
) -> Result<(), ConfigError> {
    let mut state = lock(&shared.keeper.state);
    if state.started {
        return Ok(());
    }
    let keeps = Arc::clone(shared);
    let name = "overdrive-workstealing-keeper".to_owned();
    let started = spawn_thread(name, None, move || run(&keeps, scaler));
    match started {
        Ok(thread) => {
            state.started = true;
            state.thread = Some(thread);
            Ok(())
        }
        Err(error) => {
            drop(state);
            shared.end();
            Err(ConfigError::Thread {
                field: "max_workers",
                kind: error.kind(),
            })
        }
    }
}

impl Keeper {
    /// Something has changed that it waits for.
    pub(crate) fn stir(&self) {
        let mut state = lock(&self.state);
        if state.started {
            state.stirred = true;
            self.changed.notify_all();
        }
    }

    /// A worker has found work.
    pub(crate) fn stir_if_asleep(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.stir();
        }
    }

    pub(crate) fn forget(&self, key: Key) {
        let gone = lock(&self.state).timers.remove(&key);
        drop(gone);
    }

    pub(crate) fn take_thread(&self) -> Option<JoinHandle<()>> {
        lock(&self.state).thread.take()
    }
}

/// Has that task ended at its deadline, if nobody has begun it.
pub(crate) fn remind(shared: &Arc<Shared>, deadline: Deadline, entry: Weak<dyn Entry>) -> Key {
    let mut state = lock(&shared.keeper.state);
    let key = (deadline.moment(), state.next);
    state.next += 1;
    state.timers.insert(key, entry);
    if !state.started {
        // If it cannot be started, the deadline is found to have passed when the task's turn comes.
        let keeps = Arc::clone(shared);
        let name = "overdrive-workstealing-keeper".to_owned();
        state.thread = spawn_thread(name, None, move || run(&keeps, None)).ok();
        state.started = state.thread.is_some();
    }
    state.stirred = true;
    drop(state);
    shared.keeper.changed.notify_all();
    key
}

fn run(shared: &Arc<Shared>, mut scaler: Option<Box<dyn Scaler>>) {
    let keeper = &shared.keeper;
    let mut cpu = Cpu::new();
    let mut look = Look::now(shared);
    while !shared.is_over() {
        end_late_tasks(keeper);
        if let Some(scaler) = &mut scaler {
            if look.at.saturating_add(shared.parts.scaling_interval) <= Timestamp::now() {
                let next = Look::now(shared);
                scale(shared, &mut **scaler, &look, &next, cpu.used(next.at));
                look = next;
            }
        }
        let mut state = lock(&keeper.state);
        if std::mem::take(&mut state.stirred) {
            continue;
        }
        let timer = state.timers.keys().next();
        let mut until = timer.map_or(Deadline::NEVER, |(at, _)| Deadline::at(*at));
        keeper.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let at_work = shared.sleep.sleeping() < shared.crew.live();
        if scaler.is_some() && at_work {
            let next = look.at.saturating_add(shared.parts.scaling_interval);
            until = until.min(Deadline::at(next));
        }
        if !shared.is_over() {
            let (mut state, _) = wait_until(&keeper.changed, state, until);
            state.stirred = false;
        }
        keeper.asleep.store(false, Ordering::Relaxed);
        if !at_work {
            look = Look::now(shared);
        }
    }
}

fn end_late_tasks(keeper: &Keeper) {
    loop {
        let mut state = lock(&keeper.state);
        let Some((&key, _)) = state.timers.first_key_value() else {
            return;
        };
        if !Deadline::at(key.0).has_passed() {
            return;
        }
        let entry = state.timers.remove(&key);
        drop(state);
        if let Some(entry) = entry.and_then(|entry| entry.upgrade()) {
            entry.expire();
        }
    }
}

/// What was counted at some moment.
struct Look {
    at: Timestamp,
    ends: u64,
}

impl Look {
    fn now(shared: &Shared) -> Self {
        Self {
            at: Timestamp::now(),
            ends: shared.ends(),
        }
    }
}

fn scale(shared: &Arc<Shared>, scaler: &mut dyn Scaler, last: &Look, now: &Look, cpu: Option<f64>) {
    let sample = Sample {
        interval: now.at.saturating_since(last.at),
        workers: shared.crew.live(),
        blocked: shared.crew.blocked(),
        idle: shared.sleep.sleeping(),
        min: shared.parts.workers,
        max: shared.parts.max_workers,
        queued: shared.spawns().saturating_sub(shared.starts()),
        completed: now.ends - last.ends,
        cpu,
    };
    let mut wanted = 0;
    // A user's scaler that panics has not asked for any.
    survive(|| wanted = scaler.decide(&sample));
    for _ in shared.crew.able()..wanted.min(shared.parts.max_workers) {
        // A thread that cannot be started now is asked for again.
        if !matches!(shared.start_thread(), Ok(true)) {
            break;
        }
    }
}
