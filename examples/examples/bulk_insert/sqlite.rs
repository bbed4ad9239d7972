//! Orders in SQLite: a transaction for each batch, and as many rows in a statement as it has
//! parameters for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use overdrive::batch::{Batcher, ConfigError, chunks_by_params};
use rusqlite::{Connection, Error, params_from_iter};

use crate::order::{Order, once};

/// To each order the id of its row.
pub(crate) type Orders = Batcher<Order, i64, Error>;

/// What every SQLite binds, however old; since 3.32 it is 32,766.
const MAX_PARAMS: usize = 999;

/// Opens the file and makes the table.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE, customer TEXT NOT NULL, cents INTEGER NOT NULL)";
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

/// One batch at a time: SQLite has one writer. The batcher's own thread waits for the disk, and
/// whoever submits need not have a runtime.
pub(crate) fn orders(connection: Connection) -> Result<Orders, ConfigError> {
    let connection = Mutex::new(connection);
    Batcher::builder()
        .name("orders")
        .max_size(1_000)
        .workers(1)
        .build_sync(move |orders: Vec<Order>| {
            // A panic has rolled its transaction back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            insert(&mut connection, &orders)
        })
}

fn insert(connection: &mut Connection, orders: &[Order]) -> Result<Vec<i64>, Error> {
    const COLUMNS: usize = 3;
    let rows = once(orders);
    let chunks = chunks_by_params(&rows, COLUMNS, MAX_PARAMS).expect("a row has few columns");
    let mut ids = HashMap::with_capacity(rows.len());
    let transaction = connection.transaction()?;
    for rows in chunks {
        // Of one length, but for the last.
        let values = vec!["(?, ?, ?)"; rows.len()].join(", ");
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT INTO orders (number, customer, cents) VALUES {values}
             ON CONFLICT (number) DO UPDATE SET number = excluded.number
             RETURNING number, id"
        ))?;
        let values = rows.iter().flat_map(|order| {
            let row: [&dyn rusqlite::ToSql; COLUMNS] =
                [&order.number, &order.customer, &order.cents];
            row
        });
        // The order of RETURNING is not promised here either.
        let returned = insert.query_map(params_from_iter(values), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        for row in returned {
            let (number, id) = row?;
            ids.insert(number, id);
        }
    }
    transaction.commit()?;
    let of = |order: &Order| ids.get(&order.number).copied();
    Ok(orders.iter().filter_map(of).collect())
}
