//! The loader on tokio after a quiet time.
#![cfg(feature = "tokio")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use overdrive_batch::Loader;

/// What a loader is for: N tasks that each load one key are one query.
#[test]
fn fifty_loads_after_lone_ones_are_one_call() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&calls);
    let burst = runtime.block_on(async move {
        tokio::spawn(async move {
            let count = Arc::clone(&own);
            let loader = Loader::builder()
                .build(move |keys: Vec<u64>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    async move {
                        // As a query would.
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(keys.into_iter().map(Some).collect::<Vec<_>>())
                    }
                })
                .unwrap();
            let mut bursts = Vec::new();
            for lone in [0, 20] {
                for n in 0..lone {
                    loader.load(n).await.unwrap();
                }
                let before = own.load(Ordering::SeqCst);
                let loads: Vec<_> = (0..50)
                    .map(|n| {
                        let loader = loader.clone();
                        tokio::spawn(async move { loader.load(n).await })
                    })
                    .collect();
                for load in loads {
                    load.await.unwrap().unwrap();
                }
                bursts.push(own.load(Ordering::SeqCst) - before);
            }
            bursts
        })
        .await
        .unwrap()
    });
    assert_eq!(
        burst,
        [1, 1],
        "calls for fifty loads: fresh, and after twenty lone ones"
    );
}
