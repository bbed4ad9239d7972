//! Limits over a Redis that is killed, paused and restarted.

use std::time::{Duration, Instant};

use overdrive_ratelimit::Quota;
use overdrive_ratelimit::redis::{
    DecidedBy, OnFailure, RedisSettings, Remote, RemoteCheckError, RemoteLimiter,
};
use overdrive_testkit::RedisServer;

fn limiter(server: &RedisServer, policy: OnFailure) -> RemoteLimiter {
    let mut settings = RedisSettings::web();
    settings.url = server.url();
    settings.breaker_open_for = Duration::from_millis(1);
    RemoteLimiter::builder(Remote::lazy(settings).unwrap())
        .quota(Quota::per_hour(100))
        .on_failure(policy)
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

/// Those allowed of so many checks, eight at a time.
async fn allowed(limiter: &RemoteLimiter, checks: u32) -> u32 {
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let limiter = limiter.clone();
            let mine = (task..checks).step_by(8).count();
            tokio::spawn(async move {
                let mut allowed = 0;
                for _ in 0..mine {
                    allowed += u32::from(limiter.check("a").await.is_ok());
                }
                allowed
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    sum
}

const POLICIES: [(OnFailure, u32); 3] = [
    (OnFailure::Open, 64),
    (OnFailure::Closed, 0),
    (OnFailure::LocalShare { instances: 4 }, 25),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_holds_exactly_without_a_server() {
    for (policy, expected) in POLICIES {
        let mut server = RedisServer::start().unwrap();
        let limiter = limiter(&server, policy);
        server.kill();
        assert_eq!(allowed(&limiter, 64).await, expected, "{policy:?}");
        let stats = limiter.stats();
        assert_eq!(stats.policy_allowed + stats.policy_denied, 64);
        assert_eq!(stats.policy_allowed, u64::from(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_counts_what_the_server_granted_before() {
    let mut server = RedisServer::start().unwrap();
    let limiter = limiter(&server, OnFailure::LocalShare { instances: 4 });
    assert_eq!(allowed(&limiter, 20).await, 20);
    server.kill();
    assert_eq!(allowed(&limiter, 64).await, 5);
    server.restart().unwrap();
    // The breaker lets a probe through after a millisecond.
    while limiter
        .check("b")
        .await
        .is_ok_and(|granted| granted.by != DecidedBy::Server)
    {}
    assert_eq!(
        allowed(&limiter, 120).await,
        100,
        "a server without data begins anew"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_holds_exactly_when_the_server_dies_under_load() {
    for (policy, _) in POLICIES {
        let mut server = RedisServer::start().unwrap();
        let limiter = limiter(&server, policy);
        let load = tokio::spawn({
            let limiter = limiter.clone();
            async move { allowed(&limiter, 400).await }
        });
        while limiter.stats().allowed < 8 {
            tokio::task::yield_now().await;
        }
        server.kill();
        let sum = u64::from(load.await.unwrap());
        let stats = limiter.stats();
        assert_eq!(stats.allowed + stats.policy_allowed, sum);
        assert!(stats.allowed <= 100);
        match policy {
            OnFailure::Open => assert_eq!(stats.policy_denied, 0),
            OnFailure::Closed => assert_eq!(stats.policy_allowed, 0),
            _ => assert!(stats.policy_allowed <= 25, "{stats:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_check_of_a_silent_server_waits_beyond_its_deadline_and_a_tenth() {
    let server = RedisServer::start().unwrap();
    let limiter = limiter(&server, OnFailure::Closed);
    limiter.check("a").await.unwrap();
    server.pause().unwrap();
    let limit = Duration::from_millis(200);
    let checks: Vec<_> = (0..32)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                let refused = limiter.check_n("a", 1, limit).await.unwrap_err();
                (start.elapsed(), refused)
            })
        })
        .collect();
    for check in checks {
        let (took, refused) = check.await.unwrap();
        assert!(
            matches!(refused, RemoteCheckError::Unavailable(_)),
            "{refused:?}"
        );
        assert!(took <= limit + limit / 10, "{took:?}");
    }
    server.resume().unwrap();
    while limiter.check("a").await.is_err() {}
}

#[test]
fn a_share_of_a_quota_of_a_year_can_be_set_up() {
    use overdrive_ratelimit::MAX_PERIOD;

    let build = |tokens, instances| {
        let remote = Remote::lazy(RedisSettings::default()).unwrap();
        RemoteLimiter::builder(remote)
            .quota(Quota::per(tokens, MAX_PERIOD).burst(10))
            .on_failure(OnFailure::LocalShare { instances })
            .build()
    };
    assert!(build(10, 2).is_ok());
    assert!(build(1, 2).is_err(), "half a token in a year");
}
