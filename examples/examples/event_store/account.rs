//! An aggregate: what it is follows from what happened to it.

use std::fmt;

/// What happens to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

/// What an account is by its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// How many events made it.
    pub(crate) version: i64,
    pub(crate) cents: i64,
}

impl Account {
    pub(crate) fn apply(mut self, event: Event) -> Self {
        self.version += 1;
        match event {
            Event::Deposited { cents } => self.cents += cents,
            Event::Withdrawn { cents } => self.cents -= cents,
        }
        self
    }
}

/// As it is stored.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposited { cents } => write!(f, "deposited {cents}"),
            Self::Withdrawn { cents } => write!(f, "withdrawn {cents}"),
        }
    }
}

impl Event {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (what, cents) = text.split_once(' ')?;
        let cents = cents.parse().ok()?;
        match what {
            "deposited" => Some(Self::Deposited { cents }),
            "withdrawn" => Some(Self::Withdrawn { cents }),
            _ => None,
        }
    }
}
