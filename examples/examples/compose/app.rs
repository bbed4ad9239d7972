//! The program itself: what becomes of one file on its way through all six primitives, and how all
//! of it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive::batch::SubmitError;
use overdrive::cache::{JsonCodec, LoadError, RedisSettings, RedisTier, Remote, TieredCache};
use overdrive::pipeline::{Pipeline, PipelineStats};
use overdrive::pool::{Keep, Pool};
use overdrive::ratelimit::{
    ConcurrencyLimit, ConfigError, KeyedLimiter, OwnedPermit, Quota, RateLimiter,
};
use overdrive::workstealing::ThreadPool;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::error::{AppError, StoreError, chain};
use crate::options::Options;
use crate::report::{Report, Stats};
use crate::store::{Document, Row, Store, Writes};
use crate::text;

/// How long what was accepted may take to finish once nothing more is.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of everything.
struct App {
    folder: PathBuf,
    /// How many files are started per second.
    pace: RateLimiter,
    /// What one package may ask for.
    packages: KeyedLimiter<String>,
    /// How many files are in work.
    in_work: ConcurrencyLimit,
    /// The numbers of packages, in front of the database.
    numbers: TieredCache<String, i64>,
    buffers: Pool<Vec<u8>>,
    threads: ThreadPool,
    store: Store,
    writes: Writes,
    progress: Arc<Progress>,
}

/// What can be watched while it runs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) exported: AtomicU64,
}

/// Why a file that was accepted was not stored.
#[derive(Debug)]
enum Failure {
    /// Its name is not Unicode, and the database keeps no other.
    Name,
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// The number of its package is not to be had.
    Package(LoadError<StoreError>),
    /// Its counting did not run, or its thread panicked.
    Counting(String),
    /// Its row was not written.
    Write(SubmitError<Document, StoreError>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("its name is not unicode"),
            Self::Unreadable(error) => write!(f, "unreadable: {error}"),
            Self::Package(error) => write!(f, "no package: {}", chain(error)),
            Self::Counting(error) => write!(f, "not counted: {error}"),
            Self::Write(error) => write!(f, "not written: {}", chain(error)),
        }
    }
}

/// Runs the program until the folder is done, or `stop` says so. What was accepted by then is
/// finished either way.
pub(crate) async fn run(
    options: Options,
    progress: Arc<Progress>,
    stop: watch::Receiver<bool>,
) -> Result<Report, AppError> {
    let folder = options.folder.clone();
    let files = text::walk(&folder).map_err(|source| AppError::Folder {
        path: folder,
        source,
    })?;
    let scratch = Scratch::new(&options)?;
    let app = Arc::new(App::start(&options, &scratch, progress).await?);
    let out = File::create(&scratch.out).map_err(|error| AppError::Export(Box::new(error)))?;
    let files = feed(files, options.limit);
    let (failures, interrupted) = Arc::clone(&app).take_in(files, stop).await;
    Ok(app.finish(failures, interrupted, out).await)
}

