//! What a pipeline is told, besides its stages.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use overdrive_core::ConfigError;
use overdrive_workstealing::ThreadPool;

use crate::item::BoxError;
use crate::monitor::Watch;

/// The most items that one setting can allow at once.
pub const MAX_IN_FLIGHT: usize = 1 << 30;

/// What happens to the pipeline when a stage refuses an item with an error.
///
/// A panic is not an error: it ends the pipeline under either policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorPolicy {
    /// It ends with that error.
    #[default]
    FailFast,
    /// It goes on without the item, which is counted, and given to the
    /// [dead letters](crate::Pipeline::dead_letter) if there are any.
    Skip,
}

/// An item that was refused, for [`Pipeline::dead_letter`](crate::Pipeline::dead_letter).
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The name of the stage that refused it.
    pub stage: Cow<'static, str>,
    /// The number of the source's item, counted from zero.
    pub sequence: u64,
    /// What the stage returned.
    pub error: BoxError,
}

pub(crate) type DeadLetters<'env> = Box<dyn FnMut(DeadLetter) + Send + 'env>;

/// What does not depend on the types.
pub(crate) struct Plan {
    pub(crate) name: Cow<'static, str>,
    pub(crate) stages: Vec<Cow<'static, str>>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) pool: Option<ThreadPool>,
    pub(crate) needs_pool: bool,
    pub(crate) in_flight: Option<usize>,
    pub(crate) policy: ErrorPolicy,
    /// Whether the latest concurrent part keeps the order.
    pub(crate) ordered: Option<Arc<AtomicBool>>,
    pub(crate) fault: Option<ConfigError>,
}

impl Plan {
    pub(crate) fn new(source: &'static str) -> Self {
        Self {
            name: Cow::Borrowed("pipeline"),
            stages: vec![Cow::Borrowed(source)],
            watch: Arc::default(),
            pool: None,
            needs_pool: false,
            in_flight: None,
            policy: ErrorPolicy::default(),
            ordered: None,
            fault: None,
        }
    }

    pub(crate) fn add(&mut self, stage: &'static str) -> usize {
        self.stages.push(Cow::Borrowed(stage));
        self.stages.len() - 1
    }

    pub(crate) fn fault(&mut self, error: ConfigError) {
        self.fault.get_or_insert(error);
    }

    /// Between one and [`MAX_IN_FLIGHT`]; if not, the run will say so.
    pub(crate) fn count(&mut self, field: &'static str, n: usize) -> usize {
        if let Err(error) = ConfigError::within(field, n, MAX_IN_FLIGHT) {
            self.fault(error);
        }
        n.clamp(1, MAX_IN_FLIGHT)
    }

    /// A concurrent part was added: whether it keeps the order will stand there.
    pub(crate) fn concurrent(&mut self) -> Arc<AtomicBool> {
        let ordered = Arc::new(AtomicBool::new(true));
        self.ordered = Some(Arc::clone(&ordered));
        ordered
    }
}
