//! Limits that several processes share, over Redis.

mod answer;
mod builder;
mod key;
pub(crate) mod lease;
mod leased;
mod limiter;
pub(crate) mod script;
mod share;
pub(crate) mod units;

pub use answer::{DecidedBy, Granted, RemoteCheckError};
pub use builder::{DEFAULT_LOCAL_CAPACITY, OnFailure, RemoteLimiterBuilder};
pub use leased::{LeaseSettings, LeasedRemoteLimiter, LeasedRemoteStats, MAX_LEASE};
pub use limiter::{RemoteLimiter, RemoteLimiterStats};
pub use overdrive_remote::{RedisSettings, Remote, RemoteError};
