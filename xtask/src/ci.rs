//! The checks: each a job that can be run alone, `test` for those that every
//! change must pass, `full` for all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::step::{Done, Outcome, all, cargo, has, nightly, run as step, with};
use crate::{arrows, msrv, names, weight};

/// The crates that are published.
const LIBRARIES: &[&str] = &[
    "overdrive-core",
    "overdrive-batch",
    "overdrive-pipeline",
    "overdrive-pool",
    "overdrive-ratelimit",
    "overdrive-remote",
    "overdrive-tiered-cache",
    "overdrive-workstealing",
    "overdrive",
];
/// The crates that have loom models.
const MODELLED: &[&str] = &[
    "overdrive-batch",
    "overdrive-pool",
    "overdrive-ratelimit",
    "overdrive-tiered-cache",
    "overdrive-workstealing",
];
/// The crates whose engines run under shuttle's random schedules.
/// Not yet the cache's: one in twenty runs finds a load beside another that its model does not
/// know to be superseded.
const SHUTTLED: &[&str] = &["overdrive-batch", "overdrive-workstealing"];
/// The benchmark suites; the scenarios of each compile without its peers.
const SUITES: &[&str] = &[
    "batch",
    "cache",
    "pipeline",
    "pool",
    "ratelimit",
    "workstealing",
];
/// Everything but the peers.
const FEATURES: &str = "overdrive/batch,overdrive/bloom,overdrive/cache,overdrive/pipeline,overdrive/pool,\
    overdrive/ratelimit,overdrive/workstealing,overdrive/metrics,overdrive/redis,overdrive/serde,\
    overdrive/tokio,overdrive/tower,overdrive/tracing,\
    overdrive-batch/metrics,overdrive-batch/serde,overdrive-batch/tokio,overdrive-batch/tracing,\
    overdrive-pipeline/serde,overdrive-pool/serde,\
    overdrive-ratelimit/governor,overdrive-ratelimit/metrics,overdrive-ratelimit/redis,\
    overdrive-ratelimit/serde,overdrive-ratelimit/tokio,overdrive-ratelimit/tower,\
    overdrive-remote/serde,overdrive-testkit/tokio,overdrive-tiered-cache/bloom,overdrive-tiered-cache/redis,\
    overdrive-tiered-cache/serde,overdrive-tiered-cache/tokio,overdrive-workstealing/serde,\
    overdrive-benches/batch,overdrive-benches/cache,overdrive-benches/pipeline,\
    overdrive-benches/pool,overdrive-benches/ratelimit,overdrive-benches/workstealing";

struct Job {
    name: &'static str,
    about: &'static str,
    /// Part of `cargo xtask test`.
    always: bool,
    run: fn() -> Outcome,
}

const JOBS: &[Job] = &[
    job("fmt", "formatting", true, fmt),
    job("arrows", "which crate may depend on which", true, arrows),
    job("weight", "what a default build pulls in", true, weight),
    job(
        "names",
        "the tests that the comparison names exist",
        true,
        names,
    ),
    job("clippy", "lints, warnings denied", true, clippy),
    job("units", "unit and integration tests", true, units),
    job(
        "alone",
        "each library's tests, alone and with default features",
        true,
        alone,
    ),
    job("doctests", "examples in the documentation", true, doctests),
    job(
        "loom",
        "models of the concurrent protocols, bounded",
        true,
        loom,
    ),
    job(
        "shuttle",
        "random schedules of whole engines, few",
        true,
        shuttle,
    ),
    job("examples", "the example programs run", true, examples),
    job(
        "answers",
        "ours and the limits agree in every scenario",
        true,
        answers,
    ),
    job("docs", "documentation, warnings denied", true, docs),
    job(
        "loom-deep",
        "the models with more preemptions",
        false,
        loom_deep,
    ),
    job(
        "shuttle-deep",
        "random schedules of whole engines, many",
        false,
        shuttle_deep,
    ),
    job(
        "properties",
        "property tests of a million operations",
        false,
        properties,
    ),
    job(
        "peers",
        "ours and all peers agree in every scenario",
        false,
        peers,
    ),
    job(
        "features",
        "every combination of features compiles",
        false,
        features,
    ),
    job(
        "msrv",
        "no dependency of a library asks for a newer Rust",
        false,
        msrv,
    ),
    job(
        "minimal",
        "the oldest allowed dependencies compile",
        false,
        minimal,
    ),
    job("deny", "licences, advisories, sources", false, deny),
    job(
        "package",
        "the published crates package and build",
        false,
        package,
    ),
    job("asan", "address sanitizer (nightly)", false, asan),
    job("lsan", "leak sanitizer (nightly)", false, lsan),
];

const fn job(name: &'static str, about: &'static str, always: bool, run: fn() -> Outcome) -> Job {
    Job {
        name,
        about,
        always,
        run,
    }
}

/// `cargo xtask test`.
pub(crate) fn test(args: &[OsString]) -> ExitCode {
    if !args.is_empty() {
        eprintln!("usage: cargo xtask test (a single check: cargo xtask ci JOB)");
        return ExitCode::from(2);
    }
    carry_out(JOBS.iter().filter(|job| job.always))
}

