//! The processor's time-stamp counter: the crate's only unsafe code.
//!
//! It pays for itself: a check costs a quarter of what it costs with the operating system's clock,
//! and most of what is left is the counter.
//!
//! # Invariants
//! 1. `rdtsc` is there on every x86-64 processor, and reads no memory. (A process that has forbidden
//!    it to itself, by `prctl`, ends at the first reading; nothing is undefined.)

use overdrive_core::Timestamp;

/// Something that counts evenly, at an unknown frequency.
#[derive(Debug)]
pub(crate) enum Counter {
    #[cfg(target_arch = "x86_64")]
    Tsc,
    /// The operating system's clock, in nanoseconds.
    System,
    #[cfg(test)]
    Set(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Counter {
    pub(crate) fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if kernel_trusts_it() {
            return Self::Tsc;
        }
        Self::System
    }

    /// Whether it still counts evenly, as far as is known.
    pub(crate) fn is_trusted(&self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tsc => kernel_trusts_it(),
            _ => true,
        }
    }

    #[inline(always)]
    pub(crate) fn read(&self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: by 1.
            #[expect(unsafe_code, reason = "there is no safe way to the counter")]
            Self::Tsc => unsafe { std::arch::x86_64::_rdtsc() },
            Self::System => system(),
            #[cfg(test)]
            Self::Set(ticks) => ticks.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

/// Out of the way of the counter.
#[inline(never)]
fn system() -> u64 {
    Timestamp::now().as_nanos()
}

/// Whether the operating system keeps its own time by the counter: then it has found it to be
/// even, and alike on all cores. Known of Linux only.
#[cfg(target_arch = "x86_64")]
fn kernel_trusts_it() -> bool {
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_os = "linux")
        && !cfg!(miri)
        && std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc")
}
