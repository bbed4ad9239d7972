//! Where a run takes place.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::results::Machine;

/// Describes this machine and the tree at `root`.
pub(super) fn describe(root: &Path) -> Machine {
    Machine {
        cpu: cpu(),
        cores: cores(),
        rustc: first_line("rustc", &["-V"], root),
        git: git(root),
        load_before: load(),
        load_after: 0.0,
        kernel: first_line("uname", &["-sr"], root),
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    }
}

/// Hardware threads that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The one-minute load average; 0 where it cannot be read.
pub(super) fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    };
    match (field("model name"), field("cpu family"), field("model\t")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name} (family {family} model {model})")
        }
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_owned(),
    }
}

fn git(root: &Path) -> String {
    let revision = first_line("git", &["rev-parse", "--short=12", "HEAD"], root);
    let changes = first_line("git", &["status", "--porcelain"], root);
    if changes.is_empty() {
        revision
    } else {
        format!("{revision}+dirty")
    }
}

/// The first line that a command prints; empty where it cannot be run.
fn first_line(program: &str, args: &[&str], dir: &Path) -> String {
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| {
            Some(
                String::from_utf8_lossy(&out.stdout)
                    .lines()
                    .next()?
                    .to_owned(),
            )
        })
        .unwrap_or_default()
}
