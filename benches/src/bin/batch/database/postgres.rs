//! PostgreSQL, started by the benchmark itself, with the settings that it comes with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use overdrive_testkit::PostgresServer;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, NoTls, Statement};

use super::Row;
use super::seen::{Seen, right};
use crate::jobs::{Limits, Submit, Work};

pub(super) const CONNECTIONS: usize = 4;

/// A table of one's own, and connections to it.
#[derive(Clone)]
pub(crate) struct Postgres(Arc<Table>);

struct Table {
    name: String,
    connections: Vec<Connection>,
    /// Indices of those connections that nobody uses, the last used last.
    free: Mutex<Vec<usize>>,
    any_free: Semaphore,
    seen: Seen,
    // After the connections.
    _server: Arc<PostgresServer>,
}

struct Connection {
    client: Client,
    /// One row.
    one: Statement,
    /// Rows by column.
    many: Statement,
    /// Single rows on their way.
    pending: AtomicUsize,
}

/// One server for all contenders of a process.
fn server() -> Arc<PostgresServer> {
    static SERVER: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
    // The test kit trades safety for speed, which is what is measured here.
    const SETTINGS: [&str; 3] = ["fsync=on", "full_page_writes=on", "shared_buffers=128MB"];
    let mut running = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = PostgresServer::start_with(&SETTINGS).expect("PostgreSQL can be started");
        let server = Arc::new(server);
        *running = Arc::downgrade(&server);
        server
    })
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("the server takes connections");
    // Ends with the client; what goes wrong is the error of the calls.
    tokio::spawn(async move { drop(connection.await) });
    client
}

impl Connection {
    async fn new(url: &str, table: &str) -> Self {
        let client = connect(url).await;
        let one = format!("INSERT INTO {table} (key, body) VALUES ($1, $2) RETURNING id");
        // The order of RETURNING is not promised, so the keys come back with the ids.
        let many = format!(
            "INSERT INTO {table} (key, body) SELECT * FROM UNNEST($1::int8[], $2::text[])
             RETURNING id, key"
        );
        let one = client.prepare(&one).await.expect("the statement is right");
        let many = client.prepare(&many).await.expect("the statement is right");
        Self {
            client,
            one,
            many,
            pending: AtomicUsize::new(0),
        }
    }

    async fn insert(&self, rows: &[Row]) -> Result<Vec<i64>, tokio_postgres::Error> {
        if let [row] = rows {
            // Arrays of one cost the server more than a row.
            return Ok(vec![self.insert_one(row).await?]);
        }
        let keys: Vec<i64> = rows.iter().map(|row| row.key).collect();
        let bodies: Vec<&str> = rows.iter().map(|row| row.body.as_str()).collect();
        let inserted = self.client.query(&self.many, &[&keys, &bodies]).await?;
        let mut ids = HashMap::with_capacity(rows.len());
        for row in &inserted {
            ids.insert(row.try_get::<_, i64>(1)?, row.try_get::<_, i64>(0)?);
        }
        Ok(keys.iter().map(|key| ids[key]).collect())
    }

    async fn insert_one(&self, row: &Row) -> Result<i64, tokio_postgres::Error> {
        let inserted = self
            .client
            .query_one(&self.one, &[&row.key, &row.body])
            .await?;
        inserted.try_get(0)
    }
}

impl Work for Postgres {
    type Item = Row;
    type Out = i64;

    async fn start() -> Self {
        static TABLES: AtomicUsize = AtomicUsize::new(0);
        let server = server();
        let url = server.url();
        let name = format!("rows_{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let table =
            format!("CREATE TABLE {name} (id bigserial PRIMARY KEY, key bigint, body text)");
        let client = connect(&url).await;
        let created = client.batch_execute(&table).await;
        created.expect("the statement is right");
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::new(&url, &name).await);
        }
        Self(Arc::new(Table {
            name,
            free: Mutex::new((0..connections.len()).collect()),
            any_free: Semaphore::new(connections.len()),
            connections,
            seen: Seen::new(),
            _server: server,
        }))
    }

    fn item(n: u64) -> Row {
        Row::new(n)
    }

    async fn run(&self, rows: Vec<Row>) -> Vec<i64> {
        let table = &*self.0;
        let _permit = table.any_free.acquire().await.expect("it is never closed");
        let index = table.lock_free().pop().expect("there are as many permits");
        let ids = table.connections[index].insert(&rows).await;
        table.lock_free().push(index);
        ids.expect("the server lives")
    }

    fn digest(&self, n: u64, id: i64) -> u64 {
        self.0.seen.note(id, n.cast_signed());
        n
    }

    async fn verify(&self) -> u64 {
        let Some(seen) = self.0.seen.take() else {
            return 0;
        };
        let all = format!("SELECT id, key FROM {}", self.0.name);
        let rows = self.0.connections[0].client.query(&all, &[]).await;
        let rows = rows.expect("the server lives");
        let table = rows.iter().map(|row| (row.get(0), row.get(1)));
        right(&seen, &table.collect())
    }
}

impl Table {
    fn lock_free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement for each row, on the connection that has the fewest on their way.
#[derive(Clone)]
pub(crate) struct SingleRow(Postgres);

pub(super) fn single_row(work: Postgres, _: Limits) -> SingleRow {
    SingleRow(work)
}

impl Submit<Postgres> for SingleRow {
    async fn submit(&mut self, row: Row) -> i64 {
        let connections = &self.0.0.connections;
        let least = connections
            .iter()
            .min_by_key(|connection| connection.pending.load(Ordering::Relaxed));
        let connection = least.expect("there are some");
        connection.pending.fetch_add(1, Ordering::Relaxed);
        let id = connection.insert_one(&row).await;
        connection.pending.fetch_sub(1, Ordering::Relaxed);
        id.expect("the server lives")
    }
}