/// The text among the files, from a thread that may wait for the disk.
fn feed(
    files: impl Iterator<Item = PathBuf> + Send + 'static,
    limit: usize,
) -> mpsc::Receiver<PathBuf> {
    let (sender, receiver) = mpsc::channel(256);
    tokio::task::spawn_blocking(move || {
        // It ends with the receiver, even where there is no text to send.
        let wanted = files.take_while(|_| !sender.is_closed());
        for file in wanted.filter(|file| text::is_text(file)).take(limit) {
            if sender.blocking_send(file).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The setting is the primitive's, the option is what the user knows.
fn of_option(option: &'static str) -> impl FnOnce(ConfigError) -> AppError {
    move |error| AppError::Option(option, error)
}

impl App {
    async fn start(
        options: &Options,
        scratch: &Scratch,
        progress: Arc<Progress>,
    ) -> Result<Self, AppError> {
        let threads = ThreadPool::builder().name("counting").build()?;
        let store = match &options.postgres {
            Some(url) => Store::postgres(url).await?,
            None => Store::sqlite(&scratch.database, &threads)?,
        };
        // Nothing is left in Redis for longer than that.
        let numbers = TieredCache::builder()
            .name("packages")
            .max_entries(10_000)
            .ttl(Duration::from_secs(3600));
        let numbers = match &options.redis {
            Some(url) => {
                let mut settings = RedisSettings::default();
                settings.url.clone_from(url);
                let remote = Remote::connect(settings).await;
                let remote = remote.map_err(|error| AppError::Redis(Box::new(error)))?;
                // The numbers are this database's; another one's must not be taken for them.
                let tier = RedisTier::new(remote, format!("compose-{}", scratch.id))?;
                numbers.second_tier(tier).codec(JsonCodec::new(1)).build()?
            }
            None => numbers.build()?,
        };
        Ok(Self {
            folder: options.folder.clone(),
            pace: RateLimiter::builder()
                .quota(Quota::per_second(options.per_second))
                .name("pace")
                .build()
                .map_err(of_option("--per-second"))?,
            packages: KeyedLimiter::<String>::builder()
                .quota(Quota::per_second(options.per_package))
                .name("packages")
                .build()
                .map_err(of_option("--per-package"))?,
            in_work: ConcurrencyLimit::builder()
                .limit(options.in_work)
                .name("in work")
                .build()
                .map_err(of_option("--in-work"))?,
            numbers,
            buffers: Pool::builder()
                .name("file contents")
                .factory(|| Vec::with_capacity(64 << 10))
                .reset(|buffer: &mut Vec<u8>| {
                    buffer.clear();
                    if buffer.capacity() <= 4 << 20 {
                        Keep::Yes
                    } else {
                        Keep::Discard
                    }
                })
                .build()?,
            threads,
            writes: store.writes()?,
            store,
            progress,
        })
    }

    /// The door. Returns when all that was accepted has ended: why what failed did, and whether
    /// it was told to stop.
    async fn take_in(
        self: Arc<Self>,
        mut files: mpsc::Receiver<PathBuf>,
        mut stop: watch::Receiver<bool>,
    ) -> (BTreeMap<String, u64>, bool) {
        let mut work = JoinSet::new();
        let mut failures = BTreeMap::new();
        let mut count = |ended: Result<Option<String>, JoinError>| {
            let failed = ended.unwrap_or_else(|panic| {
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
                Some(panic.to_string())
            });
            if let Some(failed) = failed {
                *failures.entry(failed).or_insert(0) += 1;
            }
        };
        let interrupted = loop {
            let next = async {
                let file = files.recv().await?;
                let package = text::package(&self.folder, &file);
                if self.packages.check(&package).is_err() {
                    return Some(None);
                }
                // Both wait for as long as it takes, and take nothing if they are given up.
                self.pace.wait().await.ok()?;
                let permit = self.in_work.acquire_owned().await.ok()?;
                Some(Some((file, package, permit)))
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break true,
                next = next => match next {
                    None => break false,
                    Some(None) => {
                        self.progress.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Some((file, package, permit))) => {
                        self.progress.accepted.fetch_add(1, Ordering::Relaxed);
                        work.spawn(Arc::clone(&self).file(file, package, permit));
                    }
                },
            }
            while let Some(ended) = work.try_join_next() {
                count(ended);
            }
            if self.store.is_lost() {
                // Each further file would wait as long for as little.
                break false;
            }
        };
        self.in_work.close();
        while let Some(ended) = work.join_next().await {
            count(ended);
        }
        (failures, interrupted)
    }

    /// One file; why it failed, if it did.
    async fn file(
        self: Arc<Self>,
        file: PathBuf,
        package: String,
        permit: OwnedPermit,
    ) -> Option<String> {
        let stored = self.store_file(&file, package).await;
        drop(permit);
        match stored {
            Ok(_id) => {
                self.progress.stored.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(failure) => {
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
                Some(failure.to_string())
            }
        }
    }

    async fn store_file(&self, file: &Path, package: String) -> Result<i64, Failure> {
        let name = file.to_str().ok_or(Failure::Name)?.to_owned();
        // What this request has seen it sees again, whatever others do meanwhile.
        let scope = self.numbers.request_scope();
        let store = self.store.clone();
        let wanted = package.clone();
        let number = scope
            .load(&package, move || async move { store.package(wanted).await })
            .await
            .map_err(Failure::Package)?;
        let mut buffer = self.buffers.get_owned();
        let path = file.to_owned();
        let counting = self.threads.submit(move || {
            text::read(&path, &mut buffer)?;
            Ok(text::count(&buffer))
        });
        let counting = counting.map_err(|error| Failure::Counting(error.to_string()))?;
        let counted = counting
            .await
            .map_err(|error| Failure::Counting(error.to_string()))?;
        let document = Document {
            path: name,
            package: *number,
            counts: counted.map_err(Failure::Unreadable)?,
        };
        self.writes.submit(document).await.map_err(Failure::Write)
    }

    async fn finish(
        self: Arc<Self>,
        failures: BTreeMap<String, u64>,
        interrupted: bool,
        out: File,
    ) -> Report {
        let drained = self.writes.shutdown(PATIENCE).await;
        debug_assert!(drained.is_complete(), "every submitter was waited for");
        let (export, export_failed) = match self.export(out).await {
            Ok(stats) => (Some(stats), None),
            Err(error) => (None, Some(error)),
        };
        let _loads = self.numbers.shutdown(PATIENCE).await;
        let threads = self.threads.clone();
        let ended = tokio::task::spawn_blocking(move || threads.shutdown(PATIENCE));
        let _tasks = ended.await;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            accepted: read(&self.progress.accepted),
            refused: read(&self.progress.refused),
            stored: read(&self.progress.stored),
            failed: read(&self.progress.failed),
            failures,
            exported: read(&self.progress.exported),
            export_failed,
            interrupted,
            lost: self.store.is_lost(),
            stats: Stats {
                pace: self.pace.stats(),
                packages: self.packages.stats(),
                in_work: self.in_work.stats(),
                cache: self.numbers.stats(),
                buffers: self.buffers.stats(),
                writes: self.writes.stats(),
                threads: self.threads.stats(),
                export,
            },
        }
    }

    /// Every row as a line of JSON, in the order of their numbers.
    async fn export(&self, out: File) -> Result<PipelineStats, AppError> {
        const PAGE: i64 = 1000;
        let (ingress, pipeline) = Pipeline::from_channel::<Row>(256);
        let pipeline = pipeline
            .name("export")
            .try_map(|row| serde_json::to_string(&row))
            .stage("encode")
            .parallel(2)
            .on(&self.threads)
            .batch(200);
        let progress = Arc::clone(&self.progress);
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = BufWriter::new(out);
            let stats = pipeline.try_run(|lines| {
                lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
                let written = lines.len() as u64;
                progress.exported.fetch_add(written, Ordering::Relaxed);
                Ok::<(), std::io::Error>(())
            });
            let flushed = file.flush();
            let stats = stats.map_err(|error| AppError::Export(Box::new(error)))?;
            flushed.map_err(|error| AppError::Export(Box::new(error)))?;
            Ok(stats)
        });
        let read = async {
            let mut after = 0;
            loop {
                let page = self.store.page(after, PAGE).await?;
                let Some(last) = page.last() else {
                    return Ok::<_, StoreError>(());
                };
                after = last.id;
                for row in page {
                    if ingress.send(row).await.is_err() {
                        // The pipeline has ended, and says why.
                        return Ok(());
                    }
                }
            }
        };
        let read = read.await;
        ingress.close();
        let written = match writing.await {
            Ok(written) => written,
            Err(error) => Err(AppError::Export(Box::new(error))),
        };
        read?;
        written
    }
}

/// Where the database and the export are. A folder that was made for them is removed at the end.
struct Scratch {
    id: String,
    database: PathBuf,
    out: PathBuf,
    made: Option<PathBuf>,
}

impl Scratch {
    fn new(options: &Options) -> Result<Self, AppError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let id = format!(
            "{}-{}",
            std::process::id(),
            now.unwrap_or_default().as_nanos()
        );
        let mut made = None;
        let mut place = |given: &Option<PathBuf>, name: &str| -> Result<PathBuf, AppError> {
            if let Some(path) = given {
                return Ok(path.clone());
            }
            let folder = std::env::temp_dir().join(format!("overdrive-compose-{id}"));
            std::fs::create_dir_all(&folder).map_err(|source| AppError::Folder {
                path: folder.clone(),
                source,
            })?;
            made = Some(folder.clone());
            Ok(folder.join(name))
        };
        let database = place(&options.database, "documents.sqlite")?;
        let out = place(&options.out, "export.ndjson")?;
        if options.postgres.is_none() && database == out {
            return Err(AppError::Export("it would overwrite the database".into()));
        }
        Ok(Self {
            id,
            database,
            out,
            made,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = &self.made {
            // Left behind at worst, in the place for what may be left behind.
            let _removed = std::fs::remove_dir_all(folder);
        }
    }
}
