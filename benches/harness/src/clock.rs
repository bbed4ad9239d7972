//! Wall and CPU clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanoseconds(t: Timespec) -> u64 {
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

/// CPU time that the calling thread has used so far.
pub(crate) fn thread_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// The CPU time, in nanoseconds, that the whole process has used so far, threads that have ended
/// included.
#[must_use]
pub fn process_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// The least that two back-to-back reads of `clock` differ by: what reading it
/// adds to a measured span.
pub(crate) fn read_cost(clock: impl Fn() -> u64) -> u64 {
    (0..200)
        .map(|_| {
            let start = clock();
            clock() - start
        })
        .min()
        .unwrap_or(0)
}
