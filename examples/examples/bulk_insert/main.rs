//! Many writers, each with one row at a time, become few statements with many rows.
//!
//! ```console
//! $ cargo run --release -p overdrive-examples --example bulk_insert
//! $ cargo run --release -p overdrive-examples --example bulk_insert -- postgres://postgres@127.0.0.1/postgres
//! ```
//!
//! Without a URL it starts a PostgreSQL of its own and leaves nothing behind.

mod order;
mod postgres;
mod sqlite;

use std::error::Error;
use std::fmt;
use std::time::Instant;

use overdrive::batch::Batcher;
use overdrive_testkit::PostgresServer;
use tokio::task::JoinSet;

use crate::order::Order;

const WRITERS: i64 = 256;
/// Orders of each writer.
const ORDERS: i64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_server, url) = match std::env::args().nth(1) {
        Some(url) => (None, url),
        None => {
            let server = PostgresServer::start()?;
            let url = server.url();
            (Some(server), url)
        }
    };
    let connections = postgres::open(&url).await?;
    write("PostgreSQL", postgres::orders(&connections)?).await?;

    let name = format!("overdrive-bulk-insert-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder)?;
    let connection = sqlite::open(&folder.join("orders"))?;
    let written = write("SQLite", sqlite::orders(connection)?).await;
    std::fs::remove_dir_all(&folder)?;
    written
}

/// All writers at once.
async fn write<E>(database: &str, orders: Batcher<Order, i64, E>) -> Result<(), Box<dyn Error>>
where
    E: fmt::Debug + Error + Send + Sync + 'static,
{
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let orders = orders.clone();
        writers.spawn(async move {
            let mut ids = Vec::new();
            for n in 0..ORDERS {
                // As if there were no batches: one row, one answer.
                ids.push(orders.submit(Order::new(writer * ORDERS + n)).await?);
            }
            Ok::<_, overdrive::batch::SubmitError<Order, E>>(ids)
        });
    }
    let mut ids = Vec::new();
    while let Some(writer) = writers.join_next().await {
        ids.extend(writer?.map_err(|error| error.to_string())?);
    }
    let took = start.elapsed();
    ids.sort_unstable();
    ids.dedup();
    let stats = orders.stats();
    println!(
        "{database}: {} orders by {WRITERS} writers, each with an id of its own: {} statements, \
         {} rows in the largest, {:.0} rows/s",
        ids.len(),
        stats.batches,
        stats.largest_batch,
        ids.len() as f64 / took.as_secs_f64(),
    );
    Ok(())
}
