//! Batches of appends, each judged for itself, on real databases.

#[path = "../examples/event_store/account.rs"]
mod account;
#[path = "../examples/event_store/append.rs"]
mod append;
#[path = "../examples/event_store/postgres.rs"]
mod postgres;
#[path = "../examples/event_store/sqlite.rs"]
mod sqlite;

use std::future::Future;
use std::time::Duration;

use overdrive_testkit::PostgresServer;
use tokio::task::JoinSet;

use crate::account::{Account, Event};
use crate::append::{Append, Conflict};
use crate::postgres::Store;

/// Nobody hangs: what takes longer than anything could fails the test.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(60), future).await;
    answer.expect("somebody hangs")
}

fn deposit(aggregate: i64, expected: i64, events: i64) -> Append {
    Append {
        aggregate,
        expected,
        events: (0..events).map(|_| Event::Deposited { cents: 1 }).collect(),
    }
}

fn deposited(events: i64) -> Account {
    Account {
        version: events,
        cents: events,
    }
}

/// Of one batch: in time, too late, in time by what the first made, in time elsewhere.
fn mixed() -> [Append; 4] {
    [
        deposit(1, 0, 2),
        deposit(1, 0, 5),
        deposit(1, 2, 1),
        deposit(2, 0, 1),
    ]
}

const TOO_LATE: Conflict = Conflict {
    aggregate: 1,
    expected: 0,
    actual: 2,
};

// On one thread, where no batch begins before all have been submitted.
#[tokio::test]
async fn a_stale_version_fails_its_own_writer_and_nobody_else_in_the_batch() {
    let server = PostgresServer::start().unwrap();
    let store = Store::open(&server.url()).await.unwrap();
    let outcomes = in_time(store.appends().submit_all(mixed())).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Ok(2), Err(TOO_LATE), Ok(3), Ok(1)]);
    assert_eq!(store.appends().stats().batches, 1);
    assert_eq!(store.account(1).await.unwrap(), deposited(3));
    assert_eq!(store.account(2).await.unwrap(), deposited(1));
    // Nor a version that is yet to come.
    let early = in_time(store.appends().submit(deposit(1, 9, 1)))
        .await
        .unwrap();
    assert_eq!(early.unwrap_err().actual, 3);
    assert_eq!(store.account(3).await.unwrap(), Account::default());
}

#[tokio::test]
async fn a_stale_version_fails_its_own_writer_in_sqlite_too() {
    let folder = std::env::temp_dir().join(format!("overdrive-event-test-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("events");
    let appends = sqlite::appends(sqlite::open(&file).unwrap()).unwrap();
    let outcomes = in_time(appends.submit_all(mixed())).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Ok(2), Err(TOO_LATE), Ok(3), Ok(1)]);
    let reader = sqlite::open(&file).unwrap();
    assert_eq!(sqlite::account(&reader, 1).unwrap(), deposited(3));
    assert_eq!(sqlite::account(&reader, 2).unwrap(), deposited(1));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_of_a_thousand_events_is_rebuilt() {
    let server = PostgresServer::start().unwrap();
    let store = Store::open(&server.url()).await.unwrap();
    let mut expected = Account::default();
    for n in 0..100 {
        let events: Vec<Event> = (0..10)
            .map(|i| match i % 3 {
                0 => Event::Withdrawn { cents: n },
                _ => Event::Deposited { cents: n * 10 + i },
            })
            .collect();
        let append = Append {
            aggregate: 1,
            expected: expected.version,
            events: events.clone(),
        };
        expected = events.into_iter().fold(expected, Account::apply);
        let version = in_time(store.appends().submit(append)).await.unwrap();
        assert_eq!(version, Ok(expected.version));
    }
    assert_eq!(expected.version, 1_000);
    assert_eq!(store.account(1).await.unwrap(), expected);
}

/// Appends one event at a time until so many of its own are there; how often it came too late.
async fn insist(store: &Store, aggregate: i64, events: i64) -> u64 {
    let (mut expected, mut conflicts) = (0, 0);
    for _ in 0..events {
        loop {
            let append = deposit(aggregate, expected, 1);
            match store.appends().submit(append).await.unwrap() {
                Ok(version) => {
                    expected = version;
                    break;
                }
                Err(conflict) => expected = conflict.actual,
            }
            conflicts += 1;
        }
    }
    conflicts
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_database_lose_no_append_and_make_none_twice() {
    let server = PostgresServer::start().unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..2 {
        let store = Store::open(&server.url()).await.unwrap();
        for writer in 0..12 {
            let store = store.clone();
            writers.spawn(async move { insist(&store, writer % 3, 10).await });
        }
    }
    in_time(writers.join_all()).await;
    let store = Store::open(&server.url()).await.unwrap();
    for aggregate in 0..3 {
        // Eight writers each; their primary key has kept every version unique.
        assert_eq!(store.account(aggregate).await.unwrap(), deposited(80));
        let events = store.events(aggregate).await.unwrap();
        assert_eq!(events.len(), 80);
    }
    let heads = server.sql("SELECT id, version FROM aggregates ORDER BY id");
    assert_eq!(heads.unwrap(), "0|80\n1|80\n2|80");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_killed_among_appends_leaves_whole_histories() {
    let mut server = PostgresServer::start().unwrap();
    let store = Store::open(&server.url()).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            // Three events at a time, until the first error.
            let mut acknowledged = 0;
            while let Ok(Ok(version)) = store
                .appends()
                .submit(deposit(writer, acknowledged, 3))
                .await
            {
                acknowledged = version;
            }
            (writer, acknowledged)
        });
    }
    while store.appends().stats().completed < 200 {
        tokio::task::yield_now().await;
    }
    let ended = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let mut server = ended.await.unwrap();
    let writers = in_time(writers.join_all()).await;
    let restarted = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let _server = restarted.await.unwrap();
    for (aggregate, acknowledged) in writers {
        let account = store.account(aggregate).await.unwrap();
        // All that was acknowledged, or that and the append that was cut off after its commit.
        let whole = [acknowledged, acknowledged + 3];
        assert!(
            whole.contains(&account.version),
            "{account:?}, {acknowledged} acknowledged"
        );
        let next = store
            .appends()
            .submit(deposit(aggregate, account.version, 1))
            .await;
        assert_eq!(next.unwrap(), Ok(account.version + 1));
    }
}
