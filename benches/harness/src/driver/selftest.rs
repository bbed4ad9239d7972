//! `--self-test`: planted differences that must be found, and an A/A pair in
//! which nothing must be found, on the machine as it is and with every core
//! kept busy by another process.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::Failure;
use super::builtin;
use super::launch::Program;
use super::machine;
use super::run::progress;
use crate::child::Order;
use crate::stats::{self, Launch, Verdict};

const RUNS: usize = 20;
const LAUNCHES: u32 = 5;
/// Per contender and run.
const SECONDS: f64 = 1.0;
/// Of 20 runs.
const MIN_FOUND: usize = 19;
const MAX_FALSE: usize = 1;
const MAX_OVERHEAD: f64 = 0.002;

/// How often each verdict was the right one.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    false_alarms: usize,
    found: [usize; 2],
}

/// Runs the experiment and prints its counts.
pub(super) fn run(own: &Program) -> Result<(), Failure> {
    println!(
        "{RUNS} runs, {SECONDS} s per contender over {LAUNCHES} launches; differences planted in one look-up loop"
    );
    let quiet = experiment(own)?;
    report("as the machine is", quiet);
    let noise = Busy::start(own)?;
    let busy = experiment(own)?;
    drop(noise);
    report("every core kept busy by another process", busy);
    let overhead = overhead();
    println!(
        "harness overhead per slice: {:.3} % (bound {:.1} %)",
        overhead * 100.0,
        MAX_OVERHEAD * 100.0
    );
    let holds = |c: &Counts| c.found[1] >= MIN_FOUND && c.false_alarms <= MAX_FALSE;
    if [quiet, busy].iter().all(holds) && overhead < MAX_OVERHEAD {
        println!("the bounds hold");
        Ok(())
    } else {
        Err(Failure::Missed("the self-test's bounds do not hold".into()))
    }
}

fn report(when: &str, counts: Counts) {
    println!("{when} (load {:.1}):", machine::load());
    println!(
        "  A/A   false verdicts {:>2} of {RUNS} (bound {MAX_FALSE})",
        counts.false_alarms
    );
    println!("  +1 %  found          {:>2} of {RUNS}", counts.found[0]);
    println!(
        "  +3 %  found          {:>2} of {RUNS} (bound {MIN_FOUND})",
        counts.found[1]
    );
}

fn experiment(own: &Program) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    let bar = progress(RUNS * LAUNCHES as usize);
    for run in 0..RUNS {
        let mut launches: [Vec<Launch>; 3] = Default::default();
        for _ in 0..LAUNCHES {
            let seconds = SECONDS / f64::from(LAUNCHES);
            let order = Order {
                input_seed: run as u64,
                ..Order::new(builtin::PLANTED, fastrand::u64(..), seconds)
            };
            let answer = own.launch(&order, 4)?;
            let names = [builtin::COPY, builtin::PLUS[0], builtin::PLUS[1]];
            for (name, launches) in names.iter().zip(&mut launches) {
                let row = answer.rows.iter().find(|r| r.name == *name);
                launches.extend(row.and_then(|r| r.against).map(Launch::from));
            }
            bar.inc(1);
        }
        let [aa, plus_1, plus_3] = launches.map(|l| stats::combine(&l).map(Verdict::of));
        if matches!(aa, Some(Verdict::Faster | Verdict::Slower) | None) {
            counts.false_alarms += 1;
        }
        for (found, verdict) in counts.found.iter_mut().zip([plus_1, plus_3]) {
            // Ours does less work than the planted variant.
            *found += usize::from(verdict == Some(Verdict::Faster));
        }
    }
    bar.finish_and_clear();
    Ok(counts)
}

/// What two clock reads add to a slice, as a share of it.
fn overhead() -> f64 {
    const READS: u32 = 10_000;
    let start = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    let read = start.elapsed() / READS;
    // Between the first read's sample and the second's lies one read in all.
    read.as_secs_f64() / crate::measure::SOLO_SLICE.as_secs_f64()
}

/// Another process that keeps every core busy until it is dropped.
struct Busy(Child);

impl Busy {
    fn start(own: &Program) -> Result<Self, Failure> {
        Command::new(&own.path)
            .arg(super::SPIN)
            .stdin(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|e| Failure::Error(format!("cannot start the busy process: {e}")))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Spins on every core until killed, or until the parent is gone.
pub(super) fn spin() -> ! {
    let parent = rustix::process::getppid();
    for _ in 1..machine::cores() {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let mut turns = 0u32;
    loop {
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(1 << 20) && rustix::process::getppid() != parent {
            std::process::exit(0);
        }
        std::hint::spin_loop();
    }
}
