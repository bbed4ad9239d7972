//! `cargo xtask bench`: builds the benchmark binaries, launches them, judges
//! and reports.

mod baseline;
mod bounds;
mod builtin;
mod launch;
mod machine;
mod options;
mod run;
mod select;
mod selftest;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use launch::Program;
use options::{Action, Options};
use run::{Control, Item};
use select::Workspace;

use crate::child::Catalogue;
use crate::results::{Noise, Results, Role, SCHEMA_VERSION, Stamp, Tier};
use crate::{report, suite};

/// Off by more than this, the A/A control stamps a run noisy.
const CONTROL_LIMIT: f64 = 0.005;

/// Why a command did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// Contenders gave different answers.
    Differ(String),
    /// Something did not work.
    Error(String),
    /// A bound or gate was missed.
    Missed(String),
    /// The command line asks for something that cannot be done.
    Usage(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Error(_) => 1,
            Self::Usage(_) => 2,
            Self::Missed(_) => 3,
            Self::Differ(_) => suite::EXIT_DIFFER,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Differ(text) | Self::Error(text) | Self::Missed(text) | Self::Usage(text) => {
                f.write_str(text)
            }
        }
    }
}

/// Marks the driver's own binary as a suite: what follows is the suite's
/// command line.
const AS_SUITE: &str = "as-suite";
/// Keeps every core busy until the process is killed; the self-test's noise.
const SPIN: &str = "spin";

