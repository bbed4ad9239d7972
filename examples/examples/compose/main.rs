//! One program on all six primitives: see `--help`, and [`app`] for how they fit together.
//!
//! ```console
//! $ cargo run --release -p overdrive-examples --example compose
//! $ cargo run --release -p overdrive-examples --example compose -- --redis redis://127.0.0.1/ --postgres 'host=127.0.0.1 user=postgres'
//! ```
//!
//! Ctrl-C stops the intake; what was accepted is finished, exported and accounted for. A second one
//! gives it up.

mod app;
mod error;
mod options;
mod report;
mod store;
mod text;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::app::Progress;
use crate::error::{AppError, chain};
use crate::options::{HELP, Options};
use crate::report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    let start = Instant::now();
    match watched(options).await {
        Ok(report) => {
            say(format_args!(
                "{report}\n{:.1} s\n",
                start.elapsed().as_secs_f64()
            ));
            let complete = report.adds_up() && report.failed == 0 && report.export_failed.is_none();
            ExitCode::from(u8::from(!complete))
        }
        Err(error @ AppError::Abandoned) => {
            refuse(&error);
            // Not by returning, which waits for the threads.
            std::process::exit(130)
        }
        Err(error) => refuse(&error),
    }
}

/// To a reader who may have gone away.
fn say(text: impl Display) {
    let _closed = write!(std::io::stdout(), "{text}");
}

fn refuse(error: &AppError) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::from(if matches!(error, AppError::Usage(_)) {
        2
    } else {
        1
    })
}

/// Runs with a progress bar, stops at the first Ctrl-C and gives up at the second.
async fn watched(options: Options) -> Result<Report, AppError> {
    let progress = Arc::new(Progress::default());
    let (stop, stopped) = watch::channel(false);
    let bar = if options.quiet {
        ProgressBar::hidden()
    } else {
        bar(options.limit as u64)
    };
    let run = app::run(options, Arc::clone(&progress), stopped);
    tokio::pin!(run);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    // One for all turns of the loop, so that none is missed between two.
    let mut ctrl_c = Box::pin(tokio::signal::ctrl_c());
    let report = loop {
        tokio::select! {
            report = &mut run => break report,
            _ = &mut ctrl_c => {
                if stop.send_replace(true) {
                    break Err(AppError::Abandoned);
                }
                bar.println("stopping: what was accepted is finished; again to give it up");
                ctrl_c.set(tokio::signal::ctrl_c());
            }
            _ = tick.tick() => show(&bar, &progress),
        }
    };
    show(&bar, &progress);
    bar.finish_and_clear();
    report
}

fn bar(files: u64) -> ProgressBar {
    let bar = ProgressBar::new(files);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    bar.set_position(read(&progress.stored) + read(&progress.failed));
    bar.set_message(format!(
        "{} in work, {} exported",
        read(&progress.accepted).saturating_sub(bar.position()),
        read(&progress.exported)
    ));
}
