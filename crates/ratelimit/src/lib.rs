//! Rate limiters and concurrency limits: how often, and how many at once.
//!
//! ```
//! use overdrive_ratelimit::{ConcurrencyLimit, KeyedLimiter, Quota, RateLimiter};
//!
//! // At the door: what one customer may do, and what all of them together may have in work.
//! let customers = KeyedLimiter::<u64>::builder().quota(Quota::per_second(50)).build()?;
//! let in_work = ConcurrencyLimit::builder().limit(200).name("requests").build()?;
//! // Towards a service that allows ten calls a second, a hundred at once.
//! let calls = RateLimiter::builder().quota(Quota::per_second(10).burst(100)).build()?;
//!
//! customers.check(&4711)?;
//! let permit = in_work.try_acquire()?;
//! calls.wait_blocking()?;
//! drop(permit);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | type | answers |
//! |---|---|
//! | [`RateLimiter`] | may I, now? `check`; until I may: `wait`; from when on: `reserve` |
//! | [`LeasedLimiter`] | the same for many threads at once, each with a batch of tokens |
//! | [`KeyedLimiter`] | may this one, now? in memory of a fixed size |
//! | [`ExactKeyedLimiter`] | the same with quotas of their own for some |
//! | [`All`] | do several limits allow it? all are charged, or none |
//! | [`SlidingLog`], [`SlidingWindow`] | so many within any window, exactly or about |
//! | [`ConcurrencyLimit`] | is there room for one more? `try_acquire`, `acquire`; fair to those with many requests and few |
//! | [`AdaptiveLimit`] | the same, with a limit that follows what the service can take |
//!
//! A refusal says when to come back ([`Denied::retry_after`]), and [`Snapshot`] has the figures
//! of HTTP's `RateLimit` header fields.
//!
//! # Features
//! - `tokio`: `RateLimiter::wait`, `wait_n` and `wait_timeout`, which need a timer. Without it
//!   there is `wait_blocking`.
//! - `governor`: a [`Quota`] from one of the crate `governor`, and `BoundedStore`, a state store of a
//!   fixed size for its keyed limiters.
//! - `metrics`: `report_metrics` on every limiter, for the recorder of the crate `metrics`.
//! - `redis`: limits that several processes share (module `redis`), with leases and a policy for
//!   when the server is away. Includes `tokio`; needs Rust 1.88, the minimum of the Redis client.
//! - `tower`: layers for HTTP services (module `http`), with the client's address as key.
//! - `serde`: [`Quota`] and [`ConcurrencySettings`] in configuration files.
//!
//! No threads (a task of the runtime for each limiter with leases over Redis), and one line of unsafe
//! code, which reads the processor's counter. The one thing that all limiters of a process share is
//! the [`TscClock`].

#![deny(unsafe_code)]

mod adaptive;
mod all;
mod cell;
mod concurrency;
mod concurrency_builder;
mod counter;
mod counts;
mod drain;
mod error;
mod exact;
mod fifo;
#[cfg(feature = "tokio")]
mod future;
mod gcra;
#[cfg(feature = "governor")]
mod governor_store;
#[cfg(feature = "tower")]
pub mod http;
mod keyed;
mod leased;
mod limiter;
mod limiter_builder;
mod lines;
#[cfg(all(test, overdrive_loom))]
mod models;
mod permit;
mod policy;
mod quota;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "metrics")]
mod report;
mod reserve;
mod settings;
mod stats;
mod sync;
mod table;
mod tsc;
mod wait;
mod window;

pub use adaptive::{AdaptiveLimit, AdaptiveLimitBuilder, AdaptivePermit};
pub use all::{All, Limit};
pub use concurrency::{ConcurrencyLimit, MAX_CONCURRENCY};
pub use concurrency_builder::ConcurrencyLimitBuilder;
pub use error::{AcquireError, CheckError, Denied, TryAcquireError, WaitError};
pub use exact::{ExactKeyedLimiter, ExactKeyedLimiterBuilder};
#[cfg(feature = "tokio")]
pub use future::Wait;
#[cfg(feature = "governor")]
pub use governor_store::BoundedStore;
pub use keyed::{DEFAULT_CAPACITY, KeyedLimiter, KeyedLimiterBuilder, MAX_CAPACITY, OnFull};
pub use leased::{LeasedLimiter, LeasedLimiterBuilder, MAX_LEASES};
pub use limiter::{RateLimiter, Snapshot};
pub use limiter_builder::{DEFAULT_MAX_WAITERS, MAX_WAITERS, RateLimiterBuilder};
pub use lines::{MAX_PASSED, Shedding};
pub use overdrive_core::{Clock, ConfigError, Deadline, DrainReport, Priority, TimeBudget, clock};
pub use permit::{Acquire, OwnedPermit, Permit};
pub use policy::LimitPolicy;
pub use quota::{Carry, MAX_PERIOD, MAX_TOKENS, Quota};
pub use reserve::Reservation;
pub use settings::ConcurrencySettings;
pub use stats::{ConcurrencyStats, KeyedStats, LimiterStats};
pub use tsc::TscClock;
pub use wait::TIMER_SLACK;
pub use window::{MAX_LOGGED, SlidingLog, SlidingWindow};
