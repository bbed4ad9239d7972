//! A cache in tiers: request scope, memory, a remote store, and a loader that runs once.
//!
//! [`Cache`] is the memory tier alone: synchronous, without a runtime.
//!
//! ```
//! use std::time::Duration;
//! use overdrive_tiered_cache::{Cache, EntryOptions};
//!
//! let pages = Cache::builder()
//!     .max_entries(10_000)
//!     .ttl(Duration::from_secs(300))
//!     .build()?;
//! pages.insert_with("/", "welcome".to_owned(), EntryOptions::new().tag("static"))?;
//! assert_eq!(pages.get("/").as_deref(), Some("welcome"));
//! pages.invalidate_tag("static");
//! assert_eq!(pages.get("/"), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `TieredCache` (feature `tokio`) puts it before a `SecondTier` that several
//! processes share and a loader, and adds `RequestScope` in front.
//!
//! # Rules
//!
//! | case | rule |
//! |---|---|
//! | many ask for what is not there | one makes it; the others wait for it |
//! | an invalidation or insertion while a value is loaded | the value goes to its callers, and is not stored |
//! | of a tag, while a [`Reservation`] is held whose value will have it | the same, but who asks after it waits for that value too: its tags are not known before it |
//! | the second tier is away, on a read | counted apart from misses; a `get` is an error, a `load` goes on to the loader |
//! | on a write | the value is in memory, and the answer says so |
//! | on an invalidation | memory is done, and the answer is an error |
//! | a hit in the second tier | kept in memory for what is left of its life at most |
//! | nothing fits in | a bound of zero is an error of `build`; a value heavier than the bound comes back |
//! | a value gets older than `refresh_after` | one caller makes a new one, the others get the old one |
//! | the clock goes back | lives get longer by as much |
//! | a life of zero | not stored, and what is there removed |
//! | a value too large for a tier | not in that tier, and what is there removed |
//! | damaged or foreign data in the second tier, another schema | a miss, counted |
//! | the loader fails | its error to all who wait, or a stale value if that is allowed, and still is by then |
//!
//! # Cost
//! The memory tier is in shards with a lock each. A hit takes its shard's lock for reading and
//! clones the value; an insertion takes it for writing, and evicts one entry once all is full. No
//! thread is started, nothing is put off: an operation's work is done when it returns. Tags are an
//! index, and their invalidation is linear in the entries that have them.
//!
//! Not here: word from one process to the memory of another (they are behind by `local_ttl` at
//! most), one loader for several processes, refreshing before expiry, retrying failed writes to
//! the second tier.
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | `cache` | [`Cache`] |
//! | `builder` | [`CacheBuilder`] and its checks |
//! | `put` | storing, and making room within one bound for all shards |
//! | `change` | [`Cache::update`] and its like: the user's code on copies |
//! | `figures` | what it holds, and has counted |
//! | `reserve`, `flight` | values made once: [`Reserve`], [`Pending`] |
//! | `state` | what a shard's lock guards |
//! | `slots` | the entries of a shard, and which of them goes |
//! | `entry` | an entry in few bytes |
//! | `history` | how often keys came lately, and which were turned away |
//! | `index` | from hashes to slots |
//! | `line` | a line of memory, looked at at once, and fetched ahead |
//! | `lock` | a lock whose readers leave by a plain store |
//! | `budget` | the bound, and how much of it is taken |
//! | `tally` | hits and misses, counted without a shared write |
//! | `table` | a map with hashes computed outside of locks |
//! | `garbage` | [`Cause`]; what is told and dropped once no lock is held |
//! | `filter` | `KeyFilter`, keys known to be absent |
//! | `options`, `settings`, `stats`, `rejected` | [`EntryOptions`], [`Ttl`]; [`CacheSettings`]; [`CacheStats`]; [`Rejected`] |
//! | `tiered` | `TieredCache` |
//! | `tiered::control` | the fence, and loads under way |
//! | `tiered::load` | a load, in a task of its own |
//! | `tiered::inner` | moving values into and out of memory behind the fence |
//! | `tiered::reach`, `envelope` | reading and writing the second tier |
//! | `tiered::second`, `codec` | `SecondTier`; `Codec`, `CacheKey` |
//! | `tiered::scope` | `RequestScope` |
//! | `redis` | `RedisTier` |
//!
//! # Features
//! - `bloom`: `KeyFilter`.
//! - `tokio`: `TieredCache` and all that belongs to it.
//! - `redis`: `RedisTier`, a second tier over Redis; needs Rust 1.88. Implies `tokio`.
//! - `serde`: settings in configuration files, and `JsonCodec`.

#![deny(unsafe_code)]

mod budget;
mod builder;
mod cache;
mod change;
#[cfg(test)]
mod controls;
mod entry;
mod figures;
#[cfg(feature = "bloom")]
mod filter;
mod flight;
mod garbage;
mod history;
mod index;
mod line;
mod lock;
mod options;
mod put;
#[cfg(feature = "redis")]
mod redis;
mod rejected;
mod reserve;
mod settings;
mod slots;
mod state;
mod stats;
#[cfg(all(test, overdrive_shuttle))]
mod storms;
mod sync;
mod table;
mod tally;
#[cfg(feature = "tokio")]
mod tiered;

pub use overdrive_core::{Clock, ConfigError};
#[cfg(feature = "tokio")]
pub use overdrive_core::{Deadline, DrainReport, Health};

pub use crate::builder::{CacheBuilder, MAX_MAX_ENTRIES, MAX_SHARDS, MAX_TIME};
pub use crate::cache::{Cache, Lookup};
pub use crate::change::Iter;
#[cfg(feature = "bloom")]
pub use crate::filter::{KeyFilter, KeyFilterBuilder, KeyFilterStats, MAX_FILTER_KEYS, Rebuild};
pub use crate::flight::Pending;
pub use crate::garbage::Cause;
pub use crate::options::{EntryOptions, Ttl};
#[cfg(feature = "redis")]
pub use crate::redis::RedisTier;
pub use crate::rejected::Rejected;
pub use crate::reserve::{Reservation, Reserve};
pub use crate::settings::CacheSettings;
pub use crate::stats::CacheStats;
#[cfg(all(feature = "tokio", feature = "serde"))]
pub use crate::tiered::JsonCodec;
#[cfg(feature = "tokio")]
pub use crate::tiered::{
    CacheError, CacheKey, Codec, CodecError, Found, Hit, InsertError, InvalidateError, LoadError,
    RequestScope, SecondTier, SecondTierWrite, Stored, Tier, TierError, TieredCache,
    TieredCacheBuilder, TieredCacheSettings, TieredCacheStats, Written, codec_of,
};
#[cfg(feature = "redis")]
pub use overdrive_remote::{RedisSettings, Remote, RemoteError};
