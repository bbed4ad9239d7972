//! Orders in PostgreSQL: a statement for each batch, the rows by column.

use std::collections::HashMap;
use std::sync::Arc;

use overdrive::batch::{Batcher, ConfigError};
use overdrive_examples::Connections;
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use crate::order::{Order, once};

/// To each order the id of its row.
pub(crate) type Orders = Batcher<Order, i64, Error>;

const CONNECTIONS: usize = 4;

/// Makes the table, and connections for the batcher.
pub(crate) async fn open(url: &str) -> Result<Arc<Connections>, Error> {
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number BIGINT NOT NULL UNIQUE,
        customer TEXT NOT NULL, cents BIGINT NOT NULL)";
    let connections = Connections::new(url, CONNECTIONS)?;
    connections.get().await?.batch_execute(TABLE).await?;
    Ok(Arc::new(connections))
}

/// As many batches at a time as there are connections.
pub(crate) fn orders(connections: &Arc<Connections>) -> Result<Orders, ConfigError> {
    let connections = Arc::clone(connections);
    Batcher::builder()
        .name("orders")
        .max_size(1_000)
        .workers(CONNECTIONS)
        .build(move |orders: Vec<Order>| {
            let connections = Arc::clone(&connections);
            async move { insert(&connections, &orders).await }
        })
}

async fn insert(connections: &Connections, orders: &[Order]) -> Result<Vec<i64>, Error> {
    // Three parameters however many rows. An order that is there already changes nothing and
    // returns its id, so that a batch whose answer was lost can be submitted again. PostgreSQL does
    // not promise an order of what RETURNING gives, so the numbers come back with the ids.
    const INSERT: &str = "INSERT INTO orders (number, customer, cents)
        SELECT * FROM UNNEST($1::int8[], $2::text[], $3::int8[])
        ON CONFLICT (number) DO UPDATE SET number = EXCLUDED.number
        RETURNING id, number";
    let rows = once(orders);
    let numbers: Vec<i64> = rows.iter().map(|order| order.number).collect();
    let customers: Vec<&str> = rows.iter().map(|order| order.customer.as_str()).collect();
    let cents: Vec<i64> = rows.iter().map(|order| order.cents).collect();
    let connection = connections.get().await?;
    let columns = [
        (&numbers as _, Type::INT8_ARRAY),
        (&customers as _, Type::TEXT_ARRAY),
        (&cents as _, Type::INT8_ARRAY),
    ];
    let rows = connection.query_typed(INSERT, &columns).await?;
    let mut ids = HashMap::with_capacity(rows.len());
    for row in rows {
        ids.insert(row.try_get::<_, i64>(1)?, row.try_get::<_, i64>(0)?);
    }
    // If one were missing, the batcher would find too few results and say so to everybody.
    let of = |order: &Order| ids.get(&order.number).copied();
    Ok(orders.iter().filter_map(of).collect())
}
