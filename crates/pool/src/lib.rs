//! Object pools with a per-thread fast path, a strict bound on what they retain, and ways to give
//! memory back.
//!
//! ```
//! use overdrive_pool::{Keep, Pool};
//!
//! let buffers = Pool::builder()
//!     .name("bodies")
//!     .factory(|| Vec::<u8>::with_capacity(4096))
//!     .reset(|buffer| {
//!         buffer.clear();
//!         Keep::Yes
//!     })
//!     .build()?;
//!
//! let mut body = buffers.get();       // an idle buffer, or a new one
//! body.extend_from_slice(b"hello");
//! drop(body);                         // cleared, and idle again
//!
//! assert_eq!(buffers.stats().idle(), 1);
//! # Ok::<(), overdrive_pool::ConfigError>(())
//! ```
//!
//! # When to use it, and when not
//!
//! Use it for objects that are expensive to make or to grow: buffers of a kilobyte and more,
//! parsers and encoders with tables, scratch collections. With a reset that refuses oversized
//! objects it keeps one large request from pinning memory for good.
//!
//! | your case | use instead |
//! |---|---|
//! | small plain objects, a few hundred bytes | a good allocator; it is about as fast, and simpler |
//! | connections, with a limit on how many are open and callers that wait | a resource pool; this one never waits and does not bound what is in use |
//! | objects that stay on one thread | a `thread_local!` vector |
//! | many short-lived allocations that end together | an arena, such as `bumpalo` |
//! | `!Send` objects | a `thread_local!` vector; this pool moves objects between threads |
//!
//! # How it works
//!
//! Each object is one box, made once; it does not move while the pool has it. A thread that uses a
//! pool gets a small cache of its own, which nobody else touches, so that a get and a drop of the
//! guard are a handful of plain loads and stores: no atomic read-modify-write, no lock, no fence.
//! Behind the caches is one depot with a lock, reached once per half a cache. An object that is
//! dropped on another thread simply joins that thread's cache. When a thread ends, its cache goes
//! to the depot.
//!
//! The bound [`max_idle`](PoolBuilder::max_idle) counts everything idle, wherever it is: a
//! thread's cache sets its capacity aside from it. Nothing is ever handed to a background thread,
//! unless you ask for one with [`idle_timeout`](PoolBuilder::idle_timeout).
//!
//! A cache belongs to its thread, so a trim cannot reach into it. It asks: the thread complies at
//! its next operation on that pool that takes or returns an object. A thread that never comes back
//! to the pool keeps its few objects until it ends. [Shared mode](PoolBuilder::local_cache) has no
//! caches.
//!
//! # Settings to think about
//!
//! - Objects that own memory elsewhere (a `Vec<u8>`, a `String`, a parser): the default cache
//!   counts `size_of::<T>()` only. Of `Vec<u8>` with 4 KiB each it holds 128, that is 512 KiB per
//!   thread. Set [`local_cache`](PoolBuilder::local_cache), and a
//!   [`weigher`](PoolBuilder::weigher), without which `trim_to` takes each for 24 bytes.
//! - Many threads: half of `max_idle` is there for caches, so `max_idle / 2 / local_cache` threads
//!   have one. The others go through the lock until a thread with a cache ends. For `n` threads,
//!   [`max_idle`](PoolBuilder::max_idle) should be `2 * n * local_cache` or more; if that would
//!   retain too much, lower `local_cache`.
//! - Large plain objects: the factory returns them by value, over the stack. Pool a `Vec<u8>` or a
//!   `Box<[u8]>` instead of a large array.
//!
//! # Cost
//!
//! | operation | work | allocations |
//! |---|---|---|
//! | `get`, object in this thread's cache | loads and stores on this thread's lines | 0 |
//! | `get`, from the depot | the lock, and a copy of up to half a cache of pointers | 0 |
//! | `get`, nothing idle | the lock, and the factory | 1, plus the factory's |
//! | drop of a guard | the reset, then as `get`; one free if the object is not kept | 0 |
//! | `get_owned` | as `get`, and an atomic increment and decrement of a reference count | 0 |
//! | first use by a thread | the lock, and the making of its cache and its exit hook | 3 |
//! | `stats` | the lock, and a visit to each thread's cache | 0 |
//! | `trim`, `trim_to`, `trim_idle` | the lock, under which `trim_to` and `trim_idle` move pointers, linear in the depot; weigher and destructors outside of it | O(1) |
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | `pool` | [`Pool`], [`Keep`] |
//! | `builder` | [`PoolBuilder`] and its checks |
//! | `guard` | [`Pooled`], [`OwnedPooled`]; unsafe |
//! | `settings` | [`PoolSettings`] |
//! | `static_pool` | [`StaticPool`] |
//! | `stats` | [`PoolStats`], [`TrimReport`], and what is counted |
//! | `engine` | the fast path, the slow paths, the end of a thread |
//! | `local` | a thread's cache and the way to it; unsafe |
//! | `depot` | the shared stack, the budget, the calls on thread caches |
//! | `take_back` | the reset and the return as one call |
//! | `trim` | giving memory back |
//! | `idle` | the clean-up thread |
//! | `sync` | the switch between std and loom |

mod builder;
mod depot;
mod engine;
mod guard;
mod idle;
mod local;
#[cfg(all(test, overdrive_loom))]
mod models;
mod pool;
mod settings;
mod static_pool;
mod stats;
mod sync;
mod take_back;
mod trim;

pub use overdrive_core::ConfigError;

pub use crate::builder::{DEFAULT_MAX_IDLE, MAX_LOCAL_CACHE, MAX_MAX_IDLE, PoolBuilder};
pub use crate::guard::{OwnedPooled, Pooled};
pub use crate::pool::{Keep, Pool};
pub use crate::settings::PoolSettings;
pub use crate::static_pool::StaticPool;
pub use crate::stats::{PoolStats, TrimReport};
