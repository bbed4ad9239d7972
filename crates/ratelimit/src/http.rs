//! Limits in front of HTTP services, as layers of the tower kind over [`http::Request`].
//!
//! ```
//! use std::time::Duration;
//! use overdrive_ratelimit::http::{
//!     ClientIp, ConcurrencyLimitLayer, Forwarding, RateLimitLayer, TrustedProxies,
//! };
//! use overdrive_ratelimit::{ConcurrencyLimit, KeyedLimiter, Quota};
//!
//! // The load balancers, which say in X-Forwarded-For whom they speak for.
//! let proxies = TrustedProxies::new(["10.0.0.0/8", "fd00::/8"])?;
//! let clients = ClientIp::new().forwarded(Forwarding::XForwardedFor, proxies);
//! let limiter = KeyedLimiter::builder().quota(Quota::per_minute(100)).build()?;
//! let per_client = RateLimitLayer::new(limiter, clients);
//! let in_work = ConcurrencyLimit::builder().limit(200).build()?;
//! let at_once = ConcurrencyLimitLayer::new(in_work).retry_after(Duration::from_secs(5));
//! # drop((per_client, at_once));
//! # Ok::<(), overdrive_ratelimit::ConfigError>(())
//! ```
//!
//! With axum: `router.layer(at_once).layer(per_client)`, and `ClientIp` gets the address of the peer
//! from axum's own extension:
//!
//! ```text
//! let clients = ClientIp::new().peer(|extensions| {
//!     extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
//! });
//! ```
//!
//! Decisions and permits are taken in `call`, never in `poll_ready`: a service that is ready and
//! not called holds nothing. Clones of a layer and of its services share its limiter. Refusals have
//! an empty body, which is why the body of the service must have a [`Default`].

mod client;
mod concurrency;
mod forwarded;
mod headers;
mod key;
mod limit;
mod permit;
mod proxies;
mod rate;
mod shed;

pub use client::{ClientIp, Forwarding, PeerAddr};
pub use concurrency::{
    ConcurrencyFuture, ConcurrencyLimitLayer, ConcurrencyLimitService, HoldUntil,
};
pub use key::{Global, HeaderKey, KeyExtractor, KeyFn, RequestView, key_fn};
#[cfg(feature = "tokio")]
pub use limit::Waiting;
pub use limit::{Answer, Decision, Outcome, RequestLimit};
pub use permit::{Ended, PermitBody, PermitSource};
pub use proxies::TrustedProxies;
pub use rate::{RateFuture, RateLimitLayer, RateLimitService};
pub use shed::{LoadShedLayer, LoadShedService, ShedFuture};
