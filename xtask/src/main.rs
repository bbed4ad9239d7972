//! The project's commands: `cargo xtask bench`, `cargo xtask test`,
//! `cargo xtask ci JOB`.

mod arrows;
mod bench;
mod ci;
mod msrv;
mod names;
mod step;
mod weight;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask COMMAND

  bench [FILTER ..] [OPTIONS]   measure side by side with the peers (bench --help)
  test                          everything that must hold before a change lands
  ci JOB                        one check, or `full` for all of them; `ci --help` lists the jobs
";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next();
    let rest: Vec<_> = args.collect();
    match command.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("bench") => bench::run(&rest),
        Some("test") => ci::test(&rest),
        Some("ci") => ci::run(&rest),
        Some("-h" | "--help" | "help") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}
