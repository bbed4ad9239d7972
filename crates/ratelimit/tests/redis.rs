//! Limits over a real Redis.

use std::time::Duration;

use overdrive_ratelimit::Quota;
use overdrive_ratelimit::redis::{
    DecidedBy, OnFailure, RedisSettings, Remote, RemoteCheckError, RemoteLimiter,
    RemoteLimiterBuilder,
};
use overdrive_testkit::{RedisServer, Reply};

fn builder(server: &RedisServer) -> RemoteLimiterBuilder {
    let mut settings = RedisSettings::web();
    settings.url = server.url();
    settings.prefix = "test:".to_owned();
    RemoteLimiter::builder(Remote::lazy(settings).unwrap())
        .name("api")
        .quota(Quota::per_hour(10))
        .timeout(Duration::from_secs(10))
}

async fn taken(limiter: &RemoteLimiter, key: &str, checks: u32) -> u32 {
    let mut taken = 0;
    for _ in 0..checks {
        taken += u32::from(limiter.check(key).await.is_ok());
    }
    taken
}

#[tokio::test]
async fn two_instances_share_each_keys_quota_exactly() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (
        builder(&server).build().unwrap(),
        builder(&server).build().unwrap(),
    );
    let of_a = tokio::join!(taken(&one, "a", 8), taken(&two, "a", 8));
    assert_eq!(of_a.0 + of_a.1, 10);
    assert_eq!(taken(&two, "b", 12).await, 10, "a key of its own");
    let RemoteCheckError::Denied(denied) = one.check("a").await.unwrap_err() else {
        panic!("not denied");
    };
    assert!(denied.retry_after > Duration::from_secs(300), "{denied:?}");
    assert!(denied.retry_after <= Duration::from_secs(360), "{denied:?}");
}

#[tokio::test]
async fn several_tokens_are_taken_at_once_or_not_at_all() {
    let server = RedisServer::start().unwrap();
    let limiter = builder(&server).build().unwrap();
    let by = Duration::from_secs(10);
    let granted = limiter.check_n("a", 7, by).await.unwrap();
    assert_eq!((granted.remaining, granted.by), (3, DecidedBy::Server));
    assert!(limiter.check_n("a", 4, by).await.is_err());
    assert!(limiter.check_n("a", 0, by).await.is_ok());
    assert_eq!(limiter.snapshot("a").await.unwrap().remaining, 3);
    limiter.refund("a", 2).await.unwrap();
    assert!(limiter.check_n("a", 5, by).await.is_ok());
    let never = limiter.check_n("a", 11, by).await.unwrap_err();
    assert!(matches!(
        never,
        RemoteCheckError::ExceedsBurst {
            asked: 11,
            burst: 10
        }
    ));
    limiter.refund("a", u64::MAX).await.unwrap();
    assert_eq!(limiter.snapshot("a").await.unwrap().remaining, 10);
}

#[tokio::test]
async fn a_key_at_the_server_has_an_end_and_goes_with_its_debt() {
    let server = RedisServer::start().unwrap();
    let limiter = builder(&server).build().unwrap();
    limiter.check("a").await.unwrap();
    let key = "test:ratelimit:api:{a}";
    let Reply::Integer(left) = server.command(&["PTTL", key]).unwrap() else {
        panic!("no time to live");
    };
    assert!((1..=360_002).contains(&left), "{left}");
    limiter.refund("a", 1).await.unwrap();
    assert_eq!(server.command(&["EXISTS", key]).unwrap(), Reply::Integer(0));
}

#[tokio::test]
async fn an_arrival_beyond_a_full_burst_delays_by_a_full_burst_at_most() {
    let server = RedisServer::start().unwrap();
    let limiter = builder(&server).build().unwrap();
    // As if the clock of the server had been years ahead.
    let state = [8e15, 0.0, 1.0].map(f64::to_le_bytes).concat();
    let key = b"test:ratelimit:api:{a}".as_slice();
    server.command(&[b"SET".as_slice(), key, &state]).unwrap();
    let RemoteCheckError::Denied(denied) = limiter.check("a").await.unwrap_err() else {
        panic!("not denied");
    };
    assert!(denied.retry_after <= Duration::from_secs(360), "{denied:?}");
}

#[tokio::test]
async fn the_server_forgetting_its_scripts_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let limiter = builder(&server).build().unwrap();
    assert_eq!(taken(&limiter, "a", 4).await, 4);
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(taken(&limiter, "a", 10).await, 6);
    assert_eq!(limiter.stats().failures, 0);
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_left_to_the_policy() {
    let server = RedisServer::start().unwrap();
    let (list, text) = ("test:ratelimit:api:{list}", "test:ratelimit:api:{text}");
    server.command(&["RPUSH", list, "x"]).unwrap();
    server.command(&["SET", text, "hello"]).unwrap();
    let closed = builder(&server).build().unwrap();
    let open = builder(&server)
        .on_failure(OnFailure::Open)
        .build()
        .unwrap();
    for key in ["list", "text"] {
        let refused = closed.check(key).await.unwrap_err();
        assert!(
            matches!(refused, RemoteCheckError::Unavailable(_)),
            "{refused:?}"
        );
        assert_eq!(open.check(key).await.unwrap().by, DecidedBy::Policy);
    }
    assert_eq!(server.command(&["LLEN", list]).unwrap(), Reply::Integer(1));
    assert!(
        closed.check("other").await.is_ok(),
        "the breaker is not for such errors"
    );
}

#[tokio::test]
async fn extreme_quotas_are_right_or_refused() {
    let server = RedisServer::start().unwrap();
    let year = Duration::from_secs(365 * 24 * 3600);
    let build = |quota| builder(&server).quota(quota).build();
    let slow = build(Quota::per(1, year).burst(100)).unwrap();
    assert_eq!(taken(&slow, "slow", 102).await, 100);
    assert_eq!(
        build(Quota::per(1, year).burst(101)).unwrap_err().field(),
        "burst"
    );
    assert_eq!(
        build(Quota::per_second(1).burst(u64::MAX))
            .unwrap_err()
            .field(),
        "burst"
    );
    assert_eq!(build(Quota::per_second(0)).unwrap_err().field(), "tokens");
    let fast = build(Quota::per_second(1_000_000_000).burst(3_000_000_000)).unwrap();
    let by = Duration::from_secs(10);
    assert!(fast.check_n("fast", 3_000_000_000, by).await.is_ok());
    assert!(fast.snapshot("fast").await.unwrap().remaining <= 3_000_000_000);
}

#[tokio::test]
async fn a_closed_limiter_says_so() {
    let server = RedisServer::start().unwrap();
    let limiter = builder(&server)
        .on_failure(OnFailure::Open)
        .build()
        .unwrap();
    limiter.close();
    assert!(matches!(
        limiter.check("a").await,
        Err(RemoteCheckError::Closed)
    ));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let of = || {
        let remote = Remote::lazy(RedisSettings::default()).unwrap();
        RemoteLimiter::builder(remote).quota(Quota::per_second(10))
    };
    let field = |builder: RemoteLimiterBuilder| builder.build().unwrap_err().field();
    assert_eq!(field(of().name("")), "name");
    assert_eq!(field(of().timeout(Duration::ZERO)), "timeout");
    assert_eq!(field(of().timeout(Duration::MAX)), "timeout");
    let share = |instances| OnFailure::LocalShare { instances };
    assert_eq!(field(of().on_failure(share(0))), "instances");
    assert_eq!(field(of().on_failure(share(11))), "instances");
}
