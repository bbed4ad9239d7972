//! What is measured: scenarios and their contenders.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::results::{Better, Kind, Role, Tier};

/// What a contender is built from. Equal for all contenders of a run, so that
/// all of them do the same work.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seeds every random choice of a workload.
    pub seed: u64,
    /// The scenario's thread count.
    pub threads: usize,
    /// Where recorded traces are, if the user named a folder.
    pub traces: Option<PathBuf>,
    /// The workspace that is being measured, for scenarios that take it as
    /// their input. The same for both sides of a comparison of revisions.
    pub workspace: PathBuf,
}

/// The loop of one thread: does that many operations and returns a checksum.
pub(crate) type Run = Box<dyn FnMut(u64) -> u64>;
/// Makes the loop of thread `n`, on that thread.
pub(crate) type Workers = Box<dyn Fn(usize) -> Run + Send + Sync>;
/// Serves request `n`; called by several threads at once.
pub(crate) type Serve = Box<dyn Fn(u64) -> u64 + Send + Sync>;

/// A figure that is computed, not timed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// The figure in the scenario's unit.
    pub value: f64,
    /// Further figures by name.
    pub metrics: BTreeMap<String, f64>,
    /// Figures by position; each becomes a point of the results.
    pub points: Vec<(String, f64)>,
    /// What the answer check compares between contenders.
    pub check: u64,
}

/// How a contender does its work.
pub(crate) enum Work {
    Time(Box<dyn Fn(&Setup) -> Workers>),
    Latency(Box<dyn Fn(&Setup) -> Serve>),
    Once(Box<dyn Fn(&Setup) -> Figure>),
    /// Shown, never run.
    KnownWrong,
}

/// One way of doing a scenario's work.
pub struct Contender {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) version: String,
    pub(crate) reason: Option<String>,
    pub(crate) counted: bool,
    pub(crate) work: Work,
}

impl Contender {
    fn new(role: Role, name: &str, version: &str, work: Work) -> Self {
        Self {
            name: name.into(),
            role,
            version: version.into(),
            reason: None,
            counted: true,
            work,
        }
    }

    /// A contender of a [`Scenario::time`] scenario.
    ///
    /// `make` builds the shared state; what it returns is called once on each
    /// thread with the thread's number and gives that thread's loop; the loop
    /// does the given number of operations and returns a checksum that is the
    /// same for every correct contender.
    pub fn time<W, R>(
        role: Role,
        name: &str,
        version: &str,
        make: impl Fn(&Setup) -> W + 'static,
    ) -> Self
    where
        W: Fn(usize) -> R + Send + Sync + 'static,
        R: FnMut(u64) -> u64 + 'static,
    {
        let make = move |setup: &Setup| -> Workers {
            let workers = make(setup);
            Box::new(move |thread| Box::new(workers(thread)))
        };
        Self::new(role, name, version, Work::Time(Box::new(make)))
    }

    /// A contender of a [`Scenario::latency`] scenario: `make` builds a server
    /// that handles one request a call.
    pub fn latency<S>(
        role: Role,
        name: &str,
        version: &str,
        make: impl Fn(&Setup) -> S + 'static,
    ) -> Self
    where
        S: Fn(u64) -> u64 + Send + Sync + 'static,
    {
        let make = move |setup: &Setup| -> Serve { Box::new(make(setup)) };
        Self::new(role, name, version, Work::Latency(Box::new(make)))
    }

    /// A contender of a scenario that is computed once ([`Scenario::bytes`],
    /// [`Scenario::count`], [`Scenario::ratio`]).
    pub fn once(
        role: Role,
        name: &str,
        version: &str,
        compute: impl Fn(&Setup) -> Figure + 'static,
    ) -> Self {
        Self::new(role, name, version, Work::Once(Box::new(compute)))
    }

    /// A peer that is known to answer wrongly: shown with the reason, not run.
    pub fn known_wrong(name: &str, version: &str, reason: &str) -> Self {
        let mut contender = Self::new(Role::Peer, name, version, Work::KnownWrong);
        contender.reason = Some(reason.into());
        contender
    }

    /// Its allocations do not go through the global allocator, so they cannot
    /// be counted.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// A remark that is shown with the row.
    #[must_use]
    pub fn remark(mut self, text: &str) -> Self {
        self.reason = Some(text.into());
        self
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// The rate and length of an open-loop run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    pub(crate) per_second: f64,
    pub(crate) value_percentile: f64,
}

/// A named workload and those who do it.
#[derive(Debug)]
pub struct Scenario {
    pub(crate) id: String,
    pub(crate) about: String,
    pub(crate) input: String,
    pub(crate) tier: Tier,
    pub(crate) kind: Kind,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) threads: Vec<usize>,
    pub(crate) own_threads: bool,
    pub(crate) relay: bool,
    pub(crate) instances: usize,
    pub(crate) per_op: u64,
    pub(crate) check_ops: u64,
    pub(crate) arrivals: Arrivals,
    pub(crate) contenders: Vec<Contender>,
}

