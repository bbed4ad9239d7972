//! The command line of `cargo xtask bench`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use regex_lite::Regex;

use super::Failure;

/// The help text.
pub(super) const HELP: &str = "\
Runs the benchmarks side by side with their peers and prints who wins, by how much.

usage: cargo xtask bench [FILTER ..] [OPTIONS]

FILTER is a group (pool), a scenario (pool/get_put_4k) or a part of its name.

  --quick           the core scenarios at 1 and 2 threads, 2 launches (under 5 minutes)
  --thorough        15 launches and three times the measured time
  --threads 1,2,4   thread counts for the scenarios that list several
  --launches N      process launches (default 5)
  --time SECS       measured seconds per contender and scenario, over all launches (default 1)
  --peer REGEX      only the peers whose names match
  --traces DIR      recorded traces, for the scenarios that replay them (or OVERDRIVE_TRACES)
  --bounds TSV      hold the results against bounds: id, threads, against, max
  --icount          count instructions too (valgrind's callgrind; one-thread scenarios)
  --list            name the scenarios and stop
  --check           run every contender briefly and compare answers; no timing
  --self-test       plant known differences and see whether they are found
  --baseline REV    measure this tree against a git revision, binaries alternating
  --gate PCT        with --baseline: exit 3 if a scenario of ours got slower by more, or cannot
                    be compared; exit 1 if the run is too noisy to judge
  --json FILE       also write results.json there
  --html FILE       also write report.html there

exit: 0 ok, 1 error, 2 usage, 3 regression or bound missed, 4 answers differ
";

/// What the user asked for.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) filters: Vec<String>,
    pub(super) quick: bool,
    pub(super) threads: Option<Vec<usize>>,
    pub(super) launches: u32,
    pub(super) seconds: f64,
    pub(super) peer: Option<Regex>,
    pub(super) traces: Option<PathBuf>,
    pub(super) bounds: Option<PathBuf>,
    pub(super) icount: bool,
    pub(super) action: Action,
    pub(super) baseline: Option<String>,
    pub(super) gate: Option<f64>,
    pub(super) json: Option<PathBuf>,
    pub(super) html: Option<PathBuf>,
}

/// The one thing that a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Help,
    List,
    Run,
    SelfTest,
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

fn number<T: std::str::FromStr>(parser: &mut Parser, what: &str) -> Result<T, Failure> {
    let text = parser.value().map_err(usage)?;
    let text = text.to_string_lossy();
    text.parse()
        .map_err(|_| Failure::Usage(format!("{what} takes a number, not {text:?}")))
}

fn path(parser: &mut Parser) -> Result<PathBuf, Failure> {
    Ok(parser.value().map_err(usage)?.into())
}

