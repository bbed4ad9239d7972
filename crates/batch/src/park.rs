//! Waiting on a thread for what was written for tasks.

use std::future::Future;
use std::time::Duration;

pub(crate) use overdrive_core::park::block_on;

/// [`block_on`] without a limit.
pub(crate) fn block_on_forever<F: Future>(future: F) -> F::Output {
    block_on(future, || Duration::MAX).expect("there is no limit")
}
