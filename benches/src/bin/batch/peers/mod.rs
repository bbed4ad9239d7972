//! The peers, each driven as its own documentation shows.

mod aint_one;
mod batchly;
mod loader;
mod scuffle;
mod streams;
pub(crate) mod threads;
mod tower;
mod ultra;

use std::time::Duration;

use overdrive_bench::results::Role;

use crate::jobs::{ClosedLoop, Cost, Noop, Work};
use crate::scenarios::version;

/// The shortest that tokio's timer can wait, for those who cannot do without.
const SHORTEST: Duration = Duration::from_millis(1);

/// Those who do not wait for a time when there is little to do.
pub(crate) fn prompt<W: Work>(rows: ClosedLoop<W>) -> ClosedLoop<W> {
    rows.row(
        Role::Peer,
        "batch-aint-one",
        &version("batch-aint-one"),
        aint_one::new,
    )
    .row(
        Role::Peer,
        "benjamin_batchly",
        &version("benjamin_batchly"),
        batchly::new,
    )
    .row(
        Role::Peer,
        "futures ready_chunks",
        &version("futures-util"),
        streams::ready_chunks,
    )
}

/// Those who wait for a full batch, or for a time.
pub(crate) fn timed<W: Work>(role: Role, rows: ClosedLoop<W>) -> ClosedLoop<W> {
    let name = |name: &str| match role {
        Role::Context => format!("{name} 1 ms"),
        _ => name.to_owned(),
    };
    rows.row(
        role,
        &name("tokio chunks_timeout"),
        &version("tokio-stream"),
        streams::chunks_timeout,
    )
    .row(
        role,
        &name("scuffle-batching"),
        &version("scuffle-batching"),
        scuffle::new,
    )
    .row(
        role,
        &name("tower-batch-control"),
        &version("tower-batch-control"),
        tower::new,
    )
    .row(
        role,
        &name("ultra-batch"),
        &version("ultra-batch"),
        ultra::new,
    )
}

/// Those who cannot be given equal items twice.
pub(crate) fn loaders<C: Cost>(rows: ClosedLoop<C>) -> ClosedLoop<C> {
    rows.row(
        Role::Peer,
        "dataloader",
        &version("dataloader"),
        loader::new,
    )
}

/// Those who load values by key, each key of a batch once.
pub(crate) fn by_key(rows: ClosedLoop<Noop>) -> ClosedLoop<Noop> {
    loaders(rows).row(
        Role::Peer,
        "scuffle-batching",
        &version("scuffle-batching"),
        scuffle::loader,
    )
}

/// Those of [`timed`] and [`loaders`] that can be set not to wait.
pub(crate) fn without_delay<C: Cost>(rows: ClosedLoop<C>) -> ClosedLoop<C> {
    rows.row(
        Role::Peer,
        "ultra-batch",
        &version("ultra-batch"),
        ultra::without_delay,
    )
    .row(
        Role::Peer,
        "dataloader",
        &version("dataloader"),
        loader::without_yields,
    )
}
