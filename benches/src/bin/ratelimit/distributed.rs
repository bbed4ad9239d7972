//! Limits over a Redis server that the benchmark starts itself, on loopback.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario, locked_version};
use overdrive_ratelimit::Quota;
use overdrive_ratelimit::redis::{
    LeaseSettings, LeasedRemoteLimiter, RedisSettings, Remote, RemoteLimiter,
};
use overdrive_testkit::RedisServer;
use redis::aio::MultiplexedConnection;

use crate::ours;

/// Somebody who decides, shared by all callers.
trait Decide: Clone + Send + Sync + 'static {
    fn start(url: &str) -> impl Future<Output = Self>;
    fn decide(&self) -> impl Future<Output = bool> + Send;
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    let direct = "one decision after the other, each by a script at the server";
    let direct = row::<Incr>(
        row::<Direct>(
            scenario("ratelimit/redis_direct", direct),
            Role::Ours,
            "overdrive-ratelimit",
            1,
        ),
        Role::Limit,
        "incr",
        1,
    );
    vec![
        direct,
        leased("ratelimit/redis_leased_1", 1),
        leased("ratelimit/redis_leased_64", 64),
    ]
}

fn leased(id: &str, callers: u64) -> Scenario {
    let about =
        format!("decisions of {callers} at a time, from leases of 100 of a limit at the server");
    let ours = row::<Leased>(
        scenario(id, &about),
        Role::Ours,
        "overdrive-ratelimit",
        callers,
    );
    row::<Direct>(ours, Role::Reference, "redis-direct", callers)
}

fn scenario(id: &str, about: &str) -> Scenario {
    Scenario::time(id, about)
        .input("1e8 a second, 1e8 at once; a server of its own on loopback")
        .threads(&[2])
        .own_threads()
        .check_ops(1)
        .slow()
}

/// Each operation is 100 decisions of each caller.
const ROUNDS: u64 = 100;

fn row<D: Decide>(scenario: Scenario, role: Role, name: &str, callers: u64) -> Scenario {
    let version = match role {
        Role::Limit => locked_version(include_str!("../../../../Cargo.lock"), "redis"),
        _ => ours::VERSION.to_owned(),
    };
    let row = Contender::time(role, name, &version, move |setup| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(setup.threads)
            .enable_all()
            .build();
        let runtime = Arc::new(runtime.expect("a runtime can be made"));
        let server = Arc::new(RedisServer::start().expect("redis-server can be started"));
        let limiter = runtime.block_on(D::start(&server.url()));
        move |_| {
            let (limiter, runtime) = (limiter.clone(), Arc::clone(&runtime));
            let server = Arc::clone(&server);
            move |ops| {
                let _runs = &server;
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..callers)
                        .map(|_| {
                            let limiter = limiter.clone();
                            tokio::spawn(async move {
                                let mut allowed = 0;
                                for _ in 0..ops * ROUNDS {
                                    allowed += u64::from(limiter.decide().await);
                                }
                                allowed
                            })
                        })
                        .collect();
                    let mut allowed = 0;
                    for task in tasks {
                        allowed += task.await.expect("no caller panics");
                    }
                    allowed
                })
            }
        }
    });
    scenario.per_op(callers * ROUNDS).with(row)
}

fn limiter(url: &str) -> RemoteLimiter {
    // Each contender a limit of its own.
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let mut settings = RedisSettings::api();
    settings.url = url.to_owned();
    let remote = ours::built(Remote::lazy(settings));
    let builder = RemoteLimiter::builder(remote)
        .name(format!("bench {}", NAMES.fetch_add(1, Ordering::Relaxed)))
        .quota(Quota::per_second(100_000_000).burst(100_000_000))
        .timeout(Duration::from_secs(10));
    ours::built(builder.build())
}

#[derive(Clone)]
struct Direct(RemoteLimiter);

impl Decide for Direct {
    async fn start(url: &str) -> Self {
        Self(limiter(url))
    }

    async fn decide(&self) -> bool {
        self.0.check("all").await.is_ok()
    }
}

#[derive(Clone)]
struct Leased(LeasedRemoteLimiter);

impl Decide for Leased {
    async fn start(url: &str) -> Self {
        Self(ours::built(
            limiter(url).leased("all", LeaseSettings::of(100)),
        ))
    }

    async fn decide(&self) -> bool {
        self.0.check().await.is_ok()
    }
}

/// A plain counter, by the client itself.
#[derive(Clone)]
struct Incr(MultiplexedConnection);

impl Decide for Incr {
    async fn start(url: &str) -> Self {
        let client = redis::Client::open(url).expect("the address is right");
        let connection = client.get_multiplexed_async_connection().await;
        Self(connection.expect("the server takes connections"))
    }

    async fn decide(&self) -> bool {
        let mut connection = self.0.clone();
        let mut command = redis::cmd("INCR");
        let count = command.arg("count").query_async::<u64>(&mut connection);
        count.await.is_ok_and(|count| count > 0)
    }
}
