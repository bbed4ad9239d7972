//! What it does while the server is well.

mod support;

use std::time::Duration;

use overdrive_remote::redis::{Script, cmd, pipe};
use overdrive_remote::{Deadline, Dedicated, Health, RedisSettings, Remote, RemoteError};
use overdrive_remote::{RemoteStats, Request};
use overdrive_testkit::{RedisServer, Reply};

use support::{LONG, SHORT, settings};

const fn is_send_and_sync<T: Send + Sync>() {}
const _: () = {
    is_send_and_sync::<Remote>();
    is_send_and_sync::<Dedicated>();
    is_send_and_sync::<RedisSettings>();
    is_send_and_sync::<RemoteError>();
    is_send_and_sync::<RemoteStats>();
};

fn is_send<F: Future + Send>(future: F) -> F {
    future
}

async fn remote(server: &RedisServer) -> Remote {
    Remote::connect(settings(server.url())).await.unwrap()
}

#[tokio::test]
async fn commands_pipelines_and_scripts_are_answered() {
    let server = RedisServer::start().unwrap();
    let remote = remote(&server).await;
    let n: i64 = is_send(remote.query(cmd("INCR").arg("n"), LONG))
        .await
        .unwrap();
    assert_eq!(n, 1);
    let mut pipeline = pipe();
    pipeline.atomic().incr("n", 1).get("n");
    let both: (i64, i64) = remote.query(&pipeline, LONG).await.unwrap();
    assert_eq!(both, (2, 2));
    // Unknown to the server at first.
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    for expected in [12, 22] {
        let mut call = script.prepare_invoke();
        call.key("n").arg(10);
        let n: i64 = remote.query(&call, LONG).await.unwrap();
        assert_eq!(n, expected);
    }
}

#[tokio::test]
async fn values_live_for_the_settings_ttl() {
    let server = RedisServer::start().unwrap();
    let remote = remote(&server).await;
    let key = remote.key(&["user", "17"]);
    assert_eq!(remote.get(&key, LONG).await.unwrap(), None);
    remote.set(&key, b"Ada", LONG).await.unwrap();
    assert_eq!(remote.get(&key, LONG).await.unwrap().unwrap(), b"Ada");
    let ttl = server.command(&["PTTL", "nextevent:v2:user:17"]).unwrap();
    let hour = 3_600_000;
    assert!(
        matches!(ttl, Reply::Integer(ms) if (hour - 60_000..=hour).contains(&ms)),
        "{ttl:?}"
    );
}

#[tokio::test]
async fn connect_opens_the_idle_connections_and_lazy_none() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.min_idle = 3;
    let lazy = Remote::lazy(settings.clone()).unwrap();
    assert_eq!((lazy.stats().open, lazy.health()), (0, Health::Healthy));
    let remote = Remote::connect(settings).await.unwrap();
    let stats = remote.stats();
    assert_eq!((stats.open, stats.idle, stats.dials), (3, 3, 3));
    for _ in 0..10 {
        remote.set(b"k", b"v", LONG).await.unwrap();
    }
    let stats = remote.stats();
    assert_eq!(
        (stats.open, stats.idle, stats.dials, stats.calls),
        (3, 3, 3, 10)
    );
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_answer_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right"]).unwrap();
    let url = |password: &str| format!("redis://:{password}@{}/0", server.addr());
    let error = Remote::connect(settings(url("hunter2"))).await.unwrap_err();
    assert!(matches!(error, RemoteError::Server(_)), "{error:?}");
    assert!(!error.is_unavailable());
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let remote = Remote::connect(settings(url("right"))).await.unwrap();
    remote.set(b"k", b"v", LONG).await.unwrap();
    let shown = format!("{remote:?} {:?}", remote.settings());
    assert!(!shown.contains("right"), "{shown}");
}

#[tokio::test]
async fn the_database_of_the_url_is_used() {
    let server = RedisServer::start().unwrap();
    let remote = Remote::connect(settings(format!("{}/5", server.url())))
        .await
        .unwrap();
    remote.set(b"k", b"v", LONG).await.unwrap();
    assert_eq!(server.command(&["GET", "k"]).unwrap(), Reply::Nil);
}

#[tokio::test]
async fn error_replies_do_not_open_the_breaker() {
    let server = RedisServer::start().unwrap();
    let remote = remote(&server).await;
    remote.set(b"text", b"v", LONG).await.unwrap();
    for _ in 0..20 {
        let pushed = remote
            .query::<i64>(cmd("LPUSH").arg("text").arg("x"), LONG)
            .await;
        let error = pushed.unwrap_err();
        assert!(matches!(&error, RemoteError::Server(e) if e.code() == Some("WRONGTYPE")));
        assert!(!error.is_unavailable());
        // A reply of another type than asked for.
        let error = remote
            .query::<i64>(cmd("GET").arg("text"), LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, RemoteError::Server(_)));
    }
    assert_eq!(remote.health(), Health::Healthy);
    let stats = remote.stats();
    assert_eq!((stats.failures, stats.lost, stats.open), (40, 0, 1));
}

#[tokio::test]
async fn calls_beyond_the_pool_wait_and_time_out_with_their_own_error() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.pool_size = 1;
    settings.pool_wait = SHORT;
    let remote = Remote::connect(settings).await.unwrap();
    let holder = tokio::spawn({
        let remote = remote.clone();
        async move {
            let mut wait = cmd("BLPOP");
            wait.arg("list").arg(0);
            remote.query::<(String, String)>(&wait, LONG).await
        }
    });
    blocked_clients(&server, 1).await;
    let error = remote.get(b"k", LONG).await.unwrap_err();
    assert!(matches!(error, RemoteError::PoolTimedOut { after } if after == SHORT));
    assert!(!error.is_unavailable());
    server.command(&["RPUSH", "list", "go"]).unwrap();
    assert_eq!(holder.await.unwrap().unwrap().1, "go");
    remote.get(b"k", LONG).await.unwrap();
    let stats = remote.stats();
    assert_eq!((stats.pool_timeouts, stats.open, stats.lost), (1, 1, 0));
}

