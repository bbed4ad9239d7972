//! Events in SQLite: a transaction for each batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use overdrive::batch::{Batcher, ConfigError};
use rusqlite::{Connection, Error, TransactionBehavior};

use crate::account::{Account, Event};
use crate::append::{Append, Outcome, judge};

pub(crate) type Appends = Batcher<Append, Outcome, Error>;

/// Opens the file and makes the table.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (aggregate INTEGER, version INTEGER,
        event TEXT NOT NULL, PRIMARY KEY (aggregate, version)) WITHOUT ROWID";
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

/// SQLite has one writer at a time.
pub(crate) fn appends(connection: Connection) -> Result<Appends, ConfigError> {
    let connection = Mutex::new(connection);
    Batcher::builder()
        .name("events")
        .max_size(200)
        .workers(1)
        .build_sync(move |appends: Vec<Append>| {
            // A panic has rolled its transaction back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            append(&mut connection, &appends)
        })
}

fn append(connection: &mut Connection, appends: &[Append]) -> Result<Vec<Outcome>, Error> {
    const VERSION: &str = "SELECT coalesce(max(version), 0) FROM events WHERE aggregate = ?1";
    const INSERT: &str = "INSERT INTO events (aggregate, version, event) VALUES (?1, ?2, ?3)";
    // The writer from its beginning, since the versions must not change in between.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut versions = BTreeMap::new();
    let outcomes = {
        let mut version = transaction.prepare_cached(VERSION)?;
        for append in appends {
            let aggregate = append.aggregate;
            versions.insert(aggregate, version.query_row([aggregate], |row| row.get(0))?);
        }
        let verdict = judge(appends, &mut versions);
        let mut insert = transaction.prepare_cached(INSERT)?;
        for placed in verdict.events {
            let event = placed.event.to_string();
            insert.execute((placed.aggregate, placed.version, event))?;
        }
        verdict.outcomes
    };
    transaction.commit()?;
    Ok(outcomes)
}

/// An account, rebuilt from its events.
pub(crate) fn account(connection: &Connection, aggregate: i64) -> Result<Account, Error> {
    const EVENTS: &str = "SELECT event FROM events WHERE aggregate = ?1 ORDER BY version";
    let mut events = connection.prepare_cached(EVENTS)?;
    let mut events = events.query_map([aggregate], |row| {
        Ok(Event::read(row.get_ref(0)?.as_str()?).expect("only events are stored"))
    })?;
    events.try_fold(Account::default(), |account, event| {
        Ok(account.apply(event?))
    })
}
