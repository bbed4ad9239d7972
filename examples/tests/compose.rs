//! The composed program on real servers, which are killed under it: what it accepted is stored, or
//! its failure known.

#[path = "../examples/compose/app.rs"]
mod app;
#[path = "../examples/compose/error.rs"]
#[expect(dead_code, reason = "nobody gives up here")]
mod error;
#[path = "../examples/compose/options.rs"]
#[expect(dead_code, reason = "the command line is not tested here")]
mod options;
#[path = "../examples/compose/report.rs"]
mod report;
#[path = "../examples/compose/store.rs"]
mod store;
#[path = "../examples/compose/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use overdrive_testkit::{PostgresServer, RedisServer};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::Progress;
use crate::error::{AppError, chain};
use crate::options::Options;
use crate::report::Report;

/// A folder of text, removed at the end.
struct Folder(PathBuf);

impl Folder {
    /// `files` files in folders of 50, as packages.
    fn new(files: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("overdrive-compose-test-{}-{n}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        for file in 0..files {
            let package = folder.join("text").join(format!("package-{}", file / 50));
            std::fs::create_dir_all(&package).unwrap();
            let text = format!("file {file}\n").repeat(file % 7 + 1);
            std::fs::write(package.join(format!("{file}.txt")), text).unwrap();
        }
        Self(folder)
    }

    fn options(&self) -> Options {
        Options {
            out: Some(self.out()),
            quiet: true,
            ..Options::new(self.0.join("text"))
        }
    }

