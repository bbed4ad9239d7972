//! A persistent team of threads that run one contender at a time.
//!
//! The calling thread is member 0, so that a team of `n` occupies `n` threads.
//! Members wait between slices by spinning briefly and then yielding, so that
//! a slice starts within a microsecond on idle cores and the team does not
//! hold up its own members on busy ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::clock;
use crate::scenario::{Run, Workers};

/// What one slice took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) wall_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) check: u64,
}

/// A contender's loop panicked.
#[derive(Debug)]
pub(crate) struct Panicked {
    pub(crate) contender: usize,
}

#[derive(Default)]
struct Shared {
    /// Bumped once per slice; published with release, read with acquire, so
    /// that the order below is visible with it.
    generation: AtomicU64,
    contender: AtomicUsize,
    ops: AtomicU64,
    stop: AtomicBool,
    done: AtomicUsize,
    panicked: AtomicBool,
    cpu_ns: AtomicU64,
    check: AtomicU64,
}

pub(crate) struct Team {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    loops: Vec<Run>,
    cpu_read_cost: u64,
    cpu_clock: fn() -> u64,
}

impl Team {
    /// Starts `threads - 1` further threads; each builds its own loops.
    /// `process_cpu` charges a slice with the CPU time of the whole process.
    pub(crate) fn new(
        threads: usize,
        workers: Vec<Workers>,
        process_cpu: bool,
    ) -> Result<Self, Panicked> {
        let shared = Arc::new(Shared::default());
        let workers = Arc::new(workers);
        let others = (1..threads)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                let workers = Arc::clone(&workers);
                std::thread::spawn(move || member(&shared, &workers, thread))
            })
            .collect::<Vec<_>>();
        let mut loops = Vec::with_capacity(workers.len());
        let mut failed = None;
        for (contender, workers) in workers.iter().enumerate() {
            match catch_unwind(AssertUnwindSafe(|| workers(0))) {
                Ok(run) => loops.push(run),
                Err(_) => {
                    failed = Some(Panicked { contender });
                    break;
                }
            }
        }
        let cpu_clock = if process_cpu {
            clock::process_cpu
        } else {
            clock::thread_cpu
        };
        let team = Self {
            shared,
            others,
            loops,
            cpu_read_cost: clock::read_cost(cpu_clock),
            cpu_clock,
        };
        team.wait_done(); // every member has built its loops
        // Only now: dropping the team joins its members.
        failed.map_or(Ok(team), Err)
    }

    fn wait_done(&self) {
        let mut spins = 0;
        // Acquire: the members' figures are visible with their count.
        while self.shared.done.load(Ordering::Acquire) < self.others.len() {
            relax(&mut spins);
        }
    }

    /// Runs `ops` operations of a contender on every member.
    pub(crate) fn slice(&mut self, contender: usize, ops: u64) -> Result<Slice, Panicked> {
        let shared = &*self.shared;
        shared.contender.store(contender, Ordering::Relaxed);
        shared.ops.store(ops, Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        shared.cpu_ns.store(0, Ordering::Relaxed);
        shared.check.store(0, Ordering::Relaxed);
        let run = &mut self.loops[contender];
        let cpu = (self.cpu_clock)();
        let start = Instant::now();
        if !self.others.is_empty() {
            // Release: pairs with the members' acquire.
            shared.generation.fetch_add(1, Ordering::Release);
        }
        let result = catch_unwind(AssertUnwindSafe(|| run(ops)));
        let (wall, cpu_ns) = if self.others.is_empty() {
            let wall = start.elapsed();
            (wall, (self.cpu_clock)() - cpu)
        } else {
            // Waiting for the others is not this contender's work.
            let own_cpu = (self.cpu_clock)() - cpu;
            self.wait_done();
            (start.elapsed(), own_cpu)
        };
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        match result {
            Ok(check) if !shared.panicked.load(Ordering::Relaxed) => Ok(Slice {
                wall_ns,
                cpu_ns: cpu_ns.saturating_sub(self.cpu_read_cost)
                    + shared.cpu_ns.load(Ordering::Relaxed),
                check: check.wrapping_add(shared.check.load(Ordering::Relaxed)),
            }),
            _ => Err(Panicked { contender }),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.generation.fetch_add(1, Ordering::Release);
        for other in self.others.drain(..) {
            // A member catches its panics; there is nothing to report here.
            drop(other.join());
        }
    }
}

fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < 2_000 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

fn member(shared: &Shared, workers: &[Workers], thread: usize) {
    let read_cost = clock::read_cost(clock::thread_cpu);
    let built = catch_unwind(AssertUnwindSafe(|| {
        workers.iter().map(|w| w(thread)).collect::<Vec<Run>>()
    }));
    let mut loops = built.unwrap_or_else(|_| {
        shared.panicked.store(true, Ordering::Relaxed);
        Vec::new()
    });
    let mut seen = shared.generation.load(Ordering::Acquire);
    shared.done.fetch_add(1, Ordering::Release);
    loop {
        let mut spins = 0;
        while shared.generation.load(Ordering::Acquire) == seen {
            relax(&mut spins);
        }
        seen += 1;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let ops = shared.ops.load(Ordering::Relaxed);
        let start = clock::thread_cpu();
        let result = loops
            .get_mut(shared.contender.load(Ordering::Relaxed))
            .map(|run| catch_unwind(AssertUnwindSafe(|| run(ops))));
        let cpu = clock::thread_cpu() - start;
        match result {
            Some(Ok(check)) => {
                shared.check.fetch_add(check, Ordering::Relaxed);
                shared
                    .cpu_ns
                    .fetch_add(cpu.saturating_sub(read_cost), Ordering::Relaxed);
            }
            _ => shared.panicked.store(true, Ordering::Relaxed),
        }
        // Release: publishes the figures above.
        shared.done.fetch_add(1, Ordering::Release);
    }
}
