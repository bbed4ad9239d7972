//! The servers and the proxy, with the real programs.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use overdrive_testkit::{PostgresServer, Programs, Proxy, RedisServer, Reply, RespClient};

/// Long for an answer on loopback, short for a test of silence.
const BRIEFLY: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}

fn ping(addr: SocketAddr, limit: Duration) -> io::Result<Reply> {
    RespClient::connect(addr, limit)?.command(&["PING"])
}

#[test]
fn redis_keeps_its_data_over_a_kill_if_asked_to() {
    let mut server = RedisServer::start_with(RedisServer::PERSISTENT).unwrap();
    assert_eq!(server.command(&["SET", "k", "v"]).unwrap(), ok());
    let port = server.port();
    server.kill();
    assert!(server.command(&["GET", "k"]).is_err());
    assert!(server.pause().is_err() && server.resume().is_err());
    server.kill();
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(server.command(&["GET", "k"]).unwrap().text().unwrap(), "v");
}

#[test]
fn a_password_is_used_by_commands() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]).unwrap();
    assert_eq!(server.command(&["SET", "k", "v"]).unwrap(), ok());
    let refused = RespClient::connect(server.addr(), LONG)
        .and_then(|mut client| client.command(&["GET", "k"]))
        .unwrap();
    assert!(matches!(refused, Reply::Error(text) if text.starts_with("NOAUTH")));
}

#[test]
fn redis_loses_its_data_over_a_kill_otherwise() {
    let mut server = RedisServer::start().unwrap();
    assert_eq!(server.command(&["SET", "k", "v"]).unwrap(), ok());
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", "k"]).unwrap(), Reply::Nil);
}

#[test]
fn a_paused_redis_is_silent_and_answers_afterwards() {
    let server = RedisServer::start().unwrap();
    server.pause().unwrap();
    let error = ping(server.addr(), BRIEFLY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    server.resume().unwrap();
    ping(server.addr(), LONG).unwrap();
}

#[test]
fn a_paused_server_can_be_dropped() {
    let server = RedisServer::start().unwrap();
    let addr = server.addr();
    server.pause().unwrap();
    drop(server);
    assert_eq!(
        ping(addr, LONG).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn a_panic_ends_the_server() {
    let (tell, addr) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let server = RedisServer::start().unwrap();
        tell.send(server.addr()).unwrap();
        panic!("a test that fails");
    });
    assert!(thread.join().is_err());
    assert!(ping(addr.recv().unwrap(), LONG).is_err());
}

#[test]
fn replies_of_all_kinds_are_read() {
    let server = RedisServer::start().unwrap();
    let command = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        server.command(&words).unwrap()
    };
    assert_eq!(command("RPUSH l a b"), Reply::Integer(2));
    let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    assert_eq!(
        command("LRANGE l 0 -1"),
        Reply::Array(vec![bytes("a"), bytes("b")])
    );
    assert_eq!(command("GET none"), Reply::Nil);
    assert!(matches!(command("GET l"), Reply::Error(text) if text.starts_with("WRONGTYPE")));
}

#[test]
fn servers_that_cannot_start_say_why() {
    let error = RedisServer::start_with(&["--no-such-setting", "1"]).unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
    let error = PostgresServer::start_with(&["no_such_setting=1"]).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn missing_programs_are_named_with_the_command_to_run() {
    let nowhere = Programs::only_in(["/nonexistent"]);
    let error = RedisServer::start_using(&nowhere, &[]).unwrap_err();
    assert!(error.to_string().contains("apt-get install"), "{error}");
    let error = PostgresServer::start_using(&nowhere, &[]).unwrap_err();
    assert!(error.to_string().contains("apt-get install"), "{error}");
}

#[test]
fn postgres_commits_survive_a_kill() {
    let mut server = PostgresServer::start().unwrap();
    server.sql("CREATE TABLE t (n int)").unwrap();
    server.sql("INSERT INTO t VALUES (1), (2)").unwrap();
    server.kill();
    assert!(server.sql("SELECT 1").is_err());
    server.restart().unwrap();
    assert_eq!(
        server.sql("SELECT n, -n FROM t ORDER BY n").unwrap(),
        "1|-1\n2|-2"
    );
    assert!(server.sql("SELECT * FROM missing").is_err());
}

#[test]
fn a_paused_postgres_answers_once_it_is_resumed() {
    let server = PostgresServer::start().unwrap();
    server.pause().unwrap();
    std::thread::scope(|scope| {
        let query = scope.spawn(|| server.sql("SELECT 1"));
        server.resume().unwrap();
        assert_eq!(query.join().unwrap().unwrap(), "1");
    });
    server.pause().unwrap();
}

#[test]
fn a_cut_resets_and_refuses_until_it_is_healed() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut client = RespClient::connect(proxy.addr(), LONG).unwrap();
    client.command(&["PING"]).unwrap();
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    let error = client.command(&["PING"]).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    let error = ping(proxy.addr(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.cut();
    proxy.heal();
    ping(proxy.addr(), LONG).unwrap();
}

#[test]
fn a_stall_holds_what_comes_and_lets_it_go_on() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    proxy.stall();
    assert_eq!(
        ping(proxy.addr(), BRIEFLY).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ping(proxy.addr(), LONG));
        proxy.flow();
        held.join().unwrap().unwrap();
    });
}

#[test]
fn a_cut_may_come_in_the_middle_of_a_reply() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut client = RespClient::connect(proxy.addr(), LONG).unwrap();
    server.command(&["SET", "k", &"v".repeat(100_000)]).unwrap();
    proxy.cut_after(50_000);
    let error = client.command(&["GET", "k"]).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ),
        "{error}"
    );
    assert_eq!(proxy.connections(), 0);
    proxy.heal();
    let mut client = RespClient::connect(proxy.addr(), LONG).unwrap();
    let value = client.command(&["GET", "k"]).unwrap().text().unwrap();
    assert_eq!(value.len(), 100_000);
}

#[test]
fn a_dead_upstream_resets_the_client() {
    let mut server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    server.kill();
    assert!(ping(proxy.addr(), LONG).is_err());
    server.restart().unwrap();
    ping(proxy.addr(), LONG).unwrap();
}

#[test]
fn the_proxys_thread_ends_with_it() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let addr = proxy.addr();
    proxy.stall();
    drop(proxy);
    assert!(ping(addr, LONG).is_err());
}