    fn out(&self) -> PathBuf {
        self.0.join("export.ndjson")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

/// A run in the background.
struct Run {
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Report, AppError>>,
}

impl Run {
    fn start(options: Options) -> Self {
        let progress = Arc::new(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(app::run(options, Arc::clone(&progress), stopped));
        Self {
            progress,
            stop,
            task,
        }
    }

    /// Until so much was counted, or all is over.
    async fn until(&self, count: fn(&Progress) -> &AtomicU64, n: u64) {
        while count(&self.progress).load(Ordering::Relaxed) < n && !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) -> Result<Report, AppError> {
        self.task.await.unwrap()
    }
}

/// The paths in an export, each once.
fn exported(out: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(out).unwrap();
    let path = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["path"].as_str().unwrap().to_owned()
    };
    let paths: Vec<String> = text.lines().map(path).collect();
    let set: BTreeSet<String> = paths.iter().cloned().collect();
    assert_eq!(set.len(), paths.len(), "a row was exported twice");
    set
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_stored_once_and_exported() {
    let folder = Folder::new(400);
    let report = Run::start(folder.options()).end().await.unwrap();
    assert_eq!(
        (report.accepted, report.stored, report.failed),
        (400, 400, 0),
        "{report}"
    );
    assert_eq!((report.exported, report.interrupted), (400, false));
    assert_eq!(exported(&folder.out()).len(), 400);
    assert!(!report.to_string().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_finishes_what_it_accepted() {
    let folder = Folder::new(3000);
    let options = Options {
        per_second: 3000,
        ..folder.options()
    };
    // A burst of a second is had at once; the others keep it at work until it is told to stop.
    let options = Options {
        in_work: 4,
        ..options
    };
    let run = Run::start(options);
    run.until(|progress| &progress.stored, 100).await;
    run.stop.send_replace(true);
    let report = run.end().await.unwrap();
    assert!(report.interrupted && report.adds_up(), "{report}");
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(exported(&folder.out()).len() as u64, report.stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_over_a_quota_are_refused_and_counted() {
    let folder = Folder::new(100);
    let options = Options {
        per_package: 10,
        ..folder.options()
    };
    let report = Run::start(options).end().await.unwrap();
    assert_eq!(report.accepted + report.refused, 100, "{report}");
    assert!(report.refused > 0 && report.stored >= 20, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_killed_and_restarted_loses_nothing() {
    let folder = Folder::new(3000);
    let mut server = PostgresServer::start().unwrap();
    let options = Options {
        postgres: Some(server.url()),
        in_work: 32,
        ..folder.options()
    };
    let run = Run::start(options);
    run.until(|progress| &progress.stored, 200).await;
    let stored = run.progress.stored.load(Ordering::Relaxed);
    assert!(stored < 3000, "killed too late to matter");
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.restart().unwrap();
        server
    });
    let server = server.await.unwrap();
    let report = run.end().await.unwrap();
    assert!(report.adds_up(), "{report}");
    assert_eq!(report.accepted, 3000);
    // Each that was acknowledged is there; one that was not may be.
    let rows: u64 = server
        .sql("SELECT count(*) FROM documents")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        rows >= report.stored && rows <= report.accepted,
        "{rows} rows, {report}"
    );
    assert_eq!(exported(&folder.out()).len() as u64, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_stays_away_is_said_of_each_file() {
    let folder = Folder::new(3000);
    let mut server = PostgresServer::start().unwrap();
    let options = Options {
        postgres: Some(server.url()),
        in_work: 16,
        ..folder.options()
    };
    let run = Run::start(options);
    run.until(|progress| &progress.stored, 100).await;
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let _server = server.await.unwrap();
    run.stop.send_replace(true);
    let report = run.end().await.unwrap();
    assert!(report.adds_up(), "{report}");
    let failed: u64 = report.failures.values().sum();
    assert_eq!(failed, report.failed, "{report}");
    let export = report.export_failed.as_ref();
    assert!(matches!(export, Some(AppError::Store(_))), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_ends_the_run() {
    let folder = Folder::new(3000);
    let server = PostgresServer::start().unwrap();
    let options = Options {
        postgres: Some(server.url()),
        in_work: 16,
        ..folder.options()
    };
    let run = Run::start(options);
    run.until(|progress| &progress.stored, 100).await;
    server.pause().unwrap();
    let report = run.end().await.unwrap();
    server.resume().unwrap();
    assert!(report.adds_up() && report.lost, "{report}");
    assert!(report.failed > 0 && report.accepted < 3000, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nowhere_or_has_no_end_is_no_text() {
    let folder = Folder::new(2);
    let text = folder.0.join("text");
    for link in ["up", "up-too"] {
        std::os::unix::fs::symlink(&text, text.join("package-0").join(link)).unwrap();
    }
    std::os::unix::fs::symlink("/dev/zero", text.join("zero.txt")).unwrap();
    std::os::unix::fs::symlink("nowhere", text.join("nowhere.txt")).unwrap();
    let mut pipe = std::process::Command::new("mkfifo");
    let made = pipe.arg(text.join("pipe.txt")).status().unwrap();
    assert!(made.success());
    let report = Run::start(folder.options()).end().await.unwrap();
    assert_eq!((report.accepted, report.stored), (2, 2), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_kept_fail_one_by_one() {
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new(2);
    let text = folder.0.join("text");
    for name in [b"a\xff.txt", b"a\xfe.txt"] {
        std::fs::write(text.join(std::ffi::OsStr::from_bytes(name)), "text").unwrap();
    }
    let large = std::fs::File::create(text.join("large.txt")).unwrap();
    large.set_len(text::LARGEST + 1).unwrap();
    let report = Run::start(folder.options()).end().await.unwrap();
    assert_eq!(
        (report.accepted, report.stored, report.failed),
        (5, 2, 3),
        "{report}"
    );
    assert_eq!(report.failures.values().sum::<u64>(), 3, "{report}");
    assert_eq!(exported(&folder.out()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_costs_its_tier_only() {
    let folder = Folder::new(3000);
    let mut server = RedisServer::start().unwrap();
    let options = Options {
        redis: Some(server.url()),
        in_work: 32,
        ..folder.options()
    };
    let run = Run::start(options);
    run.until(|progress| &progress.stored, 200).await;
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let _server = server.await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!(
        (report.accepted, report.stored, report.failed),
        (3000, 3000, 0),
        "{report}"
    );
    assert_eq!(report.exported, 3000);
    // It was used, and then missed.
    let text = report.to_string();
    assert!(
        text.contains("second_writes: ") && text.contains("second_unavailable: "),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_before_it_starts() {
    let folder = Folder::new(1);
    let refused = async |change: fn(&mut Options)| {
        let mut options = folder.options();
        change(&mut options);
        Run::start(options).end().await.unwrap_err()
    };
    let error = refused(|options| options.folder = "/does/not/exist".into()).await;
    assert!(matches!(error, AppError::Folder { .. }), "{error:?}");
    assert!(chain(&error).starts_with("cannot read the folder /does/not/exist: "));
    let error = refused(|options| options.in_work = 0).await;
    assert!(
        chain(&error).starts_with("--in-work makes no sense: "),
        "{error:?}"
    );
    let error = refused(|options| options.per_second = 0).await;
    assert!(
        chain(&error).starts_with("--per-second makes no sense: "),
        "{error:?}"
    );
    // Port 1 is nobody's.
    let error = refused(|options| options.redis = Some("redis://127.0.0.1:1/".into())).await;
    assert!(matches!(error, AppError::Redis(_)), "{error:?}");
    const NOBODY: &str = "host=127.0.0.1 port=1 user=nobody";
    let error = refused(|options| options.postgres = Some(NOBODY.into())).await;
    assert!(matches!(error, AppError::Store(_)), "{error:?}");
    let error = refused(|options| options.database = Some("/does/not/exist/file".into())).await;
    assert!(matches!(error, AppError::Store(_)), "{error:?}");
    let error = refused(|options| options.out = Some("/does/not/exist/file".into())).await;
    assert!(matches!(error, AppError::Export(_)), "{error:?}");
    let error = refused(|options| options.database.clone_from(&options.out)).await;
    assert!(matches!(error, AppError::Export(_)), "{error:?}");
}
