//! Starting benchmark binaries and reading their answers.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Failure;
use crate::child::{Answer, Catalogue, MARK, Order, PROTOCOL};

/// A benchmark binary that can be launched.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Arguments that stand before all others.
    pub(super) prefix: Vec<String>,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.prefix);
        command
    }

    /// What the binary offers.
    pub(super) fn catalogue(&self) -> Result<Catalogue, Failure> {
        let mut command = self.command();
        command.arg("--list-json");
        let text = output(command, Duration::from_secs(60))?;
        let catalogue: Catalogue = answer(&text).map_err(|e| self.failed(&e))?;
        if catalogue.protocol != PROTOCOL {
            return Err(Failure::Error(format!(
                "{} speaks version {} of the benchmark protocol, this driver version {PROTOCOL}",
                self.path.display(),
                catalogue.protocol
            )));
        }
        Ok(catalogue)
    }

    /// Runs the answer check of the scenarios that the filters mean, prints what
    /// it says, and returns its exit code.
    pub(super) fn check(
        &self,
        filters: &[String],
        traces: Option<&Path>,
        rows: usize,
    ) -> Result<Option<i32>, Failure> {
        let mut command = self.command();
        command.arg("--check").args(filters);
        if let Some(traces) = traces {
            command.env("OVERDRIVE_TRACES", traces);
        }
        let patience = Duration::from_secs(60 + 5 * rows as u64);
        let (status, text) = finish(command, patience).map_err(|e| self.failed(&e.to_string()))?;
        print!("{text}");
        Ok(status.code())
    }

    /// Has one order carried out in a process of its own.
    pub(super) fn launch(&self, order: &Order, rows: usize) -> Result<Answer, Failure> {
        let text = serde_json::to_string(order).map_err(|e| self.failed(&e.to_string()))?;
        let mut command = self.command();
        command.arg("--child").arg(text);
        // The size of the environment moves the stack, which moves a loop's
        // speed; drawn anew in each launch, it ends in the interval instead of
        // in the estimate (Mytkowicz et al., "Producing Wrong Data Without
        // Doing Anything Obviously Wrong", 2009).
        let pad = fastrand::Rng::with_seed(order.seed).usize(0..4096);
        command.env("OVERDRIVE_BENCH_PAD", "x".repeat(pad));
        let patience = order.seconds * rows as f64 * 10.0 + 120.0;
        let text = output(command, Duration::from_secs_f64(patience))
            .map_err(|e| self.of(order, &e.to_string()))?;
        let answer: Answer = answer(&text).map_err(|e| self.of(order, &e))?;
        match answer.error {
            Some(error) => Err(self.of(order, &error)),
            None => Ok(answer),
        }
    }

    /// Instructions that one contender's loop takes, counted by callgrind.
    pub(super) fn instructions(&self, order: &Order) -> Result<u64, Failure> {
        let text = serde_json::to_string(order).map_err(|e| self.failed(&e.to_string()))?;
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg("--toggle-collect=*counted_region*");
        let log = std::env::temp_dir().join(format!("overdrive-icount-{}", std::process::id()));
        command.arg(format!("--log-file={}", log.display()));
        command.arg(&self.path).args(&self.prefix);
        command.arg("--child").arg(text);
        let ran = output(command, Duration::from_secs(600));
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _gone = std::fs::remove_file(&log);
        ran.map_err(|e| self.of(order, &e.to_string()))?;
        let log = text;
        log.lines()
            .find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok())
            .ok_or_else(|| self.of(order, "callgrind counted nothing"))
    }

    fn failed(&self, error: &str) -> Failure {
        Failure::Error(format!("{}: {error}", self.path.display()))
    }

    fn of(&self, order: &Order, error: &str) -> Failure {
        Failure::Error(format!("{}@{}: {error}", order.scenario, order.threads))
    }
}

fn answer<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.split(MARK).nth(1))
        .ok_or("the process ended without an answer")?;
    serde_json::from_str(line).map_err(|e| format!("the answer is not understood: {e}"))
}

/// The standard output of a process that is given so much time and succeeds.
fn output(command: Command, patience: Duration) -> Result<String, Failure> {
    let (status, text) = finish(command, patience)?;
    if status.success() {
        Ok(text)
    } else {
        Err(Failure::Error(format!("the process ended with {status}")))
    }
}

/// How a process that is given so much time ended, and its standard output.
fn finish(mut command: Command, patience: Duration) -> Result<(ExitStatus, String), Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::Error(format!("did not start: {e}")))?;
    let (tell, told) = mpsc::channel();
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|mut out| out.read_to_string(&mut text));
        // The other end is gone only if it gave up waiting.
        let _gone = tell.send(());
        match read {
            Some(Ok(_)) => text,
            _ => String::new(),
        }
    });
    if told.recv_timeout(patience).is_err() {
        stop(&mut child);
        return Err(Failure::Error(format!(
            "gave no answer in {} s and was stopped",
            patience.as_secs()
        )));
    }
    let status = child
        .wait()
        .map_err(|e| Failure::Error(format!("cannot be waited for: {e}")))?;
    let text = reader.join();
    text.map(|text| (status, text))
        .map_err(|_| Failure::Error("the answer could not be read".into()))
}

fn stop(child: &mut Child) {
    // Either may fail only because it has ended by itself.
    drop(child.kill());
    drop(child.wait());
}
