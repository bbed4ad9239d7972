//! The database: SQLite in a file, or PostgreSQL on a server.
//!
//! Documents are inserted by their path, so that inserting one again changes nothing: a batch whose
//! answer was lost with the connection can be sent again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overdrive::batch::{Batcher, ConfigError};
use overdrive::pool::Pool;
use overdrive::workstealing::ThreadPool;
use serde::Serialize;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::error::StoreError;
use crate::text::Counts;

/// A row to write.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) package: i64,
    pub(crate) counts: Counts,
}

/// A row that was read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) path: String,
    pub(crate) package: String,
    pub(crate) bytes: i64,
    pub(crate) lines: i64,
    pub(crate) words: i64,
}

/// Many submitters, one transaction: to each the number of its row.
pub(crate) type Writes = Batcher<Document, i64, StoreError>;

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS packages (id {ID}, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS documents (id {ID}, path TEXT NOT NULL UNIQUE,
     package BIGINT NOT NULL, bytes BIGINT NOT NULL, lines BIGINT NOT NULL,
     words BIGINT NOT NULL, hash BIGINT NOT NULL)",
];

const PAGE: &str = "SELECT d.id, d.path, p.name, d.bytes, d.lines, d.words
    FROM documents d JOIN packages p ON p.id = d.package
    WHERE d.id > $1 ORDER BY d.id LIMIT $2";

/// The database.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

impl Store {
    /// Opens a file, and makes the tables.
    pub(crate) fn sqlite(path: &Path, threads: &ThreadPool) -> Result<Self, StoreError> {
        let connection = open(path)?;
        for table in TABLES {
            connection.execute_batch(&table.replace("{ID}", "INTEGER PRIMARY KEY"))?;
        }
        let connections = Pool::builder()
            .name("sqlite readers")
            .factory(|| None)
            .build();
        let connections = connections.map_err(|_| StoreError::Unexpected("no pool"))?;
        Ok(Self::Sqlite(Arc::new(Sqlite {
            path: path.to_owned(),
            threads: threads.clone(),
            readers: connections,
        })))
    }

    /// Connects to a server, and makes the tables.
    pub(crate) async fn postgres(url: &str) -> Result<Self, StoreError> {
        let postgres = Arc::new(Postgres {
            url: url.to_owned(),
            client: tokio::sync::Mutex::default(),
            lost: AtomicBool::new(false),
        });
        // A server that is not there at the start is an error; later it may come back.
        let client = postgres.client().await?;
        for table in TABLES {
            let table = table.replace("{ID}", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY");
            in_time(client.batch_execute(&table)).await?;
        }
        Ok(Self::Postgres(postgres))
    }

    /// Whether the server went away and did not come back in time.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(postgres) => postgres.lost.load(Ordering::Relaxed),
        }
    }

    /// The batcher that writes documents.
    pub(crate) fn writes(&self) -> Result<Writes, ConfigError> {
        let builder = Batcher::builder()
            .name("documents")
            .max_size(500)
            .capacity(10_000);
        match self {
            Self::Sqlite(sqlite) => {
                // SQLite has one writer at a time.
                let writer = open(&sqlite.path).map(Mutex::new);
                builder
                    .workers(1)
                    .build_sync(move |documents: Vec<Document>| match &writer {
                        Ok(writer) => {
                            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                            insert_sqlite(&mut writer, &documents)
                        }
                        Err(error) => Err(error.clone()),
                    })
            }
            Self::Postgres(postgres) => {
                let postgres = Arc::clone(postgres);
                builder.workers(2).build(move |documents: Vec<Document>| {
                    let postgres = Arc::clone(&postgres);
                    async move { postgres.insert(&documents).await }
                })
            }
        }
    }

    /// The number of a package, which is made if it is new: what the cache asks for.
    pub(crate) async fn package(&self, name: String) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                sqlite
                    .read(move |reader| {
                        const NEW: &str = "INSERT INTO packages (name) VALUES (?1)
                            ON CONFLICT (name) DO NOTHING";
                        const ID: &str = "SELECT id FROM packages WHERE name = ?1";
                        reader.prepare_cached(NEW)?.execute([&name])?;
                        reader
                            .prepare_cached(ID)?
                            .query_row([&name], |row| row.get(0))
                    })
                    .await
            }
            Self::Postgres(postgres) => postgres.package(&name).await,
        }
    }

    /// Up to `limit` rows after that id, in the order of their ids.
    pub(crate) async fn page(&self, after: i64, limit: i64) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                sqlite
                    .read(move |reader| {
                        let mut statement = reader.prepare_cached(PAGE)?;
                        let rows = statement.query_map([after, limit], |row| {
                            Ok(Row {
                                id: row.get(0)?,
                                path: row.get(1)?,
                                package: row.get(2)?,
                                bytes: row.get(3)?,
                                lines: row.get(4)?,
                                words: row.get(5)?,
                            })
                        })?;
                        rows.collect()
                    })
                    .await
            }
            Self::Postgres(postgres) => postgres.page(after, limit).await,
        }
    }
}

