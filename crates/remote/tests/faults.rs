//! What it does while the server is not.

mod support;

use std::time::Duration;

use overdrive_remote::redis::cmd;
use overdrive_remote::{Deadline, Health, Remote, RemoteError};
use overdrive_testkit::{Proxy, RedisServer};
use tokio::time::timeout;

use support::{LONG, SHORT, settings};

/// A breaker that stays out of the way.
const NEVER: u32 = u32::MAX;

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let mut server = RedisServer::start().unwrap();
    let addr = server.addr().to_string();
    server.kill();
    let error = Remote::connect(settings(server.url())).await.unwrap_err();
    assert!(matches!(&error, RemoteError::Unreachable { addr: a, .. } if *a == addr));
    assert_eq!(
        error.to_string(),
        format!("no connection to redis at {addr}")
    );
    assert!(error.is_unavailable() && std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_server_that_never_welcomes_is_given_up_within_the_dial_timeout() {
    let server = RedisServer::start().unwrap();
    server.pause().unwrap();
    let mut settings = settings(server.url());
    settings.dial_timeout = SHORT;
    let connect = timeout(LONG, Remote::connect(settings)).await.unwrap();
    let error = connect.unwrap_err();
    assert!(matches!(&error, RemoteError::Unreachable { source, .. } if source.is_timeout()));
}

#[tokio::test]
async fn a_bad_setting_is_named() {
    let error = Remote::connect(settings("nonsense".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(&error, RemoteError::Config(e) if e.field() == "url"));
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn a_killed_server_fails_calls_opens_the_breaker_and_recovers() {
    let mut server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.breaker_open_for = Duration::from_millis(300);
    let remote = Remote::connect(settings).await.unwrap();
    remote.set(b"k", b"v", LONG).await.unwrap();
    server.kill();
    let mut failures = 0;
    let open = loop {
        let error = remote.get(b"k", LONG).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        match error {
            RemoteError::Open(open) => break open,
            RemoteError::Unreachable { .. } => failures += 1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failures, 5);
    assert!(open.retry_after <= Duration::from_millis(300));
    assert_eq!(remote.health(), Health::Unhealthy);
    // Open, it asks nobody: no connection is tried.
    let dials = remote.stats().failed_dials;
    while remote.health() == Health::Unhealthy {
        match remote.get(b"k", LONG).await {
            Err(error) if is_open(&error) => {}
            // The time was up in between: this was the probe.
            _ => break,
        }
    }
    assert!(remote.stats().failed_dials <= dials + 1);
    assert!(remote.stats().rejected_by_breaker > 1);

    server.restart().unwrap();
    let recovered = timeout(LONG, async {
        while let Err(error) = remote.get(b"k", LONG).await {
            assert!(error.is_unavailable(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    recovered.await.expect("it recovers");
    assert_eq!(remote.health(), Health::Healthy);
}

#[tokio::test]
async fn connections_that_died_while_idle_are_replaced_unnoticed() {
    let mut server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.min_idle = 4;
    let remote = Remote::connect(settings).await.unwrap();
    server.restart().unwrap();
    // Their tasks see the end.
    until(|| async { remote.get(b"k", LONG).await.is_ok() }).await;
    for _ in 0..10 {
        remote.get(b"k", LONG).await.unwrap();
    }
    assert!(remote.stats().failures <= 4);
    assert_eq!(remote.health(), Health::Healthy);
}

#[tokio::test]
async fn a_silent_server_runs_into_the_read_timeout_and_the_callers_deadline() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.read_timeout = SHORT;
    settings.breaker_failures = NEVER;
    let remote = Remote::connect(settings.clone()).await.unwrap();
    server.pause().unwrap();
    let error = remote.get(b"k", LONG).await.unwrap_err();
    assert!(matches!(error, RemoteError::TimedOut { after } if after == SHORT));
    settings.read_timeout = LONG;
    server.resume().unwrap();
    let remote = Remote::connect(settings).await.unwrap();
    server.pause().unwrap();
    let error = remote.get(b"k", SHORT).await.unwrap_err();
    assert!(matches!(error, RemoteError::TimedOut { after } if after <= SHORT));
    let error = remote
        .get(b"k", Deadline::after(Duration::ZERO))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        RemoteError::PoolTimedOut { .. } | RemoteError::TimedOut { .. }
    ));
    assert_eq!(remote.stats().lost, 1);
}

#[tokio::test]
async fn a_silent_server_opens_the_breaker() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.read_timeout = Duration::from_millis(20);
    settings.dial_timeout = Duration::from_millis(20);
    settings.breaker_open_for = LONG;
    let remote = Remote::connect(settings).await.unwrap();
    server.pause().unwrap();
    for _ in 0..5 {
        assert!(!is_open(&remote.get(b"k", LONG).await.unwrap_err()));
    }
    assert!(is_open(&remote.get(b"k", LONG).await.unwrap_err()));
    assert!(is_open(&remote.dedicated(LONG).await.unwrap_err()));
}

#[tokio::test]
async fn deadlines_that_have_passed_say_nothing_about_the_server() {
    let server = RedisServer::start().unwrap();
    let remote = Remote::connect(settings(server.url())).await.unwrap();
    let passed = Deadline::after(Duration::ZERO);
    for _ in 0..20 {
        remote.get(b"k", passed).await.unwrap_err();
    }
    remote.get(b"k", LONG).await.unwrap();
}

#[tokio::test]
async fn a_request_that_the_server_does_not_take_runs_into_the_write_timeout() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.read_timeout = LONG;
    settings.write_timeout = SHORT;
    let remote = Remote::connect(settings).await.unwrap();
    server.pause().unwrap();
    // More than the buffers of the system hold.
    let value = vec![0; 64 << 20];
    let error = remote.set(b"k", &value, LONG).await.unwrap_err();
    assert!(
        matches!(error, RemoteError::TimedOut { after } if after == SHORT),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_reply_fails_that_call_only() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let remote = Remote::connect(settings(format!("redis://{}", proxy.addr())))
        .await
        .unwrap();
    let value = vec![7; 100_000];
    remote.set(b"k", &value, LONG).await.unwrap();
    proxy.cut_after(50_000);
    let error = remote.get(b"k", LONG).await.unwrap_err();
    assert!(
        matches!(error, RemoteError::Unreachable { .. }),
        "{error:?}"
    );
    proxy.heal();
    assert_eq!(remote.get(b"k", LONG).await.unwrap().unwrap(), value);
    assert_eq!(remote.health(), Health::Healthy);
}

#[tokio::test]
async fn idempotent_calls_are_tried_again_and_others_are_not() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut settings = settings(format!("redis://{}", proxy.addr()));
    settings.retries = 3;
    settings.breaker_failures = NEVER;
    let remote = Remote::connect(settings).await.unwrap();
    proxy.cut();
    remote.query::<()>(&cmd("PING"), LONG).await.unwrap_err();
    assert_eq!(remote.stats().retries, 0);
    let error = remote
        .query_idempotent::<()>(&cmd("PING"), LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RemoteError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(remote.stats().retries, 3);
    // Without a failure nothing is tried again.
    proxy.heal();
    let wrong = cmd("NO-SUCH-COMMAND");
    remote
        .query_idempotent::<()>(&wrong, LONG)
        .await
        .unwrap_err();
    assert_eq!(remote.stats().retries, 3);
}

#[tokio::test]
async fn a_retry_gets_through_once_the_connection_is_back() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut settings = settings(format!("redis://{}", proxy.addr()));
    settings.retries = 100;
    settings.breaker_failures = NEVER;
    let remote = Remote::connect(settings).await.unwrap();
    proxy.cut();
    let call = tokio::spawn({
        let remote = remote.clone();
        async move { remote.query_idempotent::<String>(&cmd("PING"), LONG).await }
    });
    until(|| async { remote.stats().retries > 0 }).await;
    proxy.heal();
    assert_eq!(call.await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn a_cancelled_call_takes_its_connection_with_it() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.pool_size = 1;
    let remote = Remote::connect(settings).await.unwrap();
    remote.set(b"k", b"right", LONG).await.unwrap();
    server.pause().unwrap();
    let echo = cmd("ECHO").arg("wrong").clone();
    let call = remote.query::<String>(&echo, LONG);
    timeout(SHORT, call).await.unwrap_err();
    server.resume().unwrap();
    // The late reply reaches nobody.
    assert_eq!(remote.get(b"k", LONG).await.unwrap().unwrap(), b"right");
    assert_eq!((remote.stats().lost, remote.stats().open), (1, 1));
}

#[tokio::test]
async fn a_call_dropped_at_any_point_leaves_the_remote_usable() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.pool_size = 1;
    settings.min_idle = 0;
    let remote = Remote::connect(settings).await.unwrap();
    for polls in 0..20 {
        let echo = cmd("ECHO").arg("wrong").clone();
        let mut call = Box::pin(remote.query::<String>(&echo, LONG));
        for _ in 0..polls {
            // One poll, and a turn for the driver's task.
            let poll =
                std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
            if poll.await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        let answer: String = remote.query(cmd("ECHO").arg(polls), LONG).await.unwrap();
        assert_eq!(answer, polls.to_string());
    }
    assert_eq!(remote.stats().open, 1);
}

#[test]
fn a_remote_outlives_the_runtime_it_connected_on() {
    let server = RedisServer::start().unwrap();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let remote = runtime()
        .block_on(Remote::connect(settings(server.url())))
        .unwrap();
    let second = runtime();
    second.block_on(remote.set(b"k", b"v", LONG)).unwrap();
    assert_eq!(remote.stats().dials, 2);
    // And is dropped without any.
    drop(second);
    drop(remote);
}

async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, wait).await.expect("in time");
}

fn is_open(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Open(_))
}