/// The driver's entry point.
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|a| a == AS_SUITE) {
        return suite::run(
            &builtin::suite(),
            &std::env::args().skip(2).collect::<Vec<_>>(),
        );
    }
    if args.peek().is_some_and(|a| a == SPIN) {
        selftest::spin();
    }
    match command(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            if let Failure::Usage(_) = failure {
                eprintln!("`cargo xtask bench --help` shows the options");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn command(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let options = options::parse(args)?;
    if options.action == Action::Help {
        print!("{}", options::HELP);
        return Ok(());
    }
    let own = own_program()?;
    if options.action == Action::SelfTest {
        return selftest::run(&own);
    }
    let here = std::env::current_dir().map_err(|e| Failure::Error(e.to_string()))?;
    let workspace = Workspace::find(&here)?;
    let suites = suites(&workspace, &options, &own)?;
    match options.action {
        Action::List => Ok(()),
        Action::Check => check(&workspace, &suites, &options, &own),
        _ => bench(&workspace, &suites, &options, &own),
    }
}

fn own_program() -> Result<Program, Failure> {
    let path = std::env::current_exe().map_err(|e| Failure::Error(e.to_string()))?;
    Ok(Program {
        path,
        prefix: vec![AS_SUITE.to_owned()],
    })
}

/// The harness's own scenarios; run only where they are named.
const BUILTIN: &str = "harness";

/// The suites that the filters mean. Plain group names need no look into the
/// catalogues; anything else does, which is built without the peers.
fn suites(workspace: &Workspace, options: &Options, own: &Program) -> Result<Vec<String>, Failure> {
    let known = |f: &String| f == BUILTIN || workspace.suites.iter().any(|s| select::group(s) == f);
    if options.action != Action::List && options.filters.iter().all(known) {
        let named = |s: &&String| {
            options.filters.is_empty() || options.filters.iter().any(|f| select::group(s) == f)
        };
        let mut suites: Vec<String> = workspace.suites.iter().filter(named).cloned().collect();
        if options.filters.iter().any(|f| f == BUILTIN) {
            suites.push(BUILTIN.to_owned());
        }
        return Ok(suites);
    }
    let mut catalogues = vec![own.catalogue()?];
    let mut names = vec![BUILTIN.to_owned()];
    for suite in &workspace.suites {
        catalogues.push(workspace.build(suite, false)?.catalogue()?);
        names.push(suite.clone());
    }
    select::resolve(&options.filters, &catalogues)?;
    let wanted = |c: &Catalogue| {
        let mut scenarios = c.scenarios.iter();
        scenarios.any(|s| select::wanted(&options.filters, &s.id))
    };
    if options.action == Action::List {
        for scenario in catalogues.iter().flat_map(|c| &c.scenarios) {
            if select::wanted(&options.filters, &scenario.id) {
                println!(
                    "{:<28} {:<5} threads {:<7} {}",
                    scenario.id,
                    format!("{:?}", scenario.tier).to_lowercase(),
                    format!("{:?}", scenario.threads).replace(['[', ']', ' '], ""),
                    scenario.about
                );
            }
        }
        return Ok(Vec::new());
    }
    let suites = names.into_iter().zip(&catalogues);
    Ok(suites.filter(|(_, c)| wanted(c)).map(|(n, _)| n).collect())
}

fn program(workspace: &Workspace, suite: &str, own: &Program) -> Result<Program, Failure> {
    if suite == BUILTIN {
        Ok(own.clone())
    } else {
        workspace.build(suite, true)
    }
}

fn check(
    workspace: &Workspace,
    suites: &[String],
    options: &Options,
    own: &Program,
) -> Result<(), Failure> {
    for suite in suites {
        let program = program(workspace, suite, own)?;
        let catalogue = program.catalogue()?;
        let rows = catalogue.scenarios.iter().map(|s| s.rows.len()).sum();
        match program.check(&options.filters, options.traces.as_deref(), rows)? {
            Some(0) => {}
            Some(4) => return Err(Failure::Differ(format!("{suite}: answers differ"))),
            _ => return Err(Failure::Error(format!("{suite}: the answer check failed"))),
        }
    }
    Ok(())
}

/// What of a catalogue is to be run, and what is not.
fn plan(catalogue: Catalogue, options: &Options) -> (Vec<Item>, Vec<String>) {
    let mut items = Vec::new();
    let mut skipped = Vec::new();
    for entry in catalogue.scenarios {
        if !select::wanted(&options.filters, &entry.id) {
            continue;
        }
        if options.quick && entry.tier == Tier::Slow {
            skipped.push(entry.id);
            continue;
        }
        let counts = select::thread_counts(&entry, options.threads.as_deref(), options.quick);
        if options.quick && options.threads.is_none() {
            let left = entry.threads.iter().filter(|n| !counts.contains(n));
            skipped.extend(left.map(|n| format!("{}@{n}", entry.id)));
        }
        items.extend(counts.into_iter().map(|threads| Item {
            entry: entry.clone(),
            threads,
        }));
    }
    (items, skipped)
}

fn bench(
    workspace: &Workspace,
    suites: &[String],
    options: &Options,
    own: &Program,
) -> Result<(), Failure> {
    let bounds = options.bounds.as_deref().map(bounds::read).transpose()?;
    let old = match &options.baseline {
        Some(revision) => Some(baseline::Revision::check_out(workspace, revision)?),
        None => None,
    };
    let seed = fastrand::u64(..);
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        launches: options.launches,
        machine: machine::describe(&workspace.root),
        noise: Noise {
            control_ratio: 1.0,
            stamp: Stamp::Quiet,
        },
        scenarios: Vec::new(),
    };
    let dir = run_dir(workspace, &results)?;
    let icount = options.icount && callgrind_answers();
    let mut control = Control::new(own.clone());
    let mut objections = Vec::new();
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    for suite in suites {
        let program = program(workspace, suite, own)?;
        let catalogue = program.catalogue()?;
        let (items, left) = plan(catalogue, options);
        skipped.extend(left);
        peers_match(&items, options)?;
        // Before an hour of measuring, not after.
        let base = old.as_ref().map(|old| Ok((old, old.build(suite, own)?)));
        let base = base.transpose()?;
        let root = &workspace.root;
        let measured = run::suite(&program, &items, options, root, seed, &mut control)?;
        let mut found = measured.results;
        failed.extend(measured.failed);
        if icount {
            run::count_instructions(&program, &items, &mut found, options, root)?;
        }
        if let Some((old, base)) = &base {
            objections.extend(old.compare(&program, base, &items, &mut found, options)?);
        }
        println!("{}", table::suite(suite, &found));
        results.scenarios.extend(found);
        settle(&mut results, &control);
        write(&results, &dir, options)?;
    }
    summary(&results, options, &skipped, &dir);
    let verdict = verdict(&results, options, bounds.as_deref(), &objections);
    if failed.is_empty() {
        verdict
    } else {
        Err(Failure::Error(failed.join("; ")))
    }
}

/// `--peer` must leave a peer somewhere, if there is one at all.
fn peers_match(items: &[Item], options: &Options) -> Result<(), Failure> {
    let Some(pattern) = &options.peer else {
        return Ok(());
    };
    let rows = items.iter().flat_map(|item| &item.entry.rows);
    let mut peers = rows.filter(|r| r.role == Role::Peer).peekable();
    if peers.peek().is_none() || peers.any(|r| pattern.is_match(&r.name)) {
        return Ok(());
    }
    Err(Failure::Usage(format!("no peer matches {pattern}")))
}

/// Brings the run's own figures up to date.
fn settle(results: &mut Results, control: &Control) {
    let ratio = control.ratio();
    results.noise = Noise {
        control_ratio: ratio,
        stamp: if (ratio - 1.0).abs() > CONTROL_LIMIT {
            Stamp::Noisy
        } else {
            Stamp::Quiet
        },
    };
    results.machine.load_after = machine::load();
}

fn callgrind_answers() -> bool {
    let found = std::process::Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("--icount skipped: valgrind is not installed (Debian: apt-get install valgrind)");
    }
    found
}

