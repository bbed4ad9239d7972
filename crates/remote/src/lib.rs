//! Redis connections with a limit on every wait and a circuit breaker: what the `redis` features
//! of the other overdrive crates share. Redis 6 and later, and Valkey.
//!
//! ```
//! # let server = overdrive_testkit::RedisServer::start().unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//! use overdrive_remote::{RedisSettings, Remote};
//!
//! let mut settings = RedisSettings::api();
//! # settings.url = server.url();
//! let remote = Remote::connect(settings).await?;
//! let limit = Duration::from_millis(500);
//! let key = remote.key(&["user", "17"]);
//! remote.set(&key, b"Ada", limit).await?;
//! assert_eq!(remote.get(&key, limit).await?.unwrap(), b"Ada");
//! # Ok::<(), overdrive_remote::RemoteError>(())
//! # }).unwrap();
//! ```
//!
//! # What happens when the server is away
//!
//! | the server | a call |
//! |---|---|
//! | is dead | fails within a round trip with [`RemoteError::Unreachable`] |
//! | hangs | fails at the nearer of its deadline and the settings' limit with [`RemoteError::TimedOut`] |
//! | has not answered so many times in a row | fails at once with [`RemoteError::Open`]; a single call probes once the time is up |
//! | is back | succeeds; dead connections are recognised and replaced |
//!
//! Which limit ends what is said at [`RedisSettings`]. An error *reply*, such as `WRONGTYPE`, is
//! [`RemoteError::Server`]: the server is there, so it counts for nothing.
//!
//! Requests that may be repeated are sent with [`query_idempotent`](Remote::query_idempotent) and
//! retried with jittered waits; [`query`](Remote::query) sends once.
//!
//! # Cost
//! One connection serves one call at a time: a call that is cancelled or times out closes its own
//! connection, and no other call can get its reply. So more than
//! [`pool_size`](RedisSettings::pool_size) calls wait for each other, and requests of different
//! calls do not share packets. Send what belongs together as one [`redis::Pipeline`].
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | `settings` | [`RedisSettings`] and its checks |
//! | `remote` | [`Remote`] |
//! | `engine` | attempts, retries, breaker, upkeep |
//! | `dedicated` | [`Dedicated`], a connection outside of the pool |
//! | `request` | [`Request`]: commands, pipelines, scripts |
//! | `error` | [`RemoteError`] |
//! | `stats` | [`RemoteStats`] |
//! | `key` | escaping of key parts |
//! | `pool` | turns and idle connections |
//! | `connection` | one connection and its driver task |
//! | `stream` | the limit on writes |
//!
//! # Features
//! - `serde`: [`RedisSettings`] in configuration files.
//!
//! Needs a tokio runtime with I/O and time. The minimum Rust version is 1.88, that of the `redis`
//! crate, which is re-exported as [`redis`].

#![forbid(unsafe_code)]

mod connection;
mod dedicated;
mod engine;
mod error;
mod key;
mod pool;
mod remote;
mod request;
mod settings;
mod stats;
mod stream;

pub use overdrive_core::{ConfigError, Deadline, Health};
pub use redis;

pub use crate::dedicated::Dedicated;
pub use crate::error::RemoteError;
pub use crate::remote::Remote;
pub use crate::request::Request;
pub use crate::settings::RedisSettings;
pub use crate::stats::RemoteStats;
