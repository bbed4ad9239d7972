//! Limits that several processes share, over Redis.

mod answer;
mod builder;
mod key;
mod lease;
mod leased;
mod limiter;
mod script;
mod share;
mod units;

pub use answer::{DecidedBy, Granted, RemoteCheckError};
pub use builder::{DEFAULT_LOCAL_CAPACITY, OnFailure, RemoteLimiterBuilder};
pub use leased::{LeaseSettings, LeasedRemoteLimiter, LeasedRemoteStats, MAX_LEASE};
pub use limiter::{RemoteLimiter, RemoteLimiterStats};
pub use overdrive_remote::{RedisSettings, Remote, RemoteError};
