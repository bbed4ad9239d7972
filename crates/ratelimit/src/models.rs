//! Loom models of the lock-free protocols.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_loom" cargo test -p overdrive-ratelimit --lib --release loom
//! ```
//!
//! Each protocol is also run with its guard removed (see [`Mutant`]), and then it must fail: a model
//! that passes either way would show nothing.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;

use crate::sync::{Mutant, REMOVED};

mod cell;
mod keyed;
#[cfg(feature = "redis")]
mod lease;
mod permits;

/// For a model with so many steps that it does not end in minutes with more preemptions.
fn bounded(preemptions: usize, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.map(|bound| bound.min(preemptions));
    builder.check(model);
}

fn fails_without(mutant: Mutant, model: fn()) {
    REMOVED.set(Some(mutant));
    let failed = catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err();
    REMOVED.set(None);
    assert!(failed, "the model does not notice that {mutant:?} is gone");
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Loom reports a wait that nobody ends.
fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    // Not dropped when a model fails here: loom is not to be asked any more then.
    let mut future = ManuallyDrop::new(Box::pin(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => {
                drop(ManuallyDrop::into_inner(future));
                return output;
            }
            Poll::Pending => bell.0.wait(),
        }
    }
}
