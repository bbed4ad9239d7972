//! Leases of a limit over a real Redis.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_ratelimit::redis::{
    DecidedBy, LeaseSettings, LeasedRemoteLimiter, OnFailure, RedisSettings, Remote,
    RemoteCheckError, RemoteLimiter,
};
use overdrive_ratelimit::{Deadline, Quota};
use overdrive_testkit::RedisServer;

const LONG: Duration = Duration::from_secs(30);

fn limiter(server: &RedisServer, policy: OnFailure) -> RemoteLimiter {
    limiter_of(server, Quota::per_hour(1_000), policy)
}

fn limiter_of(server: &RedisServer, quota: Quota, policy: OnFailure) -> RemoteLimiter {
    let mut settings = RedisSettings::web();
    settings.url = server.url();
    settings.breaker_open_for = Duration::from_millis(1);
    RemoteLimiter::builder(Remote::lazy(settings).unwrap())
        .quota(quota)
        .on_failure(policy)
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

fn leased(server: &RedisServer) -> LeasedRemoteLimiter {
    let mut settings = LeaseSettings::of(100);
    settings.idle = Duration::from_secs(3_600);
    limiter(server, OnFailure::Closed)
        .leased("a", settings)
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

async fn taken(limiter: &LeasedRemoteLimiter, checks: u64) -> u64 {
    let mut taken = 0;
    for _ in 0..checks {
        taken += u64::from(limiter.check().await.is_ok());
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_together_spend_the_quota_and_no_more() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (leased(&server), leased(&server));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let limiter = if task % 2 == 0 {
                one.clone()
            } else {
                two.clone()
            };
            tokio::spawn(async move { taken(&limiter, 300).await })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    let (of_one, of_two) = (one.stats(), two.stats());
    let held = of_one.held + of_two.held + of_one.returned + of_two.returned;
    assert!(sum <= 1_000, "{sum}");
    assert_eq!(of_one.leased + of_two.leased, sum + held);
    assert!(of_one.held <= one.held_bound() && of_two.held <= two.held_bound());
    assert!(of_one.trips + of_two.trips < 200, "{of_one:?} {of_two:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_spent_goes_back_at_the_end() {
    let server = RedisServer::start().unwrap();
    let (one, other) = (leased(&server), leased(&server));
    assert_eq!(taken(&one, 130).await, 130);
    let report = one.drain(LONG).await;
    assert!(report.is_complete() && report.finished > 0, "{report:?}");
    assert!(matches!(one.check().await, Err(RemoteCheckError::Closed)));
    let left = other.limiter().snapshot("a").await.unwrap().remaining;
    assert_eq!(left, 870);
    assert_eq!(taken(&other, 10).await, 10);
    let watch = other.limiter().clone();
    drop(other);
    while watch.snapshot("a").await.unwrap().remaining != 860 {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_needed_goes_back_by_itself() {
    let server = RedisServer::start().unwrap();
    let mut settings = LeaseSettings::of(100);
    settings.idle = Duration::from_millis(1);
    let limiter = limiter(&server, OnFailure::Closed);
    let leased = limiter.leased("a", settings).unwrap();
    leased.check().await.unwrap();
    while limiter.snapshot("a").await.unwrap().remaining != 999 {}
    assert_eq!(leased.stats().held, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_are_given_up_spend_nothing() {
    let server = RedisServer::start().unwrap();
    let limiter = leased(&server);
    for _ in 0..50 {
        // Polled once.
        tokio::select! {
            biased;
            _ = limiter.check() => {}
            () = std::future::ready(()) => {}
        }
    }
    let spent = limiter.stats().allowed;
    assert!(limiter.drain(LONG).await.is_complete());
    let left = limiter.limiter().snapshot("a").await.unwrap().remaining;
    assert_eq!(left, 1_000 - spent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_leases_are_spent_and_then_the_policy_holds() {
    for (policy, more) in [
        (OnFailure::Closed, 0),
        (OnFailure::Open, 2_000),
        // The leases were charged to the share of 500.
        (OnFailure::LocalShare { instances: 2 }, 400),
    ] {
        let mut server = RedisServer::start().unwrap();
        let limiter = limiter(&server, policy);
        let mut settings = LeaseSettings::of(100);
        settings.idle = Duration::from_secs(3_600);
        let leased = limiter.leased("a", settings).unwrap();
        assert_eq!(taken(&leased, 20).await, 20);
        assert_eq!(leased.stats().leased, 100);
        server.kill();
        let allowed = taken(&leased, 2_080).await;
        assert_eq!(allowed, 80 + more, "{policy:?}");
        assert_eq!(leased.stats().allowed, 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_paused_and_killed_under_load_does_not_lead_to_double_spending() {
    let mut server = RedisServer::start().unwrap();
    let (one, two) = (leased(&server), leased(&server));
    let load =
        |limiter: LeasedRemoteLimiter| tokio::spawn(async move { taken(&limiter, 700).await });
    let tasks = [load(one.clone()), load(two.clone())];
    while one.stats().trips + two.stats().trips < 4 {
        tokio::task::yield_now().await;
    }
    server.pause().unwrap();
    server.resume().unwrap();
    server.kill();
    for task in tasks {
        task.await.unwrap();
    }
    for limiter in [&one, &two] {
        let stats = limiter.stats();
        assert!(stats.allowed <= stats.leased, "{stats:?}");
        assert_eq!(
            stats.allowed + stats.held + stats.returned + stats.lost,
            stats.leased
        );
    }
    let (one, two) = (one.stats(), two.stats());
    assert!(one.allowed + two.allowed <= 1_000);
    assert!(one.leased + two.leased <= 1_000 + one.returned + two.returned);
}

/// Two instances with four callers each, killed and restarted under their load three times.
async fn outages(policy: OnFailure, arguments: &[&str], bursts: u64) {
    let mut server = RedisServer::start_with(arguments).unwrap();
    let instances = [(); 2].map(|()| {
        let mut settings = LeaseSettings::of(20);
        settings.idle = Duration::from_secs(3_600);
        limiter(&server, policy).leased("a", settings).unwrap()
    });
    let trips = || instances.iter().map(|one| one.stats().trips).sum::<u64>();
    let mut granted = 0;
    for _ in 0..3 {
        let before = trips();
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let limiter = instances[caller % 2].clone();
                tokio::spawn(async move { taken(&limiter, 100).await })
            })
            .collect();
        until(|| trips() > before + 2 || callers.iter().all(|caller| caller.is_finished())).await;
        server.kill();
        for caller in callers {
            granted += caller.await.unwrap();
        }
        server.restart().unwrap();
        for limiter in &instances {
            let limiter = limiter.limiter();
            // The breaker lets a probe through after a millisecond.
            while !matches!(limiter.check("b").await, Ok(granted) if granted.by == DecidedBy::Server)
            {
                tokio::task::yield_now().await;
            }
        }
    }
    let (mut spent, mut by_policy) = (0, 0);
    for one in &instances {
        let (stats, beneath) = (one.stats(), one.limiter().stats());
        let gone = stats.returned + stats.lost + stats.handed;
        assert_eq!(stats.allowed + stats.held + gone, stats.leased, "{stats:?}");
        assert!(stats.held <= one.held_bound(), "{stats:?}");
        match policy {
            OnFailure::Closed => assert_eq!(beneath.policy_allowed, 0),
            OnFailure::Open => assert_eq!(beneath.policy_denied, 0),
            // A burst for each of the keys.
            _ => assert!(beneath.policy_allowed <= 2 * 500, "{beneath:?}"),
        }
        spent += stats.allowed;
        by_policy += beneath.policy_allowed;
    }
    assert!(spent <= bursts * 1_000, "{spent} by leases, {policy:?}");
    assert!(granted <= spent + by_policy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_under_load_with_its_data_gives_no_second_burst() {
    let share = OnFailure::LocalShare { instances: 2 };
    for policy in [OnFailure::Closed, OnFailure::Open, share] {
        outages(policy, RedisServer::PERSISTENT, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_under_load_without_its_data_gives_one_burst_each_time() {
    outages(OnFailure::Closed, &[], 4).await;
}

#[test]
fn leases_that_make_no_sense_are_refused_by_name() {
    let remote = Remote::lazy(RedisSettings::default()).unwrap();
    let limiter = RemoteLimiter::builder(remote)
        .quota(Quota::per_second(10))
        .build()
        .unwrap();
    let field = |settings| limiter.leased("a", settings).unwrap_err().field();
    assert_eq!(field(LeaseSettings::of(0)), "size");
    assert_eq!(field(LeaseSettings::of(11)), "size");
    let mut never = LeaseSettings::of(5);
    never.idle = Duration::MAX;
    assert_eq!(field(never), "idle");
}

#[test]
fn a_keeper_that_was_never_polled_is_replaced() {
    let server = RedisServer::start().unwrap();
    let leased = leased(&server);
    let first = runtime();
    first.block_on(async {
        let mut check = pin!(leased.check());
        assert!(poll_once(check.as_mut()).is_pending());
    });
    drop(first);
    runtime().block_on(async { leased.check().await.unwrap() });
}

#[test]
fn a_check_outside_a_runtime_panics_and_does_no_lasting_harm() {
    let server = RedisServer::start().unwrap();
    let leased = leased(&server);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = poll_once(pin!(leased.check()));
    }));
    assert!(caught.is_err());
    runtime().block_on(async { leased.check().await.unwrap() });
}

#[test]
fn what_a_dead_keeper_left_is_given_back_by_a_drain_and_by_the_last_drop() {
    for drain in [true, false] {
        let server = RedisServer::start().unwrap();
        let leased = leased(&server);
        let first = runtime();
        first.block_on(async { leased.check().await.unwrap() });
        drop(first);
        assert_eq!(leased.stats().held, 99);
        let limiter = leased.limiter().clone();
        runtime().block_on(async {
            if drain {
                let report = leased.drain(LONG).await;
                assert!(report.is_complete() && report.finished == 99, "{report:?}");
            }
            drop(leased);
            while limiter.snapshot("a").await.unwrap().remaining != 999 {}
        });
    }
}

#[test]
fn those_who_wait_get_another_keeper_if_theirs_dies_with_its_runtime() {
    let server = RedisServer::start().unwrap();
    let leased = leased(&server);
    let first = runtime();
    // Starts the keeper there, with a trip that the server does not answer.
    first.block_on(async {
        leased.limiter().snapshot("a").await.unwrap();
        server.pause().unwrap();
        let mut check = pin!(leased.check());
        assert!(poll_once(check.as_mut()).is_pending());
        until(|| leased.stats().trips > 0).await;
    });
    runtime().block_on(async {
        let mut check = pin!(leased.check());
        assert!(poll_once(check.as_mut()).is_pending());
        std::thread::spawn(move || drop(first)).join().unwrap();
        server.resume().unwrap();
        check.await.unwrap();
    });
}

#[tokio::test]
async fn what_a_cancelled_check_hands_back_goes_back_to_the_server() {
    let server = RedisServer::start().unwrap();
    let limiter = limiter(&server, OnFailure::Closed);
    let mut settings = LeaseSettings::of(100);
    settings.idle = Duration::from_millis(1);
    let leased = limiter.leased("a", settings).unwrap();
    {
        let mut check = pin!(leased.check_n(100, Deadline::NEVER));
        assert!(poll_once(check.as_mut()).is_pending());
        // Handed over, and not looked at.
        until(|| leased.stats().handed == 100).await;
    }
    while limiter.snapshot("a").await.unwrap().remaining != 1_000 {}
    assert_eq!(leased.stats().held, 0);
}

#[tokio::test]
async fn a_drain_reports_what_was_handed_over_and_not_looked_at() {
    let server = RedisServer::start().unwrap();
    let leased = leased(&server);
    {
        let mut check = pin!(leased.check_n(100, Deadline::NEVER));
        assert!(poll_once(check.as_mut()).is_pending());
        until(|| leased.stats().handed == 100).await;
        let report = leased.drain(Duration::from_millis(20)).await;
        assert_eq!((report.finished, report.abandoned), (0, 100));
    }
    let report = leased.drain(LONG).await;
    assert_eq!((report.finished, report.abandoned), (100, 0));
}

#[tokio::test]
async fn a_denial_of_the_first_is_none_of_those_behind_it_and_of_its_own_size() {
    let server = RedisServer::start().unwrap();
    let leased = leased(&server);
    let direct = leased.limiter().check_n("a", 950, Deadline::NEVER).await;
    assert!(direct.is_ok());
    let (many, one) = tokio::join!(leased.check_n(100, Deadline::NEVER), leased.check());
    assert!(one.is_ok(), "{one:?} with {:?}", leased.stats());
    // Fifty-one are missing, at 3.6 s each; and so they are for who asks now.
    let again = leased.check_n(100, Deadline::NEVER).await;
    for denied in [many, again] {
        let after = denied.unwrap_err().retry_after().unwrap();
        assert!(after > Duration::from_secs(150), "{after:?}");
    }
}

#[tokio::test]
async fn tokens_that_were_handed_over_long_ago_are_not_spent() {
    let server = RedisServer::start().unwrap();
    let quota = Quota::per_second(2_000).burst(1_000);
    let limiter = limiter_of(&server, quota, OnFailure::Closed);
    let mut settings = LeaseSettings::of(100);
    settings.idle = Duration::from_millis(1);
    let leased = limiter.leased("a", settings).unwrap();
    let mut checks: Vec<_> = (0..10)
        .map(|_| Box::pin(leased.check_n(100, Deadline::NEVER)))
        .collect();
    for check in &mut checks {
        assert!(poll_once(check.as_mut()).is_pending());
    }
    until(|| leased.stats().handed == 1_000).await;
    let before = leased.stats().leased;
    // Half a second later all is there again.
    while limiter.snapshot("a").await.unwrap().remaining != 1_000 {}
    let mut granted = 0;
    for check in checks {
        granted += if check.await.is_ok() { 100 } else { 0 };
    }
    let stats = leased.stats();
    let anew = stats.leased - before + leased.held_bound();
    assert!(granted <= anew, "{granted} of {anew}: {stats:?}");
}
