//! The queue behind a lock, and what workers, spawners and waiters do with it.
//!
//! A job is in the queue, or it belongs to the one who took it out, and that one settles it: runs
//! it or drops its closure, counts it, and makes its end known. Nothing of a user runs under the
//! lock. Order of locks: a scope's group, the pool's state, a latch.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use overdrive_core::unwind::{drop_payload, survive};
use overdrive_core::{Clock, Deadline, DrainReport, Health, Priority};

use crate::builder::Overload;
use crate::context;
use crate::error::{PanicPayload, SpawnError};
use crate::job::{Fate, Job, Outcome, Reason, Signal};
use crate::queue::{Queue, Ticket};
use crate::stats::ThreadPoolStats;
use crate::wait::wait_until;

pub(crate) type PanicHandler = Box<dyn Fn(&PanicPayload) + Send + Sync>;

/// What the builder has checked.
pub(crate) struct Parts {
    pub(crate) name: Cow<'static, str>,
    pub(crate) workers: usize,
    pub(crate) capacity: usize,
    pub(crate) overload: Overload,
    pub(crate) starvation_bound: NonZeroU32,
    pub(crate) on_panic: Option<PanicHandler>,
    pub(crate) clock: Box<dyn Clock>,
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    state: Mutex<State>,
    /// Idle workers wait here: for a job, or for the end.
    work: Condvar,
    /// Blocked spawners wait here: for room in the queue, or for the pool to close.
    room: Condvar,
    /// Those who drain wait here: for nothing to be outstanding.
    idle: Condvar,
}

struct State {
    queue: Queue<Job>,
    /// The counters; what the queue knows is filled in when figures are asked for.
    counts: ThreadPoolStats,
    sleeping: usize,
    blocked: usize,
    /// Nothing more is accepted.
    closed: bool,
    /// Workers end once nothing is outstanding.
    ending: bool,
    threads: Vec<JoinHandle<()>>,
}

