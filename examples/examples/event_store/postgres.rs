//! Events in PostgreSQL: a transaction for each batch, four statements however many writers.

use std::collections::BTreeMap;
use std::sync::Arc;

use overdrive::batch::{Batcher, ConfigError};
use overdrive_examples::Connections;
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use crate::account::{Account, Event};
use crate::append::{Append, Outcome, judge};

pub(crate) type Appends = Batcher<Append, Outcome, Error>;

const CONNECTIONS: usize = 4;

/// The store; clones share its connections and its batches.
#[derive(Clone)]
pub(crate) struct Store {
    connections: Arc<Connections>,
    appends: Appends,
}

impl Store {
    pub(crate) async fn open(url: &str) -> Result<Self, Box<dyn std::error::Error>> {
        const TABLES: &str = "
            CREATE TABLE IF NOT EXISTS aggregates (id BIGINT PRIMARY KEY, version BIGINT NOT NULL);
            CREATE TABLE IF NOT EXISTS events (aggregate BIGINT, version BIGINT,
                event TEXT NOT NULL, PRIMARY KEY (aggregate, version))";
        // One more for those who read.
        let connections = Arc::new(Connections::new(url, CONNECTIONS + 1)?);
        connections.get().await?.batch_execute(TABLES).await?;
        let appends = appends(&connections)?;
        Ok(Self {
            connections,
            appends,
        })
    }

    pub(crate) fn appends(&self) -> &Appends {
        &self.appends
    }

    /// The events of an aggregate, oldest first.
    pub(crate) async fn events(&self, aggregate: i64) -> Result<Vec<Event>, Error> {
        const EVENTS: &str = "SELECT event FROM events WHERE aggregate = $1 ORDER BY version";
        let connection = self.connections.get().await?;
        let wanted = [(&aggregate as _, Type::INT8)];
        let rows = connection.query_typed(EVENTS, &wanted).await?;
        let read = |row: tokio_postgres::Row| {
            let event = Event::read(row.try_get(0)?);
            Ok(event.expect("only events are stored"))
        };
        rows.into_iter().map(read).collect()
    }

    /// An account, rebuilt from its events.
    pub(crate) async fn account(&self, aggregate: i64) -> Result<Account, Error> {
        let events = self.events(aggregate).await?;
        Ok(events.into_iter().fold(Account::default(), Account::apply))
    }
}

fn appends(connections: &Arc<Connections>) -> Result<Appends, ConfigError> {
    let connections = Arc::clone(connections);
    Batcher::builder()
        .name("events")
        .max_size(200)
        .workers(CONNECTIONS)
        .build(move |appends: Vec<Append>| {
            let connections = Arc::clone(&connections);
            async move { append(&connections, &appends).await }
        })
}

async fn append(connections: &Connections, appends: &[Append]) -> Result<Vec<Outcome>, Error> {
    const NEW: &str = "INSERT INTO aggregates SELECT id, 0 FROM UNNEST($1::int8[]) AS id
        ON CONFLICT (id) DO NOTHING";
    // Locked in the order of their ids, so that no two batches wait for each other.
    const LOCK: &str = "SELECT id, version FROM aggregates WHERE id = ANY($1::int8[])
        ORDER BY id FOR UPDATE";
    const EVENTS: &str = "INSERT INTO events
        SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::text[])";
    const VERSIONS: &str = "UPDATE aggregates SET version = new.version
        FROM UNNEST($1::int8[], $2::int8[]) AS new (id, version) WHERE aggregates.id = new.id";

    let mut versions: BTreeMap<i64, i64> = appends.iter().map(|a| (a.aggregate, 0)).collect();
    let ids: Vec<i64> = versions.keys().copied().collect();
    let mut connection = connections.get().await?;
    // Rolled back where it is not committed.
    let transaction = connection.transaction().await?;
    let aggregates = [(&ids as _, Type::INT8_ARRAY)];
    transaction.execute_typed(NEW, &aggregates).await?;
    for row in transaction.query_typed(LOCK, &aggregates).await? {
        versions.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let verdict = judge(appends, &mut versions);
    if !verdict.events.is_empty() {
        let events = &verdict.events;
        let of: Vec<i64> = events.iter().map(|event| event.aggregate).collect();
        let at: Vec<i64> = events.iter().map(|event| event.version).collect();
        let what: Vec<String> = events.iter().map(|event| event.event.to_string()).collect();
        let columns = [
            (&of as _, Type::INT8_ARRAY),
            (&at as _, Type::INT8_ARRAY),
            (&what as _, Type::TEXT_ARRAY),
        ];
        transaction.execute_typed(EVENTS, &columns).await?;
        let versions: Vec<i64> = versions.into_values().collect();
        let columns = [
            (&ids as _, Type::INT8_ARRAY),
            (&versions as _, Type::INT8_ARRAY),
        ];
        transaction.execute_typed(VERSIONS, &columns).await?;
    }
    transaction.commit().await?;
    Ok(verdict.outcomes)
}
