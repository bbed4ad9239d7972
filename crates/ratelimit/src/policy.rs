//! How an adaptive limit finds its number.

use std::time::Duration;

use overdrive_core::ConfigError;

/// What was measured since the limit was last set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    samples: u64,
    nanos: u128,
    most_in_flight: usize,
}

impl Window {
    pub(crate) fn add(&mut self, took: Duration, in_flight: usize) {
        self.samples += 1;
        self.nanos += took.as_nanos();
        self.saw(in_flight);
    }

    pub(crate) fn saw(&mut self, in_flight: usize) {
        self.most_in_flight = self.most_in_flight.max(in_flight);
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// The mean, in nanoseconds.
    fn took(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.nanos as f64 / self.samples as f64)
    }

    /// Where half the limit is not used, nothing is learnt about it.
    fn tests(&self, limit: usize) -> bool {
        self.most_in_flight.saturating_mul(2) >= limit
    }
}

/// How an [`AdaptiveLimit`](crate::AdaptiveLimit) finds its number, once a window.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitPolicy(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Aimd(Duration),
    Vegas(Least),
    Gradient2 { long: Option<f64>, least: Least },
}

/// The least time seen, which is forgotten from time to time: what is behind may have become
/// slower.
#[derive(Clone, Debug, Default, PartialEq)]
struct Least {
    nanos: Option<f64>,
    windows: u32,
    /// The limit after it was last measured anew.
    limit: f64,
    /// The limit to go on with after the window that measures it.
    resume: Option<f64>,
}

/// What to do with a window.
enum Look {
    /// Judge it by that least time.
    At(f64),
    /// Set this limit, whatever it says.
    Set(f64),
}

impl Least {
    /// How many windows it is kept for.
    const KEPT: u32 = 60;

    fn with(&mut self, took: f64, now: f64) -> Look {
        if let Some(resume) = self.resume.take() {
            (self.nanos, self.limit) = (Some(took), resume);
            return Look::Set(resume);
        }
        self.windows += 1;
        // Where a lower limit makes nothing faster, it is the server that became slower.
        if self.windows >= Self::KEPT || now * 2.0 < self.limit {
            (self.windows, self.resume) = (0, Some(now));
            return Look::Set(now / 2.0);
        }
        self.limit = self.limit.max(now);
        let least = self.nanos.map_or(took, |least| least.min(took));
        self.nanos = Some(least);
        Look::At(least)
    }
}

impl LimitPolicy {
    /// Additive increase, multiplicative decrease (Chiu and Jain, 1989): one more permit in a window
    /// without an overload that counts, and a tenth less after one, or when work took longer than `timeout` on
    /// average. For services that say when it is too much, or have a known time that is too long.
    #[must_use]
    pub fn aimd(timeout: Duration) -> Self {
        Self(Kind::Aimd(timeout))
    }

    /// After TCP Vegas (Brakmo and Peterson, 1994): what is in work beyond what the least time seen
    /// would need is a queue, and the limit keeps it between one and two times the logarithm of the
    /// limit. Every 60 windows the limit is halved for one, to measure the least time anew.
    #[must_use]
    pub fn vegas() -> Self {
        Self(Kind::Vegas(Least::default()))
    }

    /// After Netflix's Gradient2 (concurrency-limits, 2018): follows the ratio of the time that work
    /// takes in the long run to the time that it takes now, and always tries a little more. Other
    /// than there, the long run does not drift away from the least time seen, which is measured
    /// anew as in [`vegas`](Self::vegas), and the room for a queue is a quarter of the square root of
    /// the limit.
    #[must_use]
    pub fn gradient2() -> Self {
        Self(Kind::Gradient2 {
            long: None,
            least: Least::default(),
        })
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self.0 {
            Kind::Aimd(timeout) if timeout.is_zero() => Err(ConfigError::Zero { field: "timeout" }),
            _ => Ok(()),
        }
    }

    /// The next limit.
    pub(crate) fn next(&mut self, limit: usize, window: &Window, overloaded: bool) -> usize {
        let now = limit as f64;
        if let (Kind::Vegas(least) | Kind::Gradient2 { least, .. }, true) =
            (&mut self.0, overloaded)
        {
            // The limit from before the measurement is too much by now. That of now is no fall
            // that is to be looked into, or each overload would bring another measurement.
            if least.resume.take().is_some() {
                least.limit = now * 0.9;
            }
        }
        // Work of no measurable time took some all the same.
        let took = window.took().map(|took| took.max(1.0));
        let next = match (&mut self.0, took) {
            (Kind::Aimd(timeout), Some(took)) if took > timeout.as_nanos() as f64 => now * 0.9,
            _ if overloaded => now * 0.9,
            (_, None) => now,
            (Kind::Aimd(_), Some(_)) if window.tests(limit) => now + 1.0,
            (Kind::Aimd(_), Some(_)) => now,
            (Kind::Vegas(least), Some(took)) => match least.with(took, now) {
                Look::Set(limit) => limit,
                Look::At(least) if window.tests(limit) => vegas(now, took, least),
                Look::At(_) => now,
            },
            (Kind::Gradient2 { long, least }, Some(took)) => match least.with(took, now) {
                Look::Set(limit) => limit,
                Look::At(least) => {
                    let usual = usual(long, took, least);
                    if window.tests(limit) {
                        gradient2(now, took, usual)
                    } else {
                        now
                    }
                }
            },
        };
        let next = if next.is_finite() { next } else { now };
        // Down where it becomes less, so that it does. Far below 2^52.
        let next = if next < now {
            next.floor()
        } else {
            next.ceil()
        };
        next.max(1.0) as usize
    }
}

fn vegas(now: f64, took: f64, least: f64) -> f64 {
    let step = now.log10().max(1.0);
    let queued = now * (1.0 - least / took);
    if queued < step / 2.0 {
        now + 2.0 * step
    } else if queued < step {
        now + 1.0
    } else if queued > 2.0 * step {
        now - step
    } else {
        now
    }
}

/// The time that work takes in the long run: near the mean of the last hundred windows.
fn usual(long: &mut Option<f64>, took: f64, least: f64) -> f64 {
    let usual = long.map_or(took, |usual| usual + (took - usual) / 100.0);
    *long.insert(usual.clamp(least, least * 1.05))
}

fn gradient2(now: f64, took: f64, usual: f64) -> f64 {
    let gradient = (usual / took).clamp(0.5, 1.0);
    // Fast where nothing is felt yet.
    let more = if gradient > 0.95 {
        now.sqrt()
    } else {
        now.sqrt() / 4.0
    };
    let next = now * gradient + more;
    now + (next - now) * 0.2
}
