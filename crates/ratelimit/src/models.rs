//! Loom models of the lock-free protocols.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_loom" cargo test -p overdrive-ratelimit --lib --release loom
//! ```
//!
//! Each protocol is also run with its guard removed (see [`Mutant`]), and then it must fail: a model
//! that passes either way would show nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sync::{Mutant, REMOVED};

mod cell;
mod keyed;
mod permits;

fn fails_without(mutant: Mutant, model: fn()) {
    REMOVED.set(Some(mutant));
    let failed = catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err();
    REMOVED.set(None);
    assert!(failed, "the model does not notice that {mutant:?} is gone");
}
