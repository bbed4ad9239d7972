//! What travels through a pipeline.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use overdrive_core::unwind::survive;

use crate::monitor::Watch;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// One item on its way, or the word that it failed.
pub(crate) struct Item<T> {
    value: Kept<Result<T, Failure>>,
    token: Token,
}

impl<T> Item<T> {
    pub(crate) fn new(value: Result<T, Failure>, token: Token) -> Self {
        let value = Kept(Some(value));
        Self { value, token }
    }

    pub(crate) fn into_parts(self) -> (Result<T, Failure>, Token) {
        (self.value.into_inner(), self.token)
    }
}

/// A user's value. If it is dropped in here, when a pipeline ends early, a panic of its destructor
/// is survived: the other items have to go, too.
struct Kept<V>(Option<V>);

impl<V> Kept<V> {
    fn into_inner(mut self) -> V {
        let Some(value) = self.0.take() else {
            unreachable!("only this takes it, and consumes it");
        };
        value
    }
}

impl<V> Drop for Kept<V> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            survive(|| drop(value));
        }
    }
}

/// Why an item failed, and in which stage.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: usize,
    pub(crate) cause: Cause,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Error(BoxError),
    Panicked(String),
}

impl Failure {
    pub(crate) fn panicked(stage: usize, payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        overdrive_core::unwind::drop_payload(payload);
        let cause = Cause::Panicked(text.unwrap_or_else(|| "not a text".to_owned()));
        Self { stage, cause }
    }
}

/// Counts an item of the source as in flight until all that became of it is gone.
#[derive(Clone)]
pub(crate) struct Token(Arc<Counted>);

struct Counted {
    sequence: u64,
    /// Of an item of the source.
    watch: Option<Arc<Watch>>,
    /// Of an item that was made of several.
    _parts: Vec<Token>,
}

impl Token {
    /// For the next item of the source.
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        Self(Arc::new(Counted {
            sequence: watch.enter(),
            watch: Some(Arc::clone(watch)),
            _parts: Vec::new(),
        }))
    }

    /// For what was made of all of these.
    pub(crate) fn of(parts: Vec<Self>) -> Self {
        Self(Arc::new(Counted {
            sequence: parts.first().map_or(0, Self::sequence),
            watch: None,
            _parts: parts,
        }))
    }

    /// The number of the item in the source, counted from zero.
    pub(crate) fn sequence(&self) -> u64 {
        self.0.sequence
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.leave();
        }
    }
}
