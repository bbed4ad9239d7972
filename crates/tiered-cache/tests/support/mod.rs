//! A second tier in memory that can be held and broken.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overdrive_tiered_cache::{
    Codec, Deadline, Found, SecondTier, Stored, TierError, TieredCache, TieredCacheBuilder,
    codec_of,
};
use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mode {
    #[default]
    Up,
    Down,
    Hangs,
}

#[derive(Clone, Default)]
pub(crate) struct MapTier(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) map: HashMap<Vec<u8>, Stored>,
    pub(crate) tags: HashMap<String, u64>,
    pub(crate) mode: Mode,
    pub(crate) gets: usize,
    /// Reads wait here once they have their answer.
    pub(crate) hold: Option<Arc<Semaphore>>,
    /// The other calls so far, by name.
    pub(crate) calls: HashMap<&'static str, usize>,
    /// They wait here before they take effect.
    pub(crate) stops: HashMap<&'static str, Arc<Semaphore>>,
    last: u64,
}

impl MapTier {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.with(|state| state.mode = mode);
    }

    pub(crate) fn stop(&self, call: &'static str) -> Arc<Semaphore> {
        let stop = Arc::new(Semaphore::new(0));
        self.with(|state| state.stops.insert(call, Arc::clone(&stop)));
        stop
    }

    pub(crate) fn calls(&self, call: &'static str) -> usize {
        self.with(|state| state.calls.get(call).copied().unwrap_or_default())
    }

    async fn call<T>(
        &self,
        name: &'static str,
        f: impl FnOnce(&mut State) -> T,
    ) -> Result<T, TierError> {
        let stop = self.with(|state| {
            *state.calls.entry(name).or_default() += 1;
            state.stops.get(name).cloned()
        });
        if let Some(stop) = stop {
            stop.acquire().await.unwrap().forget();
        }
        self.answer(f).await
    }

    async fn answer<T>(&self, f: impl FnOnce(&mut State) -> T) -> Result<T, TierError> {
        match self.with(|state| state.mode) {
            Mode::Up => Ok(self.with(f)),
            Mode::Down => Err(TierError::failed("it is down")),
            Mode::Hangs => std::future::pending().await,
        }
    }
}

impl SecondTier for MapTier {
    async fn get(&self, key: &[u8], tags: &[&str], _: Deadline) -> Result<Found, TierError> {
        let found = self.answer(|state| {
            state.gets += 1;
            Found {
                stored: state.map.get(key).cloned(),
                versions: tags
                    .iter()
                    .map(|tag| state.tags.get(*tag).copied())
                    .collect(),
            }
        });
        let found = found.await;
        if let Some(hold) = self.with(|state| state.hold.clone()) {
            hold.acquire().await.unwrap().forget();
        }
        found
    }

    async fn set(
        &self,
        key: &[u8],
        bytes: &[u8],
        remaining: Option<Duration>,
        _: Deadline,
    ) -> Result<(), TierError> {
        let bytes = bytes.to_vec();
        let stored = Stored { bytes, remaining };
        let put = |state: &mut State| drop(state.map.insert(key.to_vec(), stored));
        self.call("set", put).await
    }

    async fn remove(&self, key: &[u8], _: Deadline) -> Result<(), TierError> {
        let remove = |state: &mut State| drop(state.map.remove(key));
        self.call("remove", remove).await
    }

    async fn versions(&self, tags: &[&str], _: Deadline) -> Result<Vec<u64>, TierError> {
        let version = |state: &mut State, tag: &str| {
            state.last += 1;
            let new = state.last;
            *state.tags.entry(tag.to_owned()).or_insert(new)
        };
        let versions = |state: &mut State| tags.iter().map(|tag| version(state, tag)).collect();
        self.call("versions", versions).await
    }

    async fn bump(&self, tag: &str, _: Deadline) -> Result<(), TierError> {
        let bump = |state: &mut State| {
            state.last += 1;
            state.tags.insert(tag.to_owned(), state.last);
        };
        self.call("bump", bump).await
    }
}

pub(crate) fn text(schema: u32) -> impl Codec<String> {
    codec_of(
        schema,
        |text: &String, out: &mut Vec<u8>| {
            if text == "unspeakable" {
                return Err("it cannot be encoded".into());
            }
            out.extend_from_slice(text.as_bytes());
            Ok(())
        },
        |bytes: &[u8]| Ok(String::from_utf8(bytes.to_vec())?),
    )
}

pub(crate) type Texts = TieredCache<u64, String>;

pub(crate) fn local() -> TieredCacheBuilder<u64, String> {
    TieredCache::builder().max_entries(1_000)
}

pub(crate) fn over(tier: impl SecondTier) -> TieredCacheBuilder<u64, String> {
    local().second_tier(tier).codec(text(1))
}

/// Lets the other tasks run until it holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}
