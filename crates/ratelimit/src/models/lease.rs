//! Leases of a limit at a server: those who check, and the one task that fetches tokens, hands them
//! out, and gives back what is left at the end. The server is a number.

use std::future::{Future, ready};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom::thread;
use overdrive_remote::{RedisSettings, Remote, RemoteError};
use tokio::sync::oneshot;

use super::{block_on, bounded, fails_without};
use crate::Quota;
use crate::redis::lease::{End, Keeper, Source, Store, Waiter};
use crate::redis::script::Answer;
use crate::redis::units::Units;
use crate::redis::{LeaseSettings, LeasedRemoteLimiter, RemoteCheckError, RemoteLimiter};
use crate::sync::{Mutant, Ordering};

/// So long that no model sees the end of it.
const LONG: Duration = Duration::from_secs(3_600);

struct Server {
    units: Units,
    tokens: Mutex<u64>,
    /// So many trips fail.
    failures: Mutex<u64>,
}

impl Source for Arc<Server> {
    fn lease(&self, n: u64) -> impl Future<Output = Result<Answer, RemoteError>> + Send {
        let (mut tokens, mut failures) =
            (self.tokens.lock().unwrap(), self.failures.lock().unwrap());
        if *failures > 0 {
            *failures -= 1;
            return ready(Err(RemoteError::Closed));
        }
        let got = n.min(*tokens);
        *tokens -= got;
        ready(Ok(Answer {
            got,
            // The next one is far.
            arrival: self.units.span_of(self.units.burst),
            now: 0,
        }))
    }

    fn give_back(&self, n: u64) -> impl Future<Output = Result<(), RemoteError>> + Send {
        *self.tokens.lock().unwrap() += n;
        ready(Ok(()))
    }

    fn units(&self) -> &Units {
        &self.units
    }
}

struct Model {
    server: Arc<Server>,
    /// Not dropped when a model fails: loom is not to be asked any more then.
    leased: ManuallyDrop<LeasedRemoteLimiter>,
    store: Arc<Store>,
    keeper: Keeper<Arc<Server>>,
}

/// Leases of one token of a server that has so many.
fn start(tokens: u64, failures: u64) -> Model {
    let quota = Quota::per_hour(4);
    let remote = Remote::lazy(RedisSettings::default()).unwrap();
    let limiter = RemoteLimiter::builder(remote).quota(quota).timeout(LONG);
    let mut settings = LeaseSettings::of(1);
    settings.idle = LONG;
    let leased = limiter.build().unwrap().leased("a", settings).unwrap();
    let server = Arc::new(Server {
        units: Units::new(quota).unwrap(),
        tokens: Mutex::new(tokens),
        failures: Mutex::new(failures),
    });
    let store = leased.store();
    store.running.store(true, Ordering::Release);
    let keeper = Keeper {
        store: Arc::clone(&store),
        source: Arc::clone(&server),
        size: 1,
        idle: LONG,
        end: End(Arc::clone(&store)),
    };
    Model {
        server,
        leased: ManuallyDrop::new(leased),
        store,
        keeper,
    }
}

/// Two check once each, while the keeper works: their answers. What has not been spent is back at the
/// server at the end.
fn checks(tokens: u64, failures: u64) -> [Result<(), RemoteCheckError>; 2] {
    let Model {
        server,
        leased,
        store,
        keeper,
    } = start(tokens, failures);
    let keeper = thread::spawn(move || block_on(keeper.run()));
    let other = LeasedRemoteLimiter::clone(&leased);
    let thread = thread::spawn(move || check(&other));
    let answers = [check(&leased), thread.join().unwrap()];
    leased.close();
    keeper.join().unwrap();
    let spent = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    assert_eq!(*server.tokens.lock().unwrap() + spent, tokens);
    assert_eq!(store.left(), 0);
    drop(ManuallyDrop::into_inner(leased));
    answers
}

fn check(leased: &LeasedRemoteLimiter) -> Result<(), RemoteCheckError> {
    block_on(leased.check()).map(drop)
}

/// With timers, none of which rings.
fn with_timers(run: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    run();
}

/// Two ask for the last token.
fn exhaustion() {
    let [mine, its] = checks(1, 0);
    assert!(mine.is_ok() != its.is_ok(), "one token");
}

#[test]
fn loom_the_last_token_is_leased_once() {
    with_timers(|| bounded(1, exhaustion));
}

/// Two ask, and there is enough: one may find what was fetched for the other, or ahead.
fn grants() {
    assert!(checks(3, 0).iter().all(Result::is_ok));
}

#[test]
fn loom_tokens_of_leases_are_spent_once_and_the_rest_goes_back() {
    with_timers(|| bounded(1, grants));
}

#[test]
fn loom_control_spending_must_compare() {
    with_timers(|| fails_without(Mutant::SpendBlindly, grants));
}

/// A trip fails: who waited for it is told, and who asks later gets a token.
fn failure() {
    let told = checks(2, 1).into_iter().filter_map(Result::err);
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty(), "the first trip failed");
    for error in told {
        assert!(
            matches!(error, RemoteCheckError::Unavailable(_)),
            "{error:?}"
        );
    }
}

#[test]
fn loom_a_trip_that_fails_is_told_to_those_who_waited() {
    with_timers(|| bounded(2, failure));
}

/// One gives up that was handed a token, while all ends.
fn give_up() {
    let model = start(0, 0);
    let (answer, answered) = oneshot::channel();
    model.store.put(1);
    model.store.queue().push_back(Waiter { n: 1, answer });
    assert!(model.store.serve());
    model.leased.close();
    let Model {
        server,
        leased,
        store,
        keeper,
    } = model;
    let gives_up = thread::spawn(move || drop(answered));
    block_on(keeper.run());
    gives_up.join().unwrap();
    assert_eq!((*server.tokens.lock().unwrap(), store.left()), (1, 0));
    drop(ManuallyDrop::into_inner(leased));
}

#[test]
fn loom_a_token_handed_to_one_who_gives_up_goes_back() {
    with_timers(|| bounded(3, give_up));
}

#[test]
fn loom_control_what_is_handed_counts_until_it_is_back() {
    with_timers(|| fails_without(Mutant::CountEarly, give_up));
}