fn open(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

fn insert_sqlite(
    writer: &mut rusqlite::Connection,
    documents: &[Document],
) -> Result<Vec<i64>, StoreError> {
    const INSERT: &str = "INSERT INTO documents (path, package, bytes, lines, words, hash)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (path) DO UPDATE SET package = ?2, bytes = ?3, lines = ?4, words = ?5, hash = ?6
        RETURNING id";
    let transaction = writer.transaction()?;
    let mut ids = Vec::with_capacity(documents.len());
    {
        let mut insert = transaction.prepare_cached(INSERT)?;
        for Document {
            path,
            package,
            counts,
        } in documents
        {
            let Counts {
                bytes,
                lines,
                words,
                hash,
            } = counts;
            let values = rusqlite::params![path, package, bytes, lines, words, hash];
            ids.push(insert.query_row(values, |row| row.get(0))?);
        }
    }
    transaction.commit()?;
    Ok(ids)
}

/// A file: connections for reading, pooled, used on the thread pool.
#[derive(Debug)]
pub(crate) struct Sqlite {
    path: PathBuf,
    threads: ThreadPool,
    /// `None` until it is first used.
    readers: Pool<Option<rusqlite::Connection>>,
}

impl Sqlite {
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, mut reader) = (self.path.clone(), self.readers.get_owned());
        let task = self.threads.submit(move || {
            let connection = match reader.take() {
                Some(connection) => connection,
                None => open(&path)?,
            };
            let answer = query(&connection);
            *reader = Some(connection);
            answer.map_err(StoreError::from)
        });
        let task = task.map_err(|_| StoreError::Unexpected("the thread pool is full"))?;
        task.await
            .unwrap_or(Err(StoreError::Unexpected("the query did not run")))
    }
}

/// How long an answer of the server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long something is tried again after the connection was lost; the first and the longest wait
/// in between.
const TRIES: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

async fn in_time<T>(
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::TimedOut),
    }
}

/// What the server says of the statement itself is final, its shutdown is not.
fn is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Postgres(error) => error
            .code()
            .is_none_or(|code| code.code().starts_with("57P") || code.code() == "53300"),
        StoreError::TimedOut => true,
        StoreError::Sqlite(_) | StoreError::Unexpected(_) => false,
    }
}

/// A server, and the connection to it while there is one.
pub(crate) struct Postgres {
    url: String,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    /// It did not come back in time. From then on nothing is tried twice.
    lost: AtomicBool,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// The connection, made anew if it was lost.
    async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = in_time(tokio_postgres::connect(&self.url, NoTls)).await?;
        // Ends with the client; what goes wrong is the error of the calls.
        tokio::spawn(async move { drop(connection.await) });
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Does something that may be done twice, again if the connection is lost on the way.
    async fn again<T, F>(&self, call: impl Fn(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let mut last = StoreError::TimedOut;
        let tries = async {
            let mut wait = FIRST_WAIT;
            loop {
                match self.once(&call).await {
                    Err(error) if is_away(&error) => last = error,
                    answer => return answer,
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        };
        if !self.lost.load(Ordering::Relaxed) {
            // The wait for the connection is in it, while others try to make one.
            if let Ok(answer) = tokio::time::timeout(TRIES, tries).await {
                return answer;
            }
            self.lost.store(true, Ordering::Relaxed);
            return Err(last);
        }
        let once = tokio::time::timeout(PATIENCE, self.once(&call));
        once.await.unwrap_or(Err(StoreError::TimedOut))
    }

    async fn once<T, F>(&self, call: &impl Fn(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let client = self.client().await?;
        let answer = in_time(call(Arc::clone(&client))).await;
        if answer.as_ref().is_err_and(is_away) {
            // Unless somebody else has made another by now.
            let mut slot = self.client.lock().await;
            slot.take_if(|current| Arc::ptr_eq(current, &client));
        }
        answer
    }

    async fn package(&self, name: &str) -> Result<i64, StoreError> {
        const NEW: &str = "INSERT INTO packages (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
        const ID: &str = "SELECT id FROM packages WHERE name = $1";
        self.again(|client| async move {
            client.execute(NEW, &[&name]).await?;
            client.query_one(ID, &[&name]).await?.try_get(0)
        })
        .await
    }

    async fn insert(&self, documents: &[Document]) -> Result<Vec<i64>, StoreError> {
        // The order of RETURNING is not promised, so the paths come back with the numbers.
        const INSERT: &str = "INSERT INTO documents (path, package, bytes, lines, words, hash)
            SELECT * FROM UNNEST($1::text[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
            ON CONFLICT (path) DO UPDATE SET package = EXCLUDED.package, bytes = EXCLUDED.bytes,
                lines = EXCLUDED.lines, words = EXCLUDED.words, hash = EXCLUDED.hash
            RETURNING id, path";
        let column = |of: fn(&Document) -> i64| documents.iter().map(of).collect::<Vec<i64>>();
        let paths: Vec<&str> = documents.iter().map(|d| d.path.as_str()).collect();
        let (packages, bytes) = (column(|d| d.package), column(|d| d.counts.bytes));
        let (lines, words) = (column(|d| d.counts.lines), column(|d| d.counts.words));
        let hashes = column(|d| d.counts.hash);
        let columns: [&(dyn ToSql + Sync); 6] =
            [&paths, &packages, &bytes, &lines, &words, &hashes];
        let columns = &columns;
        let rows = self
            .again(|client| async move { client.query(INSERT, columns).await })
            .await?;
        let mut ids = std::collections::HashMap::with_capacity(rows.len());
        for row in &rows {
            ids.insert(row.try_get::<_, &str>(1)?, row.try_get::<_, i64>(0)?);
        }
        let number = |path| ids.get(path).copied();
        let ids: Option<Vec<i64>> = paths.into_iter().map(number).collect();
        ids.ok_or(StoreError::Unexpected("a row came back without its number"))
    }

    async fn page(&self, after: i64, limit: i64) -> Result<Vec<Row>, StoreError> {
        let rows = self
            .again(|client| async move { client.query(PAGE, &[&after, &limit]).await })
            .await?;
        let row = |row: &tokio_postgres::Row| {
            Ok(Row {
                id: row.try_get(0)?,
                path: row.try_get(1)?,
                package: row.try_get(2)?,
                bytes: row.try_get(3)?,
                lines: row.try_get(4)?,
                words: row.try_get(5)?,
            })
        };
        rows.iter().map(row).collect()
    }
}
