//! Holding other threads at a point, instead of sleeping.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After that long a wait is a hang, and the waiting test panics.
const HANG: Duration = Duration::from_secs(60);

/// A gate that user code passes, closed at first. Clones are the same gate.
///
/// The test waits until so many threads stand before it, does what it wants to do meanwhile, and
/// opens it. No wait lasts for ever: after 60 seconds it panics, and names what it waited for.
///
/// ```
/// use overdrive_testkit::Gate;
///
/// let gate = Gate::new();
/// let handler = std::thread::spawn({
///     let gate = gate.clone();
///     move || gate.pass()
/// });
/// gate.wait_for(1);     // the handler is in the middle of its work
/// gate.open();
/// handler.join().unwrap();
/// assert_eq!(gate.passed(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// So many of those who wait may pass a closed gate.
    admitted: usize,
    waiting: usize,
    passed: usize,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the gate is open, or lets one through.
    ///
    /// # Panics
    /// After 60 seconds.
    pub fn pass(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        self.shared.changed.notify_all();
        let (mut state, timed_out) = self.wait_while(state, |s| !s.open && s.admitted == 0);
        state.waiting -= 1;
        if !timed_out {
            state.passed += 1;
            if !state.open {
                state.admitted -= 1;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        assert!(!timed_out, "the gate was not opened");
    }

    /// Lets all through, those who wait and those who come.
    pub fn open(&self) {
        let mut state = self.lock();
        state.open = true;
        state.admitted = 0;
        self.shared.changed.notify_all();
    }

    /// Lets one through, now or when it comes; more calls, more.
    pub fn admit_one(&self) {
        self.lock().admitted += 1;
        self.shared.changed.notify_all();
    }

    /// Holds those who come from now on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.admitted = 0;
    }

    /// Waits until at least `n` stand before the gate.
    ///
    /// # Panics
    /// After 60 seconds.
    pub fn wait_for(&self, n: usize) {
        let (state, timed_out) = self.wait_while(self.lock(), |s| s.waiting < n);
        let waiting = state.waiting;
        drop(state);
        assert!(!timed_out, "{waiting} instead of {n} came to the gate");
    }

    /// Waits until `n` have passed since the gate was made.
    ///
    /// # Panics
    /// After 60 seconds.
    pub fn wait_passed(&self, n: usize) {
        let (state, timed_out) = self.wait_while(self.lock(), |s| s.passed < n);
        let passed = state.passed;
        drop(state);
        assert!(!timed_out, "{passed} instead of {n} passed the gate");
    }

    /// Who stands before it now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Who has passed so far.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.lock().passed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, and whether it took too long.
    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        mut condition: impl FnMut(&State) -> bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, HANG, |s| condition(s));
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, result.timed_out())
    }
}

/// Something that has happened or not, to be waited for. Clones are the same flag.
///
/// ```
/// let flag = overdrive_testkit::Flag::new();
/// let seen = flag.clone();
/// std::thread::spawn(move || flag.set());
/// seen.wait();
/// assert!(seen.is_set());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Flag {
    gate: Gate,
}

impl Flag {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it for good.
    pub fn set(&self) {
        self.gate.open();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.gate.lock().open
    }

    /// Waits until it is set.
    ///
    /// # Panics
    /// After 60 seconds.
    pub fn wait(&self) {
        self.gate.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn it_holds_lets_one_through_and_opens() {
        let gate = Gate::new();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| gate.pass());
            }
            gate.wait_for(3);
            assert_eq!(gate.passed(), 0);
            gate.admit_one();
            gate.wait_passed(1);
            assert_eq!((gate.waiting(), gate.passed()), (2, 1));
            gate.open();
        });
        assert_eq!((gate.waiting(), gate.passed()), (0, 3));
        gate.pass();
        gate.close();
        thread::scope(|scope| {
            scope.spawn(|| gate.pass());
            gate.wait_for(1);
            gate.admit_one();
        });
        assert_eq!(gate.passed(), 5);
    }
}
