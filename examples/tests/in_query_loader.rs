//! Many look-ups by id, few statements.

#[path = "../examples/in_query_loader/loader.rs"]
mod loader;

use std::sync::Arc;

use overdrive_testkit::PostgresServer;

// On one thread, where no batch begins before all have been submitted.
#[tokio::test]
async fn each_gets_its_own_row_and_equal_ids_share_one() {
    let server = PostgresServer::start().unwrap();
    let connections = loader::open(&server.url(), 40).await.unwrap();
    let authors = loader::authors(&connections).unwrap();
    let ids: Vec<i64> = (0..400).map(|n| n % 50).collect();
    let found = authors.submit_all(ids.iter().copied()).await;
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    for (id, author) in ids.iter().zip(&found) {
        // 0 and those from 41 are nobody.
        let name = (1..=40).contains(id).then(|| format!("author {id}"));
        let own = author
            .as_ref()
            .map(|author| (author.id, author.name.clone()));
        assert_eq!(own, name.map(|name| (*id, name)));
    }
    assert_eq!(authors.stats().batches, 1);
    let (first, again) = (found[1].as_ref().unwrap(), found[51].as_ref().unwrap());
    assert!(Arc::ptr_eq(first, again));
}
