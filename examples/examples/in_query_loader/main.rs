//! The N+1 problem: each of many posts looks up its author, in code that knows nothing of the
//! others, and the database sees a few statements.
//!
//! ```console
//! $ cargo run --release -p overdrive-examples --example in_query_loader
//! $ cargo run --release -p overdrive-examples --example in_query_loader -- postgres://postgres@127.0.0.1/postgres
//! ```
//!
//! Without a URL it starts a PostgreSQL of its own.

mod loader;

use std::error::Error;

use overdrive_testkit::PostgresServer;
use tokio::task::JoinSet;

const POSTS: i64 = 1_000;
const AUTHORS: i64 = 40;

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
    let connections = loader::open(&url, AUTHORS).await?;
    let authors = loader::authors(&connections)?;
    let mut posts = JoinSet::new();
    for post in 0..POSTS {
        let authors = authors.clone();
        posts.spawn(async move {
            // Every fiftieth post is by nobody.
            let author = if post % 50 == 0 {
                0
            } else {
                post % AUTHORS + 1
            };
            authors.submit(author).await
        });
    }
    let (mut known, mut unknown) = (0, 0);
    while let Some(author) = posts.join_next().await {
        match author?.map_err(|error| error.to_string())? {
            Some(author) => known += i64::from(author.name == format!("author {}", author.id)),
            None => unknown += 1,
        }
    }
    println!(
        "{POSTS} posts by {AUTHORS} authors: {known} found theirs, {unknown} have none, \
         in {} statements instead of {POSTS}",
        authors.stats().batches
    );
    Ok(())
}
