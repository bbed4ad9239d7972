//! Looking rows up by their ids: many who each want one, one statement for all.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use overdrive::batch::{Batcher, ConfigError};
use overdrive_examples::Connections;
use tokio_postgres::Error;
use tokio_postgres::types::Type;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) id: i64,
    pub(crate) name: String,
}

/// To each id its author, if there is one. Those who ask for the same one share it.
pub(crate) type Authors = Batcher<i64, Option<Arc<Author>>, Error>;

const CONNECTIONS: usize = 2;

pub(crate) fn authors(connections: &Arc<Connections>) -> Result<Authors, ConfigError> {
    let connections = Arc::clone(connections);
    Batcher::builder()
        .name("authors")
        .max_size(500)
        .workers(CONNECTIONS)
        .build(move |ids: Vec<i64>| {
            let connections = Arc::clone(&connections);
            async move { load(&connections, &ids).await }
        })
}

async fn load(connections: &Connections, ids: &[i64]) -> Result<Vec<Option<Arc<Author>>>, Error> {
    const SELECT: &str = "SELECT id, name FROM authors WHERE id = ANY($1::int8[])";
    let distinct: Vec<i64> = BTreeSet::from_iter(ids.iter().copied())
        .into_iter()
        .collect();
    let connection = connections.get().await?;
    let wanted = [(&distinct as _, Type::INT8_ARRAY)];
    let rows = connection.query_typed(SELECT, &wanted).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let (id, name) = (row.try_get(0)?, row.try_get(1)?);
        found.insert(id, Arc::new(Author { id, name }));
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// Makes the table, with so many authors.
pub(crate) async fn open(url: &str, authors: i64) -> Result<Arc<Connections>, Error> {
    const TABLE: &str =
        "CREATE TABLE IF NOT EXISTS authors (id BIGINT PRIMARY KEY, name TEXT NOT NULL)";
    const FILL: &str =
        "INSERT INTO authors SELECT id, 'author ' || id FROM generate_series(1, $1) AS id
        ON CONFLICT DO NOTHING";
    let connections = Connections::new(url, CONNECTIONS)?;
    let connection = connections.get().await?;
    connection.batch_execute(TABLE).await?;
    connection
        .execute_typed(FILL, &[(&authors, Type::INT8)])
        .await?;
    drop(connection);
    Ok(Arc::new(connections))
}