/// Reads the command line.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, Failure> {
    let mut parser = Parser::from_args(args);
    let mut o = Options {
        filters: Vec::new(),
        quick: false,
        threads: None,
        launches: 0,
        seconds: 0.0,
        peer: None,
        traces: None,
        bounds: None,
        icount: false,
        action: Action::Run,
        baseline: None,
        gate: None,
        json: None,
        html: None,
    };
    let mut thorough = false;
    let (mut launches, mut seconds) = (None, None);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Long("quick") => o.quick = true,
            Arg::Long("thorough") => thorough = true,
            Arg::Long("threads") => {
                o.threads = Some(thread_counts(&parser.value().map_err(usage)?)?);
            }
            Arg::Long("launches") => {
                let n: u32 = number(&mut parser, "--launches")?;
                if n == 0 || n > 1_000 {
                    return Err(usage("--launches takes a number from 1 to 1000"));
                }
                launches = Some(n);
            }
            Arg::Long("time") => {
                let secs: f64 = number(&mut parser, "--time")?;
                if !(secs > 0.0 && secs <= 3_600.0) {
                    return Err(usage("--time takes seconds above 0, at most 3600"));
                }
                seconds = Some(secs);
            }
            Arg::Long("peer") => {
                let text = parser.value().map_err(usage)?.string().map_err(usage)?;
                o.peer = Some(Regex::new(&text).map_err(|e| usage(format!("--peer: {e}")))?);
            }
            Arg::Long("traces") => o.traces = Some(path(&mut parser)?),
            Arg::Long("bounds") => o.bounds = Some(path(&mut parser)?),
            Arg::Long("icount") => o.icount = true,
            Arg::Long("list") => o.action = Action::List,
            Arg::Long("check") => o.action = Action::Check,
            Arg::Long("self-test") => o.action = Action::SelfTest,
            Arg::Long("baseline") => {
                o.baseline = Some(parser.value().map_err(usage)?.string().map_err(usage)?);
            }
            Arg::Long("gate") => {
                let percent: f64 = number(&mut parser, "--gate")?;
                if !(0.0..=1_000.0).contains(&percent) {
                    return Err(usage("--gate takes a percentage from 0 to 1000"));
                }
                o.gate = Some(percent);
            }
            Arg::Long("json") => o.json = Some(path(&mut parser)?),
            Arg::Long("html") => o.html = Some(path(&mut parser)?),
            Arg::Short('h') | Arg::Long("help") => o.action = Action::Help,
            Arg::Value(filter) => o.filters.push(filter.string().map_err(usage)?),
            _ => return Err(usage(arg.unexpected())),
        }
    }
    if o.quick && thorough {
        return Err(usage("--quick and --thorough exclude each other"));
    }
    if o.gate.is_some() && o.baseline.is_none() {
        return Err(usage("--gate needs --baseline REV to compare with"));
    }
    let timing = [
        (o.baseline.is_some(), "--baseline"),
        (o.bounds.is_some(), "--bounds"),
        (o.threads.is_some(), "--threads"),
        (o.peer.is_some(), "--peer"),
        (o.icount, "--icount"),
    ];
    let stray = timing.iter().find(|(given, _)| *given);
    if let (Some((_, flag)), Action::Check | Action::List | Action::SelfTest) = (stray, o.action) {
        return Err(usage(format!(
            "{flag} needs a measurement, not a check or list"
        )));
    }
    let (default_launches, default_seconds) = match (o.quick, thorough) {
        (true, _) => (2, 0.15),
        (_, true) => (15, 3.0),
        _ => (5, 1.0),
    };
    o.launches = launches.unwrap_or(default_launches);
    o.seconds = seconds.unwrap_or(default_seconds);
    if o.traces.is_none() {
        o.traces = std::env::var_os("OVERDRIVE_TRACES").map(PathBuf::from);
    }
    readable(&o)?;
    Ok(o)
}

/// Notices a missing folder or file before an hour of measuring, not after.
fn readable(o: &Options) -> Result<(), Failure> {
    if let Some(dir) = &o.traces
        && !dir.is_dir()
    {
        return Err(Failure::Usage(format!(
            "the trace folder {} does not exist",
            dir.display()
        )));
    }
    for file in [&o.json, &o.html].into_iter().flatten() {
        let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
        if file.is_dir() || parent.is_some_and(|p| !p.is_dir()) {
            return Err(Failure::Usage(format!(
                "cannot write {}: not a file in an existing folder",
                file.display()
            )));
        }
    }
    Ok(())
}

fn thread_counts(text: &OsString) -> Result<Vec<usize>, Failure> {
    let text = text.to_string_lossy();
    let counts: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    match counts {
        Ok(mut counts) if counts.iter().all(|n| (1..=256).contains(n)) => {
            counts.sort_unstable();
            counts.dedup();
            Ok(counts)
        }
        _ => Err(Failure::Usage(format!(
            "--threads takes counts from 1 to 256 like 1,2,4, not {text:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, Failure> {
        parse(text.split_whitespace().map(OsString::from))
    }

    fn refused(text: &str) -> String {
        match parsed(text) {
            Err(Failure::Usage(message)) => message,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn presets_set_launches_and_time() {
        let quick = parsed("pool --quick").unwrap();
        assert_eq!(
            (quick.launches, quick.filters),
            (2, vec!["pool".to_owned()])
        );
        assert_eq!(parsed("").unwrap().launches, 5);
        assert_eq!(parsed("--thorough").unwrap().launches, 15);
        assert_eq!(parsed("--quick --launches 7").unwrap().launches, 7);
    }

    #[test]
    fn nonsense_is_refused_in_one_sentence() {
        for text in [
            "--launches 0",
            "--launches many",
            "--time 0",
            "--time nan",
            "--time -1",
            "--threads 0",
            "--threads 1,,2",
            "--gate 5",
            "--gate -1 --baseline HEAD",
            "--peer (",
            "--traces /does/not/exist",
            "--json /does/not/exist/r.json",
            "--quick --thorough",
            "--no-such-flag",
            "--check --peer x",
            "--list --threads 2",
            "--baseline",
        ] {
            let message = refused(text);
            assert!(!message.contains('\n'), "{text}: {message}");
        }
    }
}
