//! SQLite in a file.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use overdrive_batch::Batcher;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Row;
use super::seen::{Seen, right};
use crate::jobs::{Limits, Work};
use crate::ours::Ours;

/// A file of one's own, and a thread that may wait for the disk.
#[derive(Clone)]
pub(crate) struct Sqlite {
    file: Arc<File>,
    thread: Sender<(Vec<Row>, oneshot::Sender<Vec<i64>>)>,
    seen: Arc<Seen>,
}

struct File {
    writer: Mutex<Connection>,
    folder: PathBuf,
}

impl File {
    fn create() -> Result<Self, Box<dyn std::error::Error>> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("overdrive-bench-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let writer = Connection::open(folder.join("rows"))?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        writer.pragma_update(None, "synchronous", "full")?;
        writer
            .execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, key INTEGER, body TEXT)")?;
        let writer = Mutex::new(writer);
        Ok(Self { writer, folder })
    }

    /// All rows in one transaction, each by the same prepared statement.
    fn insert(&self, rows: &[Row]) -> rusqlite::Result<Vec<i64>> {
        let mut writer = self.lock();
        let one = |connection: &Connection, row: &Row| {
            const INSERT: &str = "INSERT INTO rows (key, body) VALUES (?1, ?2)";
            let mut insert = connection.prepare_cached(INSERT)?;
            insert.insert((row.key, &row.body))
        };
        if let [row] = rows {
            // A statement by itself is a transaction.
            return Ok(vec![one(&writer, row)?]);
        }
        let transaction = writer.transaction()?;
        let ids = rows.iter().map(|row| one(&transaction, row));
        let ids = ids.collect::<rusqlite::Result<_>>()?;
        transaction.commit()?;
        Ok(ids)
    }

    fn table(&self) -> rusqlite::Result<HashMap<i64, i64>> {
        let writer = self.lock();
        let mut all = writer.prepare("SELECT id, key FROM rows")?;
        let rows = all.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}

impl Work for Sqlite {
    type Item = Row;
    type Out = i64;

    async fn start() -> Self {
        let file = Arc::new(File::create().expect("a file can be made"));
        let (thread, jobs) = channel::<(Vec<Row>, oneshot::Sender<_>)>();
        // It must not be the last to have the file, since nobody waits for it.
        let writer = Arc::downgrade(&file);
        std::thread::spawn(move || {
            for (rows, reply) in jobs {
                let Some(file) = writer.upgrade() else { break };
                let ids = file.insert(&rows).expect("the file can be written");
                drop(file);
                // Whoever has gone wants no reply.
                let _gone = reply.send(ids);
            }
        });
        let seen = Arc::new(Seen::new());
        Self { file, thread, seen }
    }

    fn item(n: u64) -> Row {
        Row::new(n)
    }

    async fn run(&self, rows: Vec<Row>) -> Vec<i64> {
        let (reply, ids) = oneshot::channel();
        self.thread.send((rows, reply)).expect("the thread lives");
        ids.await.expect("the thread replies")
    }

    fn digest(&self, n: u64, id: i64) -> u64 {
        self.seen.note(id, n.cast_signed());
        n
    }

    async fn verify(&self) -> u64 {
        let Some(seen) = self.seen.take() else {
            return 0;
        };
        let table = self.file.table();
        right(&seen, &table.expect("the file can be read"))
    }
}

/// Our own thread writes.
pub(super) fn ours(work: Sqlite, limits: Limits) -> Ours<Sqlite> {
    let builder = Batcher::builder()
        .max_size(limits.max_size)
        .workers(limits.slots);
    let file = Arc::downgrade(&work.file);
    let built = builder.build_sync(move |rows: Vec<Row>| {
        let file = file.upgrade().expect("it is kept while rows are submitted");
        let ids = file.insert(&rows);
        Ok::<_, Infallible>(ids.expect("the file can be written"))
    });
    Ours::from(built.expect("the settings are valid"))
}
