//! Many writers append to the histories of aggregates, each only if nobody was there before it. A
//! batch of appends is one transaction; who comes too late fails alone.
//!
//! ```console
//! $ cargo run --release -p overdrive-examples --example event_store
//! $ cargo run --release -p overdrive-examples --example event_store -- postgres://postgres@127.0.0.1/postgres
//! ```
//!
//! Without a URL it starts a PostgreSQL of its own. SQLite is in the temporary folder. It leaves
//! nothing behind in either case but on the server of the URL.

mod account;
mod append;
mod postgres;
mod sqlite;

use std::error::Error;

use overdrive_testkit::PostgresServer;
use tokio::task::JoinSet;

use crate::account::Event;
use crate::append::Append;
use crate::postgres::Store;

const WRITERS: i64 = 64;
const ACCOUNTS: i64 = 16;
/// Deposits of each writer.
const DEPOSITS: i64 = 20;

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
    let store = Store::open(&url).await?;
    // Nobody else's, on a server that others use.
    let first = i64::from(std::process::id()) << 16;
    race(&store, first).await?;
    rebuild(&store, first + ACCOUNTS).await?;
    on_sqlite()
}

/// Writers that get into each other's way, and try again.
async fn race(store: &Store, first: i64) -> Result<(), Box<dyn Error>> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut conflicts = 0_u64;
            for n in 0..DEPOSITS {
                let aggregate = first + (writer + n) % ACCOUNTS;
                let mut expected = store
                    .account(aggregate)
                    .await
                    .map_err(|e| e.to_string())?
                    .version;
                let events = vec![Event::Deposited { cents: 1 }];
                loop {
                    let append = Append {
                        aggregate,
                        expected,
                        events: events.clone(),
                    };
                    let outcome = store.appends().submit(append).await;
                    match outcome.map_err(|e| e.to_string())? {
                        Ok(_version) => break,
                        Err(conflict) => expected = conflict.actual,
                    }
                    conflicts += 1;
                }
            }
            Ok::<_, String>(conflicts)
        });
    }
    let mut conflicts = 0;
    while let Some(writer) = writers.join_next().await {
        conflicts += writer??;
    }
    let mut cents = 0;
    for aggregate in first..first + ACCOUNTS {
        cents += store.account(aggregate).await?.cents;
    }
    let stats = store.appends().stats();
    println!(
        "PostgreSQL: {} deposits by {WRITERS} writers on {ACCOUNTS} accounts in {} transactions, \
         {conflicts} came too late and were tried again; {cents} cents on the accounts",
        WRITERS * DEPOSITS,
        stats.batches,
    );
    Ok(())
}

/// A long history.
async fn rebuild(store: &Store, aggregate: i64) -> Result<(), Box<dyn Error>> {
    for expected in (0..1_000).step_by(100) {
        let events = (0..50).flat_map(|cents| {
            let (deposited, withdrawn) =
                (Event::Deposited { cents }, Event::Withdrawn { cents: 1 });
            [deposited, withdrawn]
        });
        let append = Append {
            aggregate,
            expected,
            events: events.collect(),
        };
        store.appends().submit(append).await??;
    }
    let account = store.account(aggregate).await?;
    println!(
        "PostgreSQL: an account of {} events has {} cents",
        account.version, account.cents
    );
    Ok(())
}

/// The same batches by the rules of another database, from threads.
fn on_sqlite() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("overdrive-event-store-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let file = folder.join("events");
    let appends = sqlite::appends(sqlite::open(&file)?)?;
    let in_time = std::thread::scope(|scope| {
        let writer = || {
            let append = Append {
                aggregate: 1,
                expected: 0,
                events: vec![Event::Deposited { cents: 5 }],
            };
            appends.submit_blocking(append)
        };
        let writers: Vec<_> = (0..8).map(|_| scope.spawn(writer)).collect();
        let outcomes = writers
            .into_iter()
            .map(|w| w.join().expect("no writer panics"));
        outcomes
            .filter(|outcome| matches!(outcome, Ok(Ok(1))))
            .count()
    });
    let account = sqlite::account(&sqlite::open(&file)?, 1)?;
    println!(
        "SQLite: of 8 writers who all saw an empty account {in_time} was in time; it has {} cents",
        account.cents
    );
    drop(appends);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