impl State {
    fn outstanding(&self) -> usize {
        self.queue.len() + self.counts.running
    }
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let counts = ThreadPoolStats {
            workers: parts.workers,
            capacity: parts.capacity,
            ..ThreadPoolStats::default()
        };
        let state = State {
            queue: Queue::new(parts.starvation_bound),
            counts,
            sleeping: 0,
            blocked: 0,
            closed: false,
            ending: false,
            threads: Vec::new(),
        };
        Arc::new(Self {
            parts,
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            idle: Condvar::new(),
        })
    }

    /// What a worker thread does.
    pub(crate) fn work(self: &Arc<Self>) {
        let _inside = context::enter(self, Priority::Normal);
        let mut state = self.lock();
        loop {
            if let Some((ticket, job)) = state.queue.next() {
                self.taken(&mut state);
                drop(state);
                self.settle(job, Some(ticket), None);
                state = self.lock();
            } else if state.ending && state.counts.running == 0 {
                return;
            } else {
                state.sleeping += 1;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.sleeping -= 1;
            }
        }
    }

    /// Accepts the job that `make` makes of `f`, or says why not. A ticket if it was queued; none
    /// if it had to be run at once.
    pub(crate) fn admit<F>(
        self: &Arc<Self>,
        f: F,
        may_wait: bool,
        make: impl FnOnce(F) -> Job,
    ) -> Result<Option<Ticket>, SpawnError<F>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                state.counts.rejected += 1;
                return Err(SpawnError::Closed(f));
            }
            if state.queue.len() < self.parts.capacity {
                return Ok(Some(self.push(&mut state, make(f))));
            }
            match self.parts.overload {
                _ if !may_wait => break,
                Overload::Reject => break,
                // Who is in a pool may be what the queue waits for.
                Overload::Wait if !context::is_in_any() => {
                    state.blocked += 1;
                    state = self
                        .room
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                    state.blocked -= 1;
                }
                Overload::Wait | Overload::CallerRuns => {
                    Self::begin_at_once(&mut state);
                    drop(state);
                    self.settle(make(f), None, None);
                    return Ok(None);
                }
            }
        }
        state.counts.rejected += 1;
        Err(SpawnError::Full(f))
    }

    /// Queues a part of a job that was accepted, whether or not the pool is closed by now.
    ///
    /// # Errors
    /// The queue is full: the caller has to settle the job, without a ticket.
    pub(crate) fn fork(&self, job: Job) -> Result<Ticket, Job> {
        let mut state = self.lock();
        if state.queue.len() < self.parts.capacity {
            return Ok(self.push(&mut state, job));
        }
        Self::begin_at_once(&mut state);
        Err(job)
    }

    /// Takes that job out of the queue, if it is still there, to settle it.
    pub(crate) fn claim(&self, ticket: Ticket) -> Option<Job> {
        let mut state = self.lock();
        let job = state.queue.claim(ticket)?;
        self.taken(&mut state);
        Some(job)
    }

    /// Claims that job and runs it here, if it is still queued.
    pub(crate) fn claim_and_run(self: &Arc<Self>, ticket: Ticket) {
        let mut state = self.lock();
        if let Some(job) = state.queue.claim(ticket) {
            self.taken(&mut state);
            state.counts.claimed += 1;
            drop(state);
            self.settle(job, None, None);
        }
    }

    /// Runs a job that was taken out of the queue, or discards it, and makes its end known.
    pub(crate) fn settle(
        self: &Arc<Self>,
        job: Job,
        ticket: Option<Ticket>,
        discard: Option<Reason>,
    ) {
        if let (Signal::Scope(group), Some(ticket)) = (&job.signal, ticket) {
            group.started(ticket);
        }
        let fate = match discard {
            Some(reason) => Fate::Discard(reason),
            None if self.has_passed(job.deadline) => Fate::Discard(Reason::Expired),
            None => Fate::Run,
        };
        let inside = context::enter(self, job.priority);
        let mut outcome = (job.body)(fate);
        if let Outcome::Panicked(payload) = &mut outcome {
            self.report(payload.take());
        }
        drop(inside);
        let mut state = self.lock();
        state.counts.running -= 1;
        state.counts.count(&outcome);
        // Under the lock, so that figures and handles tell the same story.
        let waker = match &job.signal {
            Signal::Handle(latch) => latch.set(),
            Signal::Nobody | Signal::Scope(_) => None,
        };
        if state.outstanding() == 0 {
            self.idle.notify_all();
            if state.ending {
                self.work.notify_all();
            }
        }
        drop(state);
        if let Signal::Scope(group) = &job.signal {
            group.finished();
        }
        if let Some(waker) = waker {
            survive(|| waker.wake());
        }
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.room.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Lets the workers end once nothing is outstanding.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ending = true;
        self.room.notify_all();
        self.work.notify_all();
    }

    pub(crate) fn drain(&self, deadline: Deadline) -> DrainReport {
        let may_wait = !context::is_in(self);
        let mut state = self.lock();
        let before = state.counts.ended();
        while may_wait && state.outstanding() > 0 {
            let (guard, in_time) = wait_until(&self.idle, state, deadline);
            state = guard;
            if !in_time {
                break;
            }
        }
        let abandoned = u64::try_from(state.outstanding()).unwrap_or(u64::MAX);
        DrainReport::new(state.counts.ended() - before, abandoned)
    }

    pub(crate) fn shutdown(self: &Arc<Self>, deadline: Deadline) -> DrainReport {
        self.end();
        let report = self.drain(deadline);
        if report.is_complete() {
            self.join_threads();
        } else if deadline.has_passed() {
            self.discard_queued();
        }
        report
    }

    pub(crate) fn stats(&self) -> ThreadPoolStats {
        let state = self.lock();
        ThreadPoolStats {
            queued_high: state.queue.len_of(Priority::High),
            queued_normal: state.queue.len_of(Priority::Normal),
            queued_low: state.queue.len_of(Priority::Low),
            ..state.counts
        }
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.lock();
        if state.closed {
            Health::Unhealthy
        } else if state.queue.len() * 4 >= self.parts.capacity * 3 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    pub(crate) fn keep_threads(&self, threads: Vec<JoinHandle<()>>) {
        self.lock().threads = threads;
    }

    fn push(&self, state: &mut State, job: Job) -> Ticket {
        state.counts.spawned += 1;
        let ticket = state.queue.push(job.priority, job);
        if state.sleeping > 0 {
            self.work.notify_one();
        }
        ticket
    }

    /// A job has left the queue, and there is room for another.
    fn taken(&self, state: &mut State) {
        state.counts.running += 1;
        if state.blocked > 0 {
            self.room.notify_one();
        }
    }

    fn begin_at_once(state: &mut State) {
        state.counts.spawned += 1;
        state.counts.caller_ran += 1;
        state.counts.running += 1;
    }

    /// A clock that panics has not shown that it is too late.
    fn has_passed(&self, deadline: Deadline) -> bool {
        let mut passed = false;
        if deadline != Deadline::NEVER {
            survive(|| passed = deadline.has_passed_on(&*self.parts.clock));
        }
        passed
    }

    fn report(&self, payload: Option<PanicPayload>) {
        if let Some(payload) = payload {
            if let Some(handler) = &self.parts.on_panic {
                survive(|| handler(&payload));
            }
            drop_payload(payload.into_inner());
        }
    }

    /// The parts of joins and scopes stay: somebody waits for them and will run them.
    fn discard_queued(self: &Arc<Self>) {
        let mut state = self.lock();
        let is_task = |job: &Job| !matches!(job.signal, Signal::Scope(_));
        let jobs = state.queue.claim_all(is_task);
        for _ in &jobs {
            self.taken(&mut state);
        }
        drop(state);
        for job in jobs {
            self.settle(job, None, Some(Reason::Abandoned));
        }
    }

    fn join_threads(&self) {
        if context::is_in(self) {
            return;
        }
        let threads = std::mem::take(&mut self.lock().threads);
        for thread in threads {
            // A destructor of a worker's thread-local may get here.
            if thread.thread().id() != thread::current().id() {
                // Workers catch what tasks panic with.
                let _ = thread.join();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