/// `cargo xtask ci JOB`.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let name = match args {
        [name] => name.to_string_lossy(),
        _ => "".into(),
    };
    match name.as_ref() {
        "full" => carry_out(JOBS.iter()),
        "test" => test(&[]),
        name => match JOBS.iter().find(|job| job.name == name) {
            Some(job) => carry_out(std::iter::once(job)),
            None => {
                eprintln!(
                    "usage: cargo xtask ci JOB\n\n  full        all of them\n  test        those marked *"
                );
                for job in JOBS {
                    let mark = if job.always { '*' } else { ' ' };
                    eprintln!("{mark} {:<11} {}", job.name, job.about);
                }
                ExitCode::from(2)
            }
        },
    }
}

fn carry_out<'a>(jobs: impl Iterator<Item = &'a Job>) -> ExitCode {
    let mut done = Vec::new();
    for job in jobs {
        println!("\n== {}: {}", job.name, job.about);
        let start = Instant::now();
        let outcome = (job.run)();
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(outcome) => done.push((job.name, outcome, took)),
            Err(error) => {
                eprintln!("error: {}: {error}", job.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!();
    for (name, outcome, took) in &done {
        let word = match outcome {
            Done::Passed => "ok",
            Done::Skipped => "SKIPPED",
        };
        println!("{name:<11} {word:<8} {took:>6.1} s");
    }
    let skipped = done.iter().filter(|d| d.1 == Done::Skipped).count();
    println!(
        "{} passed, 0 failed, {skipped} skipped",
        done.len() - skipped
    );
    ExitCode::SUCCESS
}

fn fmt() -> Outcome {
    step(&mut with(cargo(), &["fmt", "--all", "--check"]))
}

fn arrows() -> Outcome {
    arrows::check().map(|()| Done::Passed)
}

fn names() -> Outcome {
    names::check().map(|()| Done::Passed)
}

fn weight() -> Outcome {
    weight::check(LIBRARIES).map(|()| Done::Passed)
}

fn clippy() -> Outcome {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        FEATURES,
    ];
    step(with(cargo(), &args).args(["--", "-D", "warnings"]))
}

fn units() -> Outcome {
    let probe = with(cargo(), &["nextest", "--version"]);
    let command = if has(probe, "running plain `cargo test` instead") {
        with(cargo(), &["nextest", "run"])
    } else {
        with(cargo(), &["test", "--lib", "--bins", "--tests"])
    };
    step(&mut with(command, &["--workspace", "--features", FEATURES]))
}

fn alone() -> Outcome {
    all(LIBRARIES.iter().map(|library| {
        let args = ["test", "--quiet", "--lib", "--tests", "--package", library];
        with(cargo(), &args)
    }))
}

fn doctests() -> Outcome {
    step(&mut with(
        cargo(),
        &["test", "--doc", "--workspace", "--features", FEATURES],
    ))
}

fn target(name: &str) -> PathBuf {
    Path::new("target").join(name)
}

/// The tests named `loom` of each modelled crate, with the given bound on
/// preemptions.
fn models(preemptions: &str) -> Outcome {
    all(MODELLED.iter().map(|package| {
        let args = ["test", "--release", "--lib", "--package", package, "loom"];
        let mut command = with(cargo(), &args);
        command
            .env("RUSTFLAGS", "--cfg overdrive_loom")
            .env("LOOM_MAX_PREEMPTIONS", preemptions)
            .env("CARGO_TARGET_DIR", target("loom"))
            .env("CARGO_PROFILE_RELEASE_LTO", "off");
        command
    }))
}

fn loom() -> Outcome {
    models("2")
}

fn loom_deep() -> Outcome {
    models("6")
}

/// The tests named `shuttle` of each crate that has them.
fn schedules(environment: &[(&str, &str)]) -> Outcome {
    all(SHUTTLED.iter().map(|package| {
        let args = [
            "test",
            "--release",
            "--lib",
            "--package",
            package,
            "shuttle",
        ];
        let mut command = with(cargo(), &args);
        command
            .env("RUSTFLAGS", "--cfg overdrive_shuttle")
            .env("CARGO_TARGET_DIR", target("shuttle"))
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .envs(environment.iter().copied());
        command
    }))
}

fn shuttle() -> Outcome {
    schedules(&[])
}

fn shuttle_deep() -> Outcome {
    schedules(&[("OVERDRIVE_DEEP", "1")])
}

fn examples() -> Outcome {
    const RUN: [&str; 4] = ["run", "--package", "overdrive-examples", "--example"];
    let example = |args| with(with(cargo(), &RUN), args);
    let text = ["compose", "--", "--quiet", "--folder", "crates"];
    all([
        example(&["bulk_insert"][..]),
        example(&text),
        example(&["event_store"]),
        example(&["in_query_loader"]),
        example(&["pool_quickstart"]),
    ])
}

fn answers() -> Outcome {
    all(SUITES.iter().map(|suite| {
        let args = ["run", "--quiet", "--package", "overdrive-benches"];
        let mut command = with(cargo(), &args);
        command.args(["--bin", suite, "--features", suite, "--", "--check"]);
        command
    }))
}

fn docs() -> Outcome {
    let args = ["doc", "--no-deps", "--workspace", "--features", FEATURES];
    step(with(cargo(), &args).env("RUSTDOCFLAGS", "-D warnings"))
}

fn properties() -> Outcome {
    let args = ["test", "--release", "--tests", "--all-features"];
    let mut command = packages(with(cargo(), &args));
    command
        .env("OVERDRIVE_DEEP", "1")
        .env("CARGO_TARGET_DIR", target("deep"))
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    step(&mut command)
}

fn peers() -> Outcome {
    step(&mut with(cargo(), &["xtask", "bench", "--check"]))
}

fn packages(mut command: Command) -> Command {
    for library in LIBRARIES {
        command.args(["--package", library]);
    }
    command
}

fn features() -> Outcome {
    let probe = with(cargo(), &["hack", "--version"]);
    if !has(probe, "cargo install cargo-hack") {
        return Ok(Done::Skipped);
    }
    // Features of different primitives meet only in pairs, and the facade has many.
    let args = ["hack", "check", "--feature-powerset", "--depth", "2"];
    step(packages(with(cargo(), &args)).arg("--no-dev-deps"))
}

fn msrv() -> Outcome {
    msrv::check(LIBRARIES).map(|()| Done::Passed)
}

/// Checks the libraries in a copy of the tree, with the oldest versions that
/// their manifests allow.
fn minimal() -> Outcome {
    if !has(
        with(nightly(), &["--version"]),
        "rustup toolchain install nightly",
    ) {
        return Ok(Done::Skipped);
    }
    let copy = target("minimal").join("tree");
    copy_tracked(&copy)?;
    // They pin what the libraries only bound.
    leave_out(
        &copy.join("Cargo.toml"),
        &["benches", "benches/harness", "examples"],
    )?;
    let mut update = with(nightly(), &["update", "-Zdirect-minimal-versions"]);
    update.current_dir(&copy);
    let mut check = packages(with(cargo(), &["check", "--locked", "--all-features"]));
    check
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", Path::new("..").join("build"));
    all([update, check])
}

/// Takes members out of a workspace.
fn leave_out(manifest: &Path, members: &[&str]) -> Result<(), String> {
    let fault = |e| format!("cannot change {}: {e}", manifest.display());
    let mut text = std::fs::read_to_string(manifest).map_err(fault)?;
    for member in members {
        text = text.replace(&format!("    \"{member}\",\n"), "");
    }
    std::fs::write(manifest, text).map_err(fault)
}

fn copy_tracked(to: &Path) -> Result<(), String> {
    let listed = with(Command::new("git"), &["ls-files", "-z"])
        .output()
        .map_err(|e| format!("git did not start: {e}"))?;
    let _absent = std::fs::remove_dir_all(to);
    for file in String::from_utf8_lossy(&listed.stdout).split('\0') {
        if Path::new(file).is_file() {
            let target = to.join(file);
            let copied = target
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::copy(file, &target));
            copied.map_err(|e| format!("cannot copy {file}: {e}"))?;
        }
    }
    Ok(())
}

fn deny() -> Outcome {
    let probe = with(cargo(), &["deny", "--version"]);
    if !has(probe, "cargo install cargo-deny") {
        return Ok(Done::Skipped);
    }
    step(&mut with(
        cargo(),
        &["deny", "check", "bans", "licenses", "sources"],
    ))?;
    let fetch = with(cargo(), &["deny", "fetch", "db"]);
    if !has(fetch, "the advisory database cannot be fetched from here") {
        return Ok(Done::Passed);
    }
    step(&mut with(cargo(), &["deny", "check", "advisories"]))
}

/// In a folder of its own each time: cargo knows what it unpacked by the folder
/// and the version, and would check yesterday's crates against today's.
fn package() -> Outcome {
    let all = target("packaged");
    let _absent = std::fs::remove_dir_all(&all);
    let own = all.join(std::process::id().to_string());
    let mut command = packages(with(cargo(), &["package", "--allow-dirty"]));
    step(command.env("CARGO_TARGET_DIR", own))
}

fn sanitizer(name: &str) -> Outcome {
    if !has(
        with(nightly(), &["--version"]),
        "rustup toolchain install nightly",
    ) {
        return Ok(Done::Skipped);
    }
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let args = [
        "test",
        "--target",
        &host,
        "--lib",
        "--tests",
        "--all-features",
    ];
    let mut command = packages(with(nightly(), &args));
    command
        .env("RUSTFLAGS", format!("-Zsanitizer={name}"))
        .env("CARGO_TARGET_DIR", target(name));
    step(&mut command)
}

fn asan() -> Outcome {
    sanitizer("address")
}

fn lsan() -> Outcome {
    sanitizer("leak")
}
