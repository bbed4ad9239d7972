//! Processing pipelines: from a source, through stages, into a sink, with order kept and what is
//! in flight bounded.
//!
//! ```
//! use overdrive_pipeline::{ErrorPolicy, Pipeline};
//!
//! let log = "GET /a 200\nGET /b 500\nbroken\nGET /c 200";
//! let mut paths = Vec::new();
//! let stats = Pipeline::from_iter(log.lines())
//!     .try_map(|line| {
//!         let mut words = line.split(' ').skip(1);
//!         words.next().zip(words.next()).ok_or("not a line of the log")
//!     })
//!     .stage("parse")
//!     .filter(|(_, status)| *status == "200")
//!     .map(|(path, _)| path.to_uppercase())
//!     .parallel(2)
//!     .on_error(ErrorPolicy::Skip)
//!     .run(|path| paths.push(path))?;
//! assert_eq!(paths, ["/A", "/C"]);
//! assert_eq!((stats.received, stats.failed), (4, 1));
//! # Ok::<(), overdrive_pipeline::PipelineError>(())
//! ```
//!
//! | part | items |
//! |---|---|
//! | source | [`Pipeline::from_iter`], [`Pipeline::from_channel`] with its [`Ingress`] |
//! | fused stages | [`map`](Pipeline::map), [`try_map`](Pipeline::try_map), [`filter`](Pipeline::filter), [`flat_map`](Pipeline::flat_map) |
//! | concurrency | [`parallel`](Pipeline::parallel) over a thread pool, [`map_async`](Pipeline::map_async), [`try_map_async`](Pipeline::try_map_async); [`unordered`](Pipeline::unordered) |
//! | flow | [`batch`](Pipeline::batch), [`in_flight`](Pipeline::in_flight), [`on_error`](Pipeline::on_error), [`dead_letter`](Pipeline::dead_letter) |
//! | running | [`run`](Pipeline::run), [`try_run`](Pipeline::try_run), [`collect`](Pipeline::collect), [`run_async`](Pipeline::run_async); a [`Monitor`] |
//!
//! # Features
//! - `serde`: [`PipelineSettings`] in configuration files.
//!
//! No async runtime is needed or pulled in; futures are polled by whoever runs the pipeline. No
//! threads of its own: parallel segments use a
//! [`ThreadPool`](overdrive_workstealing::ThreadPool). No unsafe code.

#![forbid(unsafe_code)]

mod asynchronous;
mod channel;
mod error;
mod item;
mod monitor;
mod parallel;
mod pipeline;
mod plan;
mod run;
mod settings;
mod stage;

pub use channel::{Ingress, Sending};
pub use error::{PipelineError, SendError, TrySendError};
pub use item::BoxError;
pub use monitor::{Monitor, PipelineStats};
pub use overdrive_core::ConfigError;
pub use pipeline::{Pipeline, Segment};
pub use plan::{DeadLetter, ErrorPolicy, MAX_IN_FLIGHT};
pub use settings::PipelineSettings;
