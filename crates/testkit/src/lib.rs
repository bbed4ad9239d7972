//! Real servers, a cutting proxy, simulated time and drop counters for the tests of overdrive.
//!
//! A development dependency only; it is not published. Linux.
//!
//! | item | what for |
//! |---|---|
//! | [`RedisServer`], [`PostgresServer`] | real servers that can be killed, paused and restarted |
//! | [`Programs`] | where their programs are, and installing them |
//! | [`RespClient`] | asking Redis without the code under test |
//! | [`Proxy`] | a connection that can be cut, stalled and healed |
//! | [`Schedule`] | seeded events in simulated time |
//! | `TokioClock` (feature `tokio`) | our clock, moved by tokio's paused time |
//! | [`control`] | the proof that a race test needs the guard it tests |
//! | [`Gate`], [`Flag`] | holding other threads at a point, instead of sleeping |
//! | [`DropCounter`], [`PanicOnDrop`] | what became of values |
//! | [`block_on`], [`CountingWaker`] | futures without a runtime |
//!
//! Servers live in temporary directories and listen on free ports of 127.0.0.1. They end with
//! their value, and with the test process however that ends.
//!
//! # Features
//! - `tokio`: `TokioClock`.

#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod clock;
pub mod control;
mod drops;
mod executor;
mod gate;
mod postgres;
mod proxy;
mod redis;
mod resp;
mod schedule;
mod server;

#[cfg(feature = "tokio")]
pub use crate::clock::TokioClock;
pub use crate::drops::{DropCounter, PanicOnDrop, Token};
pub use crate::executor::{CountingWaker, block_on};
pub use crate::gate::{Flag, Gate};
pub use crate::postgres::PostgresServer;
pub use crate::proxy::Proxy;
pub use crate::redis::RedisServer;
pub use crate::resp::{Reply, RespClient};
pub use crate::schedule::Schedule;
pub use crate::server::{Programs, ServerError};
