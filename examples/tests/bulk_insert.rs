//! Batches of rows on real databases, one of which is killed under them.

#[path = "../examples/bulk_insert/order.rs"]
mod order;
#[path = "../examples/bulk_insert/postgres.rs"]
mod postgres;
#[path = "../examples/bulk_insert/sqlite.rs"]
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overdrive::batch::{Batcher, SubmitError};
use overdrive_examples::Connections;
use overdrive_testkit::PostgresServer;
use tokio::task::JoinSet;

use crate::order::Order;

/// Nobody hangs: what takes longer than anything could fails the test.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(60), future).await;
    answer.expect("somebody hangs")
}

/// What became of each order, by its number.
type Outcomes = BTreeMap<i64, Result<i64, String>>;

/// What can be watched while it happens.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

/// So many writers, each with its own range of numbers.
async fn write<E>(
    orders: &Batcher<Order, i64, E>,
    writers: i64,
    each: i64,
    progress: &Arc<Progress>,
) -> Outcomes
where
    E: fmt::Debug + Send + Sync + 'static,
{
    let mut all = JoinSet::new();
    for writer in 0..writers {
        let (orders, progress) = (orders.clone(), Arc::clone(progress));
        all.spawn(async move {
            let mut outcomes = Outcomes::new();
            for number in writer * each..(writer + 1) * each {
                let outcome = orders.submit(Order::new(number)).await;
                let counter = match &outcome {
                    Ok(_) => &progress.acknowledged,
                    Err(_) => &progress.failed,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                outcomes.insert(number, outcome.map_err(|error| error.to_string()));
            }
            outcomes
        });
    }
    all.join_all().await.into_iter().flatten().collect()
}

/// The orders in the table: their ids by their numbers.
fn table(server: &PostgresServer) -> BTreeMap<i64, i64> {
    let rows = server.sql("SELECT number, id FROM orders").unwrap();
    let row = |line: &str| {
        let (number, id) = line.split_once('|').unwrap();
        (number.parse().unwrap(), id.parse().unwrap())
    };
    rows.lines().map(row).collect()
}

/// Those who got an id got that of their own row, no id was given twice, and whatever else is in the
/// table is of those who got an error.
fn hold_against(outcomes: &Outcomes, table: &BTreeMap<i64, i64>) {
    let mut ids = BTreeSet::new();
    for (number, outcome) in outcomes {
        if let Ok(id) = outcome {
            assert_eq!(table.get(number), Some(id), "of order {number}");
            assert!(ids.insert(id), "two orders have the id {id}");
        }
    }
    for number in table.keys() {
        assert!(outcomes.contains_key(number), "nobody ordered {number}");
    }
    let acknowledged = ids.len();
    let unknown = |(_, outcome): &(_, &Result<_, _>)| outcome.is_err();
    let erred = outcomes.iter().filter(unknown);
    let written = erred
        .filter(|(number, _)| table.contains_key(number))
        .count();
    assert_eq!(table.len(), acknowledged + written);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_writer_gets_the_id_of_its_own_row_in_postgres() {
    let server = PostgresServer::start().unwrap();
    let connections = postgres::open(&server.url()).await.unwrap();
    let orders = postgres::orders(&connections).unwrap();
    let outcomes = in_time(write(&orders, 64, 20, &Arc::default())).await;
    assert!(outcomes.values().all(Result::is_ok));
    hold_against(&outcomes, &table(&server));
    let stats = orders.stats();
    assert!(
        stats.batches < 64 * 20 && stats.largest_batch > 1,
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_writer_gets_the_id_of_its_own_row_in_sqlite() {
    let folder = std::env::temp_dir().join(format!("overdrive-bulk-test-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("orders");
    let orders = sqlite::orders(sqlite::open(&file).unwrap()).unwrap();
    let outcomes = in_time(write(&orders, 64, 20, &Arc::default())).await;
    assert!(outcomes.values().all(Result::is_ok));
    let rows = |connection: &rusqlite::Connection| {
        let mut all = connection.prepare("SELECT number, id FROM orders").unwrap();
        let rows = all.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap()
            .collect::<Result<BTreeMap<i64, i64>, _>>()
            .unwrap()
    };
    let reader = sqlite::open(&file).unwrap();
    hold_against(&outcomes, &rows(&reader));
    // More rows than a statement has parameters for, some of them twice.
    let many = (0..2_000).map(|n| Order::new(10_000 + n % 1_500));
    let ids = in_time(orders.submit_all(many)).await;
    let ids: Vec<i64> = ids.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids[..500], ids[1_500..]);
    let table = rows(&reader);
    assert_eq!(table.len(), outcomes.len() + 1_500);
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(table.get(&(10_000 + n % 1_500)), Some(id));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_submitted_again_has_the_id_that_it_had() {
    let server = PostgresServer::start().unwrap();
    let connections = postgres::open(&server.url()).await.unwrap();
    let orders = postgres::orders(&connections).unwrap();
    let first = orders.submit(Order::new(7)).await.unwrap();
    // Once more by itself, and twice in one batch.
    assert_eq!(orders.submit(Order::new(7)).await.unwrap(), first);
    let again = orders.submit_all([Order::new(7), Order::new(8), Order::new(7)]);
    let ids: Vec<i64> = in_time(again)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!((ids[0], ids[2]), (first, first));
    assert_eq!(table(&server), BTreeMap::from([(7, first), (8, ids[1])]));
}

/// A transaction that lets nobody write, so that batches get as far as the server and no further.
async fn block(url: &str) -> (Connections, tokio::task::JoinHandle<()>) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let lock = "BEGIN; LOCK TABLE orders IN SHARE MODE";
    client.batch_execute(lock).await.unwrap();
    let blocker = tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    (Connections::new(url, 1).unwrap(), blocker)
}

/// Until so many batches wait in the server.
async fn until_waiting(watcher: &Connections, batches: i64) {
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'";
    let watcher = watcher.get().await.unwrap();
    loop {
        let row = watcher.query_one(WAITING, &[]).await.unwrap();
        if row.get::<_, i64>(0) >= batches {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_killed_in_mid_batch_fails_that_batch_and_nobody_hangs() {
    let mut server = PostgresServer::start().unwrap();
    let connections = postgres::open(&server.url()).await.unwrap();
    let orders = postgres::orders(&connections).unwrap();
    let before = in_time(write(&orders, 8, 5, &Arc::default())).await;

    let (watcher, blocker) = block(&server.url()).await;
    let held: Vec<i64> = (1_000..1_500).collect();
    let mut submitters = JoinSet::new();
    for &number in &held {
        submitters.spawn(orders.submit_owned(Order::new(number)));
    }
    in_time(until_waiting(&watcher, 1)).await;
    let killed = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let mut server = killed.await.unwrap();
    // Whether their batch was in the server or still to come: there is no server.
    while let Some(ended) = in_time(submitters.join_next()).await {
        let error = ended.unwrap().unwrap_err();
        assert!(matches!(error, SubmitError::Batch(_)), "{error:?}");
    }
    blocker.abort();

    let restarted = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let server = restarted.await.unwrap();
    // Nothing of what was cut off has been committed, and what had been is there.
    let found = table(&server);
    assert_eq!(found.len(), before.len());
    hold_against(&before, &found);
    // The same orders again, through the same batcher.
    let again = in_time(orders.submit_all(held.iter().map(|&number| Order::new(number)))).await;
    let again = held.into_iter().zip(again);
    let again = again.map(|(number, id)| (number, Ok(id.unwrap())));
    let all: Outcomes = before.into_iter().chain(again).collect();
    hold_against(&all, &table(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_postgres_killed_among_many_batches_the_table_holds_what_was_acknowledged() {
    let mut server = PostgresServer::start().unwrap();
    let connections = postgres::open(&server.url()).await.unwrap();
    let orders = postgres::orders(&connections).unwrap();
    let progress = Arc::<Progress>::default();
    let until = async |count: fn(&Progress) -> &AtomicU64, n| {
        while count(&progress).load(Ordering::Relaxed) < n {
            tokio::task::yield_now().await;
        }
    };
    let writing = {
        let (orders, progress) = (orders.clone(), Arc::clone(&progress));
        tokio::spawn(async move { write(&orders, 32, 300, &progress).await })
    };
    in_time(until(|progress| &progress.acknowledged, 500)).await;
    let killed = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let mut server = killed.await.unwrap();
    in_time(until(|progress| &progress.failed, 1)).await;
    // The others go on meanwhile, through the same batcher.
    let restarted = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let server = restarted.await.unwrap();
    let outcomes = in_time(writing).await.unwrap();
    assert_eq!(outcomes.len(), 32 * 300, "somebody was told nothing");
    hold_against(&outcomes, &table(&server));
    // Those who were told of an error try again; who has been written after all keeps the id.
    let erred = outcomes.iter().filter(|(_, outcome)| outcome.is_err());
    let erred: Vec<i64> = erred.map(|(&number, _)| number).collect();
    let again = in_time(orders.submit_all(erred.iter().map(|&number| Order::new(number)))).await;
    let again = erred.into_iter().zip(again);
    let again = again.map(|(number, id)| (number, Ok(id.unwrap())));
    let all: Outcomes = outcomes.clone().into_iter().chain(again).collect();
    let table = table(&server);
    hold_against(&all, &table);
    assert_eq!(table.len(), 32 * 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_never_returns_is_given_up_at_the_deadline_of_the_drain() {
    let server = PostgresServer::start().unwrap();
    let connections = postgres::open(&server.url()).await.unwrap();
    let orders = postgres::orders(&connections).unwrap();
    let (watcher, blocker) = block(&server.url()).await;
    let mut submitters = JoinSet::new();
    for number in 0..200 {
        submitters.spawn(orders.submit_owned(Order::new(number)));
    }
    in_time(until_waiting(&watcher, 1)).await;
    let report = in_time(orders.drain(Duration::ZERO)).await;
    assert!(!report.is_complete(), "{report:?}");
    while let Some(ended) = in_time(submitters.join_next()).await {
        let error = ended.unwrap().unwrap_err();
        let given_up = matches!(error, SubmitError::Abandoned(_) | SubmitError::Closed(_));
        assert!(given_up, "{error:?}");
    }
    // The table is locked no more, and another batcher on the same connections gets through.
    blocker.abort();
    let orders = postgres::orders(&connections).unwrap();
    let id = in_time(orders.submit(Order::new(1_000))).await.unwrap();
    assert_eq!(table(&server).get(&1_000), Some(&id));
}
