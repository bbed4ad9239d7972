//! Running commands, aloud.

use std::process::{Command, Stdio};

/// What became of a step.
pub(crate) type Outcome = Result<Done, String>;

/// A step that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It ran, and holds.
    Passed,
    /// It could not run here, for a reason that was printed.
    Skipped,
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A cargo of the nightly toolchain. The variables that pin our own toolchain
/// must not reach it.
pub(crate) fn nightly() -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly");
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}

/// Prints a command and runs it; its failure is ours.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let text = text(command);
    println!("$ {text}");
    match command.status() {
        Ok(status) if status.success() => Ok(Done::Passed),
        Ok(status) => Err(format!("`{text}` ended with {status}")),
        Err(error) => Err(format!("`{text}` did not start: {error}")),
    }
}

/// Runs all commands, up to the first that fails.
pub(crate) fn all(commands: impl IntoIterator<Item = Command>) -> Outcome {
    for mut command in commands {
        run(&mut command)?;
    }
    Ok(Done::Passed)
}

/// Whether a tool answers; if not, says that what needs it is skipped.
pub(crate) fn has(mut probe: Command, install: &str) -> bool {
    let answers = probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !answers {
        println!("SKIPPED: `{}` does not answer; {install}", text(&probe));
    }
    answers
}

/// A command with arguments.
pub(crate) fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

fn text(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        Some(format!("{name}={value:?}"))
    });
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or_else(|| command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    variables
        .chain(words.map(|word| word.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}
