//! Inserting rows into real databases, each submitter awaiting the id of its row.

mod postgres;
mod seen;
mod sqlite;

use overdrive_bench::Scenario;
use overdrive_bench::results::Role;

use crate::jobs::{ClosedLoop, Limits, Work};
use crate::ours::{self, VERSION};
#[cfg(feature = "batch-peers")]
use crate::peers;
use crate::reference;
use crate::scenarios::version;
use postgres::Postgres;

/// A row to insert.
#[derive(Debug)]
pub(crate) struct Row {
    key: i64,
    body: String,
}

impl Row {
    fn new(n: u64) -> Self {
        Self {
            key: n.cast_signed(),
            body: format!("{n:064}"),
        }
    }
}

pub(crate) fn scenarios() -> [Scenario; 4] {
    [
        postgres(1, 1),
        postgres(16, 4),
        postgres(256, 8),
        sqlite_insert_256(),
    ]
}

fn postgres(tasks: u64, rounds: u64) -> Scenario {
    let id = format!("batch/postgres_insert_{tasks}");
    let about = match tasks {
        1 => "one task inserts a row into PostgreSQL, awaits its id, and so on".to_owned(),
        _ => format!("{tasks} tasks, each inserts a row into PostgreSQL and awaits its id"),
    };
    let scenario = Scenario::time(&id, &about)
        .input("(bigserial, bigint, text of 64 B); four connections; synchronous commit, fsync on")
        .threads(&[2])
        .check_ops(1)
        .slow();
    let limits = Limits {
        max_size: 1_000,
        slots: postgres::CONNECTIONS,
        waits: true,
    };
    let rows = ClosedLoop::new(scenario, tasks, rounds, limits)
        .row(
            Role::Ours,
            "overdrive-batch",
            VERSION,
            ours::standard::<Postgres>,
        )
        .row(Role::Context, "one worker", VERSION, ours::one_worker)
        .row(Role::Context, "linger 100, 5 ms", VERSION, ours::linger_5ms)
        .row(
            Role::Context,
            "linger 100, 100 ms",
            VERSION,
            ours::linger_100ms,
        )
        .row(
            Role::Reference,
            "single-row",
            &version("tokio-postgres"),
            postgres::single_row,
        );
    writers(rows).scenario()
}

fn sqlite_insert_256() -> Scenario {
    let scenario = Scenario::time(
        "batch/sqlite_insert_256",
        "256 tasks, each inserts a row into SQLite and awaits its id",
    )
    .input("(integer, integer, text of 64 B); one writer; write-ahead log, synchronous full")
    .threads(&[2])
    .check_ops(1)
    .slow();
    // SQLite has one writer at a time.
    let limits = Limits {
        max_size: 1_000,
        slots: 1,
        waits: true,
    };
    let rows = ClosedLoop::new(scenario, 256, 8, limits)
        .row(Role::Ours, "overdrive-batch", VERSION, sqlite::ours)
        .row(Role::Context, "async handler", VERSION, ours::standard)
        .row(
            Role::Reference,
            "single-row",
            &version("rusqlite"),
            reference::direct,
        );
    writers(rows).scenario()
}

/// The peers that can write.
fn writers<W: Work>(rows: ClosedLoop<W>) -> ClosedLoop<W> {
    #[cfg(feature = "batch-peers")]
    let rows = peers::timed(Role::Peer, peers::prompt(rows));
    rows
}
