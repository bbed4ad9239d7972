//! `cargo xtask bench`: builds the driver and hands over to it.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::step;

/// Runs the driver with the given command line and returns its exit code.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let mut command = step::cargo();
    command
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "overdrive-bench",
        ])
        .args(["--bin", "overdrive-bench", "--"])
        .args(args);
    match command.status() {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            ExitCode::from(code.unwrap_or(1))
        }
        Err(error) => {
            eprintln!("error: cargo did not start: {error}");
            ExitCode::FAILURE
        }
    }
}
