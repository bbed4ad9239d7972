//! A cache that panics while another party clears a key.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use overdrive_batch::{LoadCache, Loader};

type Loads = Loader<u32, &'static str>;

/// A map; another party clears key 1 just as the loader is about to put it in.
#[derive(Default)]
struct Cache {
    map: Mutex<HashMap<u32, &'static str>>,
    loader: OnceLock<Loads>,
    cleared: AtomicBool,
    /// What a load finds after the other party's `clear` has returned.
    found: Mutex<Option<Option<&'static str>>>,
    panics: bool,
}

impl LoadCache<u32, &'static str> for Cache {
    fn get(&self, key: &u32) -> Option<&'static str> {
        self.map.lock().unwrap().get(key).copied()
    }

    fn insert(&self, key: u32, value: &'static str) {
        if key == 2 && self.panics {
            panic!("no room");
        }
        if key == 1 && !self.cleared.swap(true, Ordering::SeqCst) {
            self.loader.get().unwrap().clear(&1);
            self.map.lock().unwrap().insert(key, value);
            *self.found.lock().unwrap() = Some(self.get(&1));
            return;
        }
        self.map.lock().unwrap().insert(key, value);
    }

    fn remove(&self, key: &u32) {
        self.map.lock().unwrap().remove(key);
    }
}

fn run(panics: bool) -> (Loads, Arc<Cache>) {
    let cache = Arc::new(Cache {
        panics,
        ..Cache::default()
    });
    let loader = Loader::builder()
        .cache(Arc::clone(&cache))
        .workers(1)
        .build_sync(|keys: Vec<u32>| {
            Ok::<_, Infallible>(keys.iter().map(|_| Some("old")).collect::<Vec<_>>())
        })
        .unwrap();
    cache.loader.set(loader.clone()).unwrap();
    loader.load_many_blocking([1, 2]);
    (loader, cache)
}

#[test]
fn what_was_cleared_is_not_put_back_for_good_by_a_cache_that_panics() {
    let (_loader, cache) = run(true);
    assert_eq!(cache.get(&1), None, "what was read before `clear` stays");
}