fn run_dir(workspace: &Workspace, results: &Results) -> Result<PathBuf, Failure> {
    let machine = &results.machine;
    let time = machine.started.replace([':', '-'], "");
    let home = workspace.target.join("overdrive-bench");
    let failed = |e: std::io::Error| {
        Failure::Error(format!("cannot create a folder in {}: {e}", home.display()))
    };
    std::fs::create_dir_all(&home).map_err(failed)?;
    // Another run may have begun in the same second.
    for n in 1.. {
        let suffix = if n == 1 {
            String::new()
        } else {
            format!("-{n}")
        };
        let dir = home.join(format!("{time}-{}{suffix}", machine.git));
        match std::fs::create_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir).map_err(failed),
        }
    }
    unreachable!("there is always another number")
}

/// Writes both files, and their copies where the user wants them.
fn write(results: &Results, dir: &Path, options: &Options) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(results).map_err(|e| Failure::Error(e.to_string()))?;
    let html = report::html(results);
    let files = [
        (Some(dir.join("results.json")), &json),
        (options.json.clone(), &json),
        (Some(dir.join("report.html")), &html),
        (options.html.clone(), &html),
    ];
    for (path, text) in files {
        if let Some(path) = path {
            std::fs::write(&path, text)
                .map_err(|e| Failure::Error(format!("cannot write {}: {e}", path.display())))?;
        }
    }
    Ok(())
}

fn summary(results: &Results, options: &Options, skipped: &[String], dir: &Path) {
    let machine = &results.machine;
    println!(
        "{}, {} cores, {}, {}, load {} -> {}",
        machine.cpu,
        machine.cores,
        machine.rustc,
        machine.git,
        machine.load_before,
        machine.load_after
    );
    println!(
        "launches {}, A/A control {:.4}: {}",
        results.launches,
        results.noise.control_ratio,
        match results.noise.stamp {
            Stamp::Quiet => "quiet",
            Stamp::Noisy => "NOISY, differences of a few percent are unproven",
        }
    );
    if options.launches < 5 {
        println!(
            "fewer than 5 launches: intervals are widened by a stored layout deviation of 0.4 points"
        );
    }
    if !skipped.is_empty() {
        println!("left out by --quick: {}", skipped.join(", "));
    }
    println!("* best peer; ours/it below 1: overdrive costs less");
    println!("{}", dir.join("results.json").display());
    println!("{}", dir.join("report.html").display());
}

fn verdict(
    results: &Results,
    options: &Options,
    bounds: Option<&[bounds::Bound]>,
    objections: &[String],
) -> Result<(), Failure> {
    let mut missed = Vec::new();
    if let Some(bounds) = bounds {
        let measured = |id: &str| {
            let groups = results.scenarios.iter().map(|s| select::group(&s.id));
            select::wanted(&options.filters, id)
                && groups.into_iter().any(|g| g == select::group(id))
        };
        let (short, held) = bounds::hold(bounds, results, measured);
        for line in &short {
            println!("{line}");
        }
        println!("{held} of {} bounds hold", held + short.len());
        if held + short.len() == 0 {
            return Err(Failure::Usage(
                "none of the bounds is about what was measured".into(),
            ));
        }
        missed.extend((!short.is_empty()).then(|| format!("{} bounds missed", short.len())));
    }
    if options.gate.is_some() {
        match results.noise.stamp {
            Stamp::Quiet => missed.extend(objections.iter().cloned()),
            Stamp::Noisy => {
                return Err(Failure::Error(
                    "the gate does not judge: the A/A control says that the run is noisy".into(),
                ));
            }
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Missed(missed.join("; ")))
    }
}
