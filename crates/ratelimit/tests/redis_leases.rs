//! Leases of a limit over a real Redis.

use std::time::Duration;

use overdrive_ratelimit::Quota;
use overdrive_ratelimit::redis::{
    LeaseSettings, LeasedRemoteLimiter, OnFailure, RedisSettings, Remote, RemoteCheckError,
    RemoteLimiter,
};
use overdrive_testkit::RedisServer;

const LONG: Duration = Duration::from_secs(30);

fn limiter(server: &RedisServer, policy: OnFailure) -> RemoteLimiter {
    let mut settings = RedisSettings::web();
    settings.url = server.url();
    settings.breaker_open_for = Duration::from_millis(1);
    RemoteLimiter::builder(Remote::lazy(settings).unwrap())
        .quota(Quota::per_hour(1_000))
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
    assert!(one.stats().leased + two.stats().leased <= 1_000);
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
