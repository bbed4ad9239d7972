//! How much of its processors the process uses.

use std::time::Duration;

use overdrive_core::Timestamp;

/// The kernel counts in steps of ten milliseconds, so shorter times say nothing.
const WINDOW: Duration = Duration::from_millis(100);

/// Ticks per second of `/proc`: fixed for user space on Linux.
const TICKS: f64 = 100.0;

pub(crate) struct Cpu {
    cores: f64,
    since: Option<(Timestamp, u64)>,
    used: Option<f64>,
}

impl Cpu {
    pub(crate) fn new() -> Self {
        // Heeds the quota of a container.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cores: cores as f64,
            since: None,
            used: None,
        }
    }

    /// The share used over the last window. `None` before the first is over, and where it cannot
    /// be known.
    pub(crate) fn used(&mut self, now: Timestamp) -> Option<f64> {
        let passed = self.since.map(|(at, _)| now.saturating_since(at));
        if passed.is_none_or(|passed| passed >= WINDOW) {
            let ticks = ticks()?;
            if let Some((at, before)) = self.since {
                let passed = now.saturating_since(at).as_secs_f64();
                let busy = ticks.saturating_sub(before) as f64 / TICKS;
                self.used = Some(busy / (passed * self.cores));
            }
            self.since = Some((now, ticks));
        }
        self.used
    }
}

/// User and system time of the process.
fn ticks() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The 14th and 15th field of `/proc/<pid>/stat` (`proc_pid_stat(5)`). The second, the name, may
/// contain anything, so counting begins after its parenthesis.
fn parse(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "1 (a) b) c) S 0 1 1 0 -1 4194560 0 0 0 0 41 1 0 0 20 0 1 0";
        assert_eq!(parse(stat), Some(42));
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn nothing_is_said_of_less_than_a_window() {
        let mut cpu = Cpu::new();
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        assert_eq!(cpu.used(at(0)), None);
        assert_eq!(cpu.used(at(50)), None);
    }
}
