//! The tests of the fence and of shared making, with and without the guard that they test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use overdrive_testkit::Gate;
use overdrive_testkit::control::{Guard, guarded};

use crate::Cache;

/// What a control takes out.
#[derive(Clone, Copy)]
pub(crate) struct Guards {
    /// What was begun before an invalidation is not stored after it.
    pub(crate) fence: Guard,
    /// Who asks for what is being made waits for it.
    pub(crate) sharing: Guard,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            fence: Guard::InPlace,
            sharing: Guard::InPlace,
        }
    }
}

fn is<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    let fault = || format!("{found:?} instead of {expected:?}");
    (found == expected).then_some(()).ok_or_else(fault)
}

#[test]
fn a_value_made_before_a_removal_is_stored_only_without_the_fence() {
    guarded(1, |guard| {
        let cache = Cache::builder().max_entries(1).build().unwrap();
        cache.inner.shards[0].state.write().guards.fence = guard;
        cache.get_or_insert_with(1, || {
            assert_eq!(cache.remove(&1), None);
            "old"
        });
        is(cache.get(&1), None)
    });
}

#[test]
fn a_value_is_made_twice_only_without_sharing() {
    guarded(1, |guard| {
        let cache = Cache::builder().max_entries(1).build().unwrap();
        cache.inner.shards[0].state.write().guards.sharing = guard;
        let (gate, calls) = (Gate::new(), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                cache.get_or_insert_with(1, || {
                    gate.pass();
                    calls.fetch_add(1, Ordering::SeqCst)
                })
            });
            gate.wait_for(1);
            let ask = || cache.get_or_insert_with(1, || calls.fetch_add(1, Ordering::SeqCst));
            if guard.is_in_place() {
                scope.spawn(ask);
            } else {
                ask();
            }
            gate.open();
        });
        is(calls.into_inner(), 1)
    });
}

#[cfg(feature = "tokio")]
mod tiered {
    use std::future::Future;
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;
    use crate::{EntryOptions, TieredCache};

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(test)
    }

    async fn load(cache: TieredCache<u8, u8>, gate: Arc<Semaphore>) {
        let load = || async move {
            gate.acquire().await.unwrap().forget();
            Ok::<_, ()>(1)
        };
        let loaded = cache.load_with(&1, EntryOptions::new().tag("t"), load);
        assert_eq!(*loaded.await.unwrap(), 1);
    }

    fn cache(guards: Guards) -> (TieredCache<u8, u8>, Arc<Semaphore>) {
        let cache = TieredCache::builder().max_entries(1).build().unwrap();
        cache.inner.control().guards = guards;
        (cache, Arc::new(Semaphore::new(0)))
    }

    #[test]
    fn a_load_begun_before_an_invalidation_is_stored_only_without_the_fence() {
        for what in ["key", "tag", "all"] {
            let test = async |fence| {
                let sharing = Guard::InPlace;
                let (cache, gate) = cache(Guards { fence, sharing });
                let loading = tokio::spawn(load(cache.clone(), Arc::clone(&gate)));
                while cache.stats().loads == 0 {
                    yield_now().await;
                }
                let changed = match what {
                    "key" => cache.invalidate(&1).await,
                    "tag" => cache.invalidate_tag("t").await,
                    _ => cache.clear().await,
                };
                changed.unwrap();
                gate.add_permits(1);
                loading.await.unwrap();
                is(cache.get_local(&1), None)
            };
            guarded(1, |fence| run(test(fence)));
        }
    }

    #[test]
    fn a_value_is_loaded_twice_only_without_sharing() {
        let test = async |sharing| {
            let fence = Guard::InPlace;
            let (cache, gate) = cache(Guards { fence, sharing });
            let two: Vec<_> = (0..2)
                .map(|_| tokio::spawn(load(cache.clone(), Arc::clone(&gate))))
                .collect();
            while cache.stats().loads + cache.stats().joined < 2 {
                yield_now().await;
            }
            gate.add_permits(2);
            for loading in two {
                loading.await.unwrap();
            }
            is(cache.stats().loads, 1)
        };
        guarded(1, |sharing| run(test(sharing)));
    }
}
