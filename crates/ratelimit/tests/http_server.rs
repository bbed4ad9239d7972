//! The layers in front of a real axum server on a loopback port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use overdrive_ratelimit::http::{
    ClientIp, ConcurrencyLimitLayer, Forwarding, Global, HeaderKey, HoldUntil, LoadShedLayer,
    RateLimitLayer, TrustedProxies, Waiting, key_fn,
};
use overdrive_ratelimit::{
    AdaptiveLimit, ConcurrencyLimit, KeyedLimiter, LimitPolicy, OnFull, Quota, RateLimiter,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// A request, on a connection of its own, that has been sent.
async fn send(to: SocketAddr, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The head of the response, in lower case, with the body.
async fn receive(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.to_lowercase()
}

async fn ask(to: SocketAddr, fields: &str) -> String {
    receive(send(to, fields).await).await
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap()
}

fn field<'r>(response: &'r str, name: &str) -> Option<&'r str> {
    let mut lines = response.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn clients() -> ClientIp {
    ClientIp::new().peer(|extensions| {
        extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0)
    })
}

fn per_client(n: u64) -> KeyedLimiter<std::net::IpAddr> {
    let builder = KeyedLimiter::builder().name("clients").capacity(64);
    builder.quota(Quota::per_hour(n)).build().unwrap()
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_client_is_limited_and_told_so_in_the_header_fields() {
    let address = serve(hello().layer(RateLimitLayer::new(per_client(2), clients()))).await;
    let first = ask(address, "").await;
    assert_eq!(status(&first), "200");
    assert!(first.ends_with("hello"));
    assert_eq!(
        field(&first, "ratelimit-policy"),
        Some(r#""clients";q=2;w=3600"#)
    );
    let left = field(&first, "ratelimit").unwrap();
    assert!(left.starts_with(r#""clients";r=1;t=1"#), "{left}");
    assert_eq!(field(&first, "retry-after"), None);
    assert_eq!(status(&ask(address, "").await), "200");
    let third = ask(address, "").await;
    assert_eq!(status(&third), "429");
    let after = field(&third, "retry-after").unwrap();
    assert!((1_000..=1_800).contains(&after.parse().unwrap()), "{after}");
    let expected = format!(r#""clients";r=0;t={after}"#);
    assert_eq!(field(&third, "ratelimit"), Some(expected.as_str()));
}

#[tokio::test]
async fn a_made_up_forwarding_field_makes_no_other_client() {
    let proxies = TrustedProxies::new(["10.0.0.0/8"]).unwrap();
    let clients = clients().forwarded(Forwarding::XForwardedFor, proxies);
    let address = serve(hello().layer(RateLimitLayer::new(per_client(1), clients))).await;
    assert_eq!(status(&ask(address, "").await), "200");
    for fields in [
        "x-forwarded-for: 8.8.8.8\r\n",
        "x-forwarded-for: 10.0.0.1\r\n",
        "forwarded: for=8.8.8.8\r\n",
    ] {
        assert_eq!(status(&ask(address, fields).await), "429", "{fields}");
    }
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_limits_of_their_own_and_share_a_64() {
    let proxies = TrustedProxies::new(["127.0.0.1"]).unwrap();
    let clients = clients().forwarded(Forwarding::XForwardedFor, proxies);
    let address = serve(hello().layer(RateLimitLayer::new(per_client(1), clients))).await;
    for (client, expected) in [
        ("8.8.8.8", "200"),
        ("8.8.4.4", "200"),
        ("1.2.3.4, 8.8.8.8", "429"),
        ("2001:db8:1:2::1", "200"),
        ("2001:db8:1:2:ffff::9", "429"),
        ("2001:db8:1:3::1", "200"),
    ] {
        let response = ask(address, &format!("x-forwarded-for: {client}\r\n")).await;
        assert_eq!(status(&response), expected, "{client}");
    }
}

#[tokio::test]
async fn header_keys_are_limited_apart_and_a_missing_key_is_a_fault() {
    let builder = KeyedLimiter::<Vec<u8>>::builder().capacity(64);
    let limiter = builder.quota(Quota::per_hour(1)).build().unwrap();
    let keys = HeaderKey::new("x-api-key".parse().unwrap());
    let address = serve(hello().layer(RateLimitLayer::new(limiter, keys))).await;
    for (fields, expected) in [
        ("x-api-key: a\r\n", "200"),
        ("x-api-key: a\r\n", "429"),
        ("x-api-key: b\r\n", "200"),
        ("", "200"),
        ("", "429"),
    ] {
        assert_eq!(status(&ask(address, fields).await), expected, "{fields}");
    }
    // Nobody puts a `PeerAddr` there.
    let layer = RateLimitLayer::new(per_client(1), ClientIp::new());
    let address = serve(hello().layer(layer)).await;
    assert_eq!(status(&ask(address, "").await), "500");
}

#[tokio::test]
async fn requests_wait_for_a_limiter_that_lets_them() {
    let build = |quota| RateLimiter::builder().quota(quota).build().unwrap();
    let soon = Waiting::new(
        build(Quota::per_second(1_000).burst(1)),
        Duration::from_secs(30),
    );
    let address = serve(hello().layer(RateLimitLayer::new(soon, Global))).await;
    for _ in 0..5 {
        assert_eq!(status(&ask(address, "").await), "200");
    }
    let late = Waiting::new(build(Quota::per_hour(1)), Duration::from_secs(30));
    let address = serve(hello().layer(RateLimitLayer::new(late, Global))).await;
    assert_eq!(status(&ask(address, "").await), "200");
    assert_eq!(status(&ask(address, "").await), "429");
}

/// A handler that is in work until the gate gives it a permit, and the most that were.
fn gated() -> (Router, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let now = Arc::new(AtomicUsize::new(0));
    let (gate_of, most_of) = (Arc::clone(&gate), Arc::clone(&most));
    let handler = move || {
        let (gate, most, now) = (Arc::clone(&gate_of), Arc::clone(&most_of), Arc::clone(&now));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, Ordering::SeqCst);
            "done"
        }
    };
    (Router::new().route("/", get(handler)), gate, most)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_limit_are_in_work_and_the_others_are_turned_away_or_wait() {
    let (router, gate, most) = gated();
    let limit = ConcurrencyLimit::builder()
        .limit(3)
        .max_waiters(4)
        .build()
        .unwrap();
    let layer = ConcurrencyLimitLayer::new(limit.clone()).max_wait(Duration::from_secs(60));
    let address = serve(router.layer(layer)).await;
    let mut under_way = Vec::new();
    for i in 1..=7 {
        under_way.push(send(address, "").await);
        until(|| limit.in_flight() + limit.stats().waiting == i).await;
    }
    let refused = ask(address, "").await;
    assert_eq!(status(&refused), "503");
    assert_eq!(field(&refused, "retry-after"), Some("1"));
    gate.add_permits(7);
    for stream in under_way {
        assert_eq!(status(&receive(stream).await), "200");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    until(|| limit.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_gives_its_permit_back() {
    let (router, gate, _) = gated();
    let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
    let address = serve(router.layer(ConcurrencyLimitLayer::new(limit.clone()))).await;
    let stream = send(address, "").await;
    until(|| limit.in_flight() == 1).await;
    assert_eq!(status(&ask(address, "").await), "503");
    drop(stream);
    until(|| limit.in_flight() == 0).await;
    gate.add_permits(1);
    assert_eq!(status(&ask(address, "").await), "200");
}

#[tokio::test]
async fn an_adaptive_limit_learns_from_the_status() {
    let overloaded = || async { http::StatusCode::SERVICE_UNAVAILABLE };
    let router = Router::new().route("/", get(overloaded));
    let builder = AdaptiveLimit::builder()
        .range(1, 100)
        .initial(50)
        .min_samples(1);
    let policy = LimitPolicy::aimd(Duration::from_secs(60));
    let limit = builder
        .policy(policy)
        .window(Duration::from_millis(1))
        .build()
        .unwrap();
    let address = serve(router.layer(ConcurrencyLimitLayer::new(limit.clone()))).await;
    while limit.limit() >= 50 {
        assert_eq!(status(&ask(address, "").await), "503");
    }
    until(|| limit.in_flight() == 0).await;
}

#[tokio::test]
async fn a_forwarded_field_of_a_trusted_proxy_names_the_client() {
    let proxies = TrustedProxies::new(["127.0.0.1", "10.0.0.0/8"]).unwrap();
    let clients = clients().forwarded(Forwarding::Forwarded, proxies);
    let address = serve(hello().layer(RateLimitLayer::new(per_client(1), clients))).await;
    for (fields, expected) in [
        ("forwarded: for=8.8.8.8;proto=https\r\n", "200"),
        ("forwarded: for=9.9.9.9, For=\"8.8.8.8:1234\"\r\n", "429"),
        (
            "forwarded: for=8.8.8.8\r\nforwarded: for=10.1.1.1\r\n",
            "429",
        ),
        ("forwarded: for=\"[2001:db8:1:2::1]:80\"\r\n", "200"),
        ("forwarded: for=\"[2001:db8:1:2::2]\"\r\n", "429"),
        (
            "x-forwarded-for: 7.7.7.7\r\nforwarded: for=8.8.8.8\r\n",
            "429",
        ),
    ] {
        assert_eq!(status(&ask(address, fields).await), expected, "{fields}");
    }
}

/// A body that ends when the gate says so, behind a head that is there at once.
fn streaming(gate: Arc<Semaphore>) -> Router {
    let handler = move || {
        let gate = Arc::clone(&gate);
        async move {
            let chunks = futures_util::stream::once(async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, std::convert::Infallible>("the end")
            });
            axum::body::Body::from_stream(chunks)
        }
    };
    Router::new().route("/", get(handler))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_is_held_until_the_body_has_ended_or_only_until_the_head() {
    for (hold, held) in [(HoldUntil::Body, 1), (HoldUntil::Head, 0)] {
        let gate = Arc::new(Semaphore::new(0));
        let limit = ConcurrencyLimit::builder().limit(1).build().unwrap();
        let layer = ConcurrencyLimitLayer::new(limit.clone()).hold(hold);
        let address = serve(streaming(Arc::clone(&gate)).layer(layer)).await;
        let mut stream = send(address, "").await;
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        assert_eq!(limit.in_flight(), held, "{hold:?}");
        gate.add_permits(1);
        assert!(receive(stream).await.contains("the end"));
        until(|| limit.in_flight() == 0).await;
    }
}

/// A service that is ready only while it is told so.
#[derive(Clone)]
struct Moody(Arc<std::sync::atomic::AtomicBool>);

impl tower_service::Service<http::Request<()>> for Moody {
    type Response = http::Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<http::Response<String>, std::convert::Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::convert::Infallible>> {
        if self.0.load(Ordering::SeqCst) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, _: http::Request<()>) -> Self::Future {
        std::future::ready(Ok(http::Response::new("here".to_owned())))
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_not_waited_for() {
    use tower_layer::Layer;
    use tower_service::Service;

    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let layer = LoadShedLayer::new().retry_after(Duration::from_millis(1_500));
    let mut service = layer.layer(Moody(Arc::clone(&ready)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let shed = service.call(http::Request::new(())).await.unwrap();
    assert_eq!(shed.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shed.headers()["retry-after"], "2", "rounded up");
    ready.store(true, Ordering::SeqCst);
    assert!(service.poll_ready(&mut context).is_ready());
    // Being ready is of that one.
    let of_clone = service.clone().call(http::Request::new(())).await.unwrap();
    assert_eq!(of_clone.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    let served = service.call(http::Request::new(())).await.unwrap();
    assert_eq!(served.body(), "here");
}

#[tokio::test]
async fn header_fields_of_an_extreme_quota_can_be_parsed() {
    use overdrive_ratelimit::{MAX_PERIOD, MAX_TOKENS};

    // An integer of RFC 9651 has 15 digits at most.
    let quota = Quota::per(1, MAX_PERIOD).burst(MAX_TOKENS);
    let limiter = RateLimiter::builder().quota(quota).build().unwrap();
    let address = serve(hello().layer(RateLimitLayer::new(limiter, Global))).await;
    let response = ask(address, "").await;
    for name in ["ratelimit-policy", "ratelimit"] {
        let value = field(&response, name).unwrap();
        let numbers = value.split(|c: char| !c.is_ascii_digit());
        assert!(numbers.map(str::len).max() <= Some(15), "{name}: {value}");
    }
}

#[tokio::test]
async fn who_is_denied_for_want_of_room_has_nothing_left() {
    let limiter = KeyedLimiter::<u64>::builder()
        .quota(Quota::per_hour(5))
        .capacity(10)
        .on_full(OnFull::Deny)
        .build()
        .unwrap();
    for key in 0..1_000 {
        let _full = limiter.check(&key);
    }
    let layer = RateLimitLayer::new(limiter, key_fn(|_| Some(5_000_u64)));
    let address = serve(hello().layer(layer)).await;
    let response = ask(address, "").await;
    assert_eq!(status(&response), "429");
    let left = field(&response, "ratelimit").unwrap();
    assert!(left.contains(";r=0;"), "{left}");
}

/// A service that answers at once, with a body that is read when the client likes.
#[derive(Clone)]
struct Streams;

impl tower_service::Service<http::Request<()>> for Streams {
    type Response = http::Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<http::Response<String>, std::convert::Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::convert::Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<()>) -> Self::Future {
        std::future::ready(Ok(http::Response::new("here".to_owned())))
    }
}

#[tokio::test]
async fn slow_readers_do_not_lower_an_adaptive_limit() {
    use http_body::Body;
    use std::collections::VecDeque;
    use tower_layer::Layer;
    use tower_service::Service;

    let clock = overdrive_core::clock::ManualClock::new();
    let limit = AdaptiveLimit::builder()
        .range(4, 1_000)
        .initial(200)
        .window(Duration::from_millis(100))
        .clock(clock.clone())
        .build()
        .unwrap();
    let mut service = ConcurrencyLimitLayer::new(limit.clone()).layer(Streams);
    let mut context = Context::from_waker(Waker::noop());
    let mut slow = VecDeque::new();
    for _ in 0..1_000 {
        let mut fast = Vec::new();
        for _ in 0..50 {
            let response = service.call(http::Request::new(())).await.unwrap();
            assert_eq!(response.status(), http::StatusCode::OK, "{}", limit.limit());
            fast.push(response.into_body());
        }
        // One in fifty takes a second.
        slow.extend(fast.pop());
        assert!(limit.in_flight() >= 50 + slow.len() - 1, "held to the end");
        clock.advance(Duration::from_millis(10));
        let late = if slow.len() > 100 {
            slow.pop_front()
        } else {
            None
        };
        for mut body in fast.into_iter().chain(late) {
            let _to_the_end = std::pin::pin!(&mut body).poll_frame(&mut context);
        }
    }
    assert!(limit.limit() >= 150, "{}", limit.limit());
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn clients_of_two_servers_share_a_limit_over_redis() {
    use overdrive_ratelimit::redis::{RedisSettings, Remote, RemoteLimiter};

    let redis = overdrive_testkit::RedisServer::start().unwrap();
    let limiter = || {
        let mut settings = RedisSettings::web();
        settings.url = redis.url();
        RemoteLimiter::builder(Remote::lazy(settings).unwrap())
            .name("clients")
            .quota(Quota::per_hour(3))
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    };
    let one = serve(hello().layer(RateLimitLayer::new(limiter(), clients()))).await;
    let two = serve(hello().layer(RateLimitLayer::new(limiter(), clients()))).await;
    for (address, expected) in [
        (one, "200"),
        (two, "200"),
        (one, "200"),
        (two, "429"),
        (one, "429"),
    ] {
        assert_eq!(status(&ask(address, "").await), expected);
    }
}