#[tokio::test]
async fn the_pool_grows_under_load_and_shrinks_when_idle() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.idle_timeout = Duration::from_millis(20);
    let remote = Remote::connect(settings).await.unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let remote = remote.clone();
            tokio::spawn(async move {
                let mut wait = cmd("BLPOP");
                wait.arg("list").arg(0);
                remote.query::<(String, String)>(&wait, LONG).await
            })
        })
        .collect();
    blocked_clients(&server, 4).await;
    assert_eq!(remote.stats().open, 4);
    server
        .command(&["RPUSH", "list", "a", "b", "c", "d"])
        .unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    until(|| remote.stats().open == 1).await;
    assert_eq!((remote.stats().lost, remote.stats().idle), (0, 1));
}

#[tokio::test]
async fn lazy_opens_its_idle_connections_in_time() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.min_idle = 3;
    settings.idle_timeout = Duration::from_millis(20);
    let remote = Remote::lazy(settings).unwrap();
    remote.get(b"k", LONG).await.unwrap();
    until(|| remote.stats().idle == 3).await;
}

#[tokio::test]
async fn a_closed_remote_refuses_and_wakes_those_who_wait() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.pool_size = 1;
    let remote = Remote::connect(settings).await.unwrap();
    let block = |remote: Remote| async move {
        let mut wait = cmd("BLPOP");
        wait.arg("list").arg(0);
        remote.query::<(String, String)>(&wait, LONG).await
    };
    let under_way = tokio::spawn(block(remote.clone()));
    blocked_clients(&server, 1).await;
    let waiting = tokio::spawn(block(remote.clone()));
    until(|| remote.stats().calls == 2).await;
    remote.close();
    remote.close();
    assert!(matches!(waiting.await.unwrap(), Err(RemoteError::Closed)));
    assert!(matches!(
        remote.get(b"k", LONG).await,
        Err(RemoteError::Closed)
    ));
    assert!(matches!(
        remote.dedicated(LONG).await,
        Err(RemoteError::Closed)
    ));
    assert_eq!(remote.health(), Health::Unhealthy);
    server.command(&["RPUSH", "list", "go"]).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().1, "go");
    assert_eq!(remote.stats().open, 0);
}

#[tokio::test]
async fn the_last_handle_closes_the_connections() {
    let server = RedisServer::start().unwrap();
    let remote = remote(&server).await;
    drop(remote.clone());
    remote.get(b"k", LONG).await.unwrap();
    drop(remote);
    until(|| clients(&server) == 1).await;
}

#[tokio::test]
async fn a_dedicated_connection_waits_beyond_the_read_timeout() {
    let server = RedisServer::start().unwrap();
    let mut settings = settings(server.url());
    settings.read_timeout = Duration::from_millis(10);
    let remote = Remote::connect(settings).await.unwrap();
    let mut own = remote.dedicated(LONG).await.unwrap();
    let mut wait = cmd("BLPOP");
    wait.arg("list").arg(0.1);
    // Longer than ten milliseconds, and an answer: nothing came.
    let nothing: Option<(String, String)> = own.query(&wait, Deadline::NEVER).await.unwrap();
    assert_eq!(nothing, None);
    let mut forever = cmd("BLPOP");
    forever.arg("list").arg(0);
    let error = own.query::<()>(&forever, SHORT).await.unwrap_err();
    assert!(matches!(error, RemoteError::TimedOut { after } if after <= SHORT));
    let error = own.query::<()>(&cmd("PING"), LONG).await.unwrap_err();
    assert!(matches!(error, RemoteError::Closed));
}

#[tokio::test]
async fn requests_can_be_generic() {
    async fn send(remote: &Remote, request: &impl Request) -> String {
        remote.query(request, LONG).await.unwrap()
    }
    let server = RedisServer::start().unwrap();
    assert_eq!(send(&remote(&server).await, &cmd("PING")).await, "PONG");
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("in time");
}

async fn blocked_clients(server: &RedisServer, n: usize) {
    let line = format!("blocked_clients:{n}\r");
    let info = || {
        server
            .command(&["INFO", "clients"])
            .unwrap()
            .text()
            .unwrap()
    };
    until(|| info().contains(&line)).await;
}

/// The one that asks included.
fn clients(server: &RedisServer) -> usize {
    let list = server.command(&["CLIENT", "LIST"]).unwrap();
    list.text().unwrap().lines().count()
}

#[tokio::test]
async fn an_answer_of_another_type_is_not_repeated_by_the_error() {
    let server = RedisServer::start().unwrap();
    let remote = Remote::connect(settings(server.url())).await.unwrap();
    remote.set(b"k", b"secret", LONG).await.unwrap();
    let get = cmd("GET").arg("k").clone();
    let mut dedicated = remote.dedicated(LONG).await.unwrap();
    for error in [
        remote.query::<u64>(&get, LONG).await.unwrap_err(),
        dedicated.query::<u64>(&get, LONG).await.unwrap_err(),
    ] {
        let source = std::error::Error::source(&error).unwrap().to_string();
        let shown = format!("{error} {error:?} {source}");
        assert!(matches!(error, RemoteError::Server(_)), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