impl Scenario {
    fn new(id: &str, about: &str, kind: Kind, unit: &str, better: Better) -> Self {
        Self {
            id: id.into(),
            about: about.into(),
            input: String::new(),
            tier: Tier::Core,
            kind,
            unit: unit.into(),
            better,
            threads: vec![1],
            own_threads: false,
            relay: false,
            instances: 3,
            per_op: 1,
            check_ops: 1_000,
            arrivals: Arrivals {
                per_second: 1_000.0,
                value_percentile: 99.0,
            },
            contenders: Vec::new(),
        }
    }

    /// Time per operation: interleaved short slices, ratios per round.
    /// The value is the wall time of one operation of one thread.
    #[must_use]
    pub fn time(id: &str, about: &str) -> Self {
        Self::new(id, about, Kind::Time, "ns/op", Better::Lower)
    }

    /// Latency under scheduled arrivals, measured from the intended start, so
    /// that a stall is charged to every request that it delays.
    #[must_use]
    pub fn latency(id: &str, about: &str, per_second: f64) -> Self {
        let mut scenario = Self::new(id, about, Kind::Latency, "us", Better::Lower);
        scenario.arrivals.per_second = per_second;
        scenario
    }

    /// A deterministic number of bytes; run once.
    #[must_use]
    pub fn bytes(id: &str, about: &str) -> Self {
        Self::new(id, about, Kind::Bytes, "B", Better::Lower)
    }

    /// A deterministic count; run once.
    #[must_use]
    pub fn count(id: &str, about: &str, unit: &str) -> Self {
        Self::new(id, about, Kind::Count, unit, Better::Lower)
    }

    /// A deterministic share between 0 and 1, the cost of which is what is
    /// missing to 1; run once.
    #[must_use]
    pub fn ratio(id: &str, about: &str, unit: &str) -> Self {
        Self::new(id, about, Kind::Ratio, unit, Better::Higher)
    }

    /// What the work is done on, in words.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.into();
        self
    }

    /// Leaves the scenario out of `--quick`.
    #[must_use]
    pub fn slow(mut self) -> Self {
        self.tier = Tier::Slow;
        self
    }

    /// The thread counts that the scenario runs at; one thread by default.
    /// `--threads` replaces a list of several, never a single fixed count.
    #[must_use]
    pub fn threads(mut self, counts: &[usize]) -> Self {
        self.threads = counts.to_vec();
        self
    }

    /// The contenders start their own threads ([`Setup::threads`] of them): one
    /// loop drives each, and CPU time is that of the whole process.
    #[must_use]
    pub fn own_threads(mut self) -> Self {
        self.own_threads = true;
        self
    }

    /// The threads hand the same operations on to each other, instead of doing
    /// their own: CPU time and allocations are per operation of all together.
    #[must_use]
    pub fn relay(mut self) -> Self {
        self.relay = true;
        self
    }

    /// How often each contender is built in a process at one thread; 3 by
    /// default. Where its data happen to lie can cost a contender two percent
    /// for as long as they live; of several builds, taken at random, the median
    /// sees the usual one. More where placement matters, one where the data are
    /// large.
    #[must_use]
    pub fn instances(mut self, builds: usize) -> Self {
        self.instances = builds.max(1);
        self
    }

    /// How many units one operation handles; values are per unit.
    #[must_use]
    pub fn per_op(mut self, units: u64) -> Self {
        self.per_op = units;
        self
    }

    /// How many operations the answer check does; 1,000 by default.
    #[must_use]
    pub fn check_ops(mut self, ops: u64) -> Self {
        self.check_ops = ops;
        self
    }

    /// The unit of the value, where it is not `ns/op`.
    #[must_use]
    pub fn unit(mut self, unit: &str) -> Self {
        self.unit = unit.into();
        self
    }

    /// Adds a contender. Exactly one of a scenario's contenders is ours.
    #[must_use]
    pub fn with(mut self, contender: Contender) -> Self {
        self.contenders.push(contender);
        self
    }

    /// The scenario's name, `group/name`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the scenario is well formed; the first fault otherwise.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let id = &self.id;
        let ours = self.contenders.iter().filter(|c| c.role == Role::Ours);
        if ours.count() != 1 {
            return Err(format!("scenario {id} needs exactly one contender of ours"));
        }
        if self.threads.is_empty() || self.threads.contains(&0) || self.per_op == 0 {
            return Err(format!("scenario {id} has a zero thread count or unit"));
        }
        for c in &self.contenders {
            let fits = match c.work {
                Work::Time(_) => self.kind == Kind::Time,
                Work::Latency(_) => self.kind == Kind::Latency,
                Work::Once(_) => matches!(self.kind, Kind::Bytes | Kind::Count | Kind::Ratio),
                Work::KnownWrong => c.role == Role::Peer,
            };
            if !fits {
                return Err(format!(
                    "{} does not do the work of scenario {id}, which is of another kind",
                    c.name
                ));
            }
            if self.contenders.iter().filter(|o| o.name == c.name).count() > 1 {
                return Err(format!("scenario {id} has two rows named {}", c.name));
            }
        }
        Ok(())
    }
}
