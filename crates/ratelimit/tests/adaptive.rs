//! Adaptive limits in front of a simulated server with a known knee.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_core::{Clock, Timestamp};
use overdrive_ratelimit::{
    AdaptiveLimit, AdaptivePermit, ConfigError, LimitPolicy, TryAcquireError,
};

/// What the server does at once without becoming slower.
const KNEE: usize = 16;
/// How long work takes up to there.
const WORK: Duration = Duration::from_millis(20);
/// After that nobody wants the answer.
const PATIENCE: Duration = Duration::from_millis(200);
/// What it can do in a second.
const CAPACITY: f64 = 800.0;

/// A server that shares its time among what is in work and loses some of it to the sharing: beyond
/// its knee it does less the more it is given.
struct Server {
    random: fastrand::Rng,
    work: Duration,
    /// The share of answers that fail whatever the load.
    noise: f64,
}

impl Server {
    fn takes(&mut self, in_work: usize) -> Duration {
        let load = in_work as f64 / KNEE as f64;
        let slower = if load > 1.0 {
            load * (1.0 + 0.5 * (load - 1.0))
        } else {
            1.0
        };
        self.work.mul_f64(slower * (0.9 + 0.2 * self.random.f64()))
    }
}

/// The answers a second that came in time, of those that ended after `from`, until `until`.
fn goodput(
    limit: &AdaptiveLimit<ManualClock>,
    clock: &ManualClock,
    server: &mut Server,
    per_second: f64,
    seconds: u64,
) -> f64 {
    let start = clock.now();
    let measured_from = start.saturating_add(Duration::from_secs(seconds) / 2);
    let end = start.saturating_add(Duration::from_secs(seconds));
    let mut in_work: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
    let mut permits: Vec<Option<(AdaptivePermit<ManualClock>, Timestamp)>> = Vec::new();
    let mut arrival = start;
    let mut good = 0_u64;
    while arrival < end {
        while let Some(Reverse((ends, at))) = in_work.peek().copied().filter(|e| e.0.0 <= arrival) {
            in_work.pop();
            clock.advance_to(ends);
            let (permit, began) = permits[at].take().unwrap();
            if server.random.f64() < server.noise {
                permit.overload();
            } else if ends.saturating_since(began) <= PATIENCE {
                good += u64::from(ends >= measured_from);
                permit.success();
            } else {
                permit.overload();
            }
        }
        clock.advance_to(arrival);
        if let Ok(permit) = limit.try_acquire() {
            let ends = arrival.saturating_add(server.takes(in_work.len() + 1));
            in_work.push(Reverse((ends, permits.len())));
            permits.push(Some((permit, arrival)));
        }
        let gap = -(1.0 - server.random.f64()).ln() / per_second;
        arrival = arrival.saturating_add(Duration::from_secs_f64(gap));
    }
    good as f64 / (seconds as f64 / 2.0)
}

fn server() -> Server {
    Server {
        random: fastrand::Rng::with_seed(7),
        work: WORK,
        noise: 0.0,
    }
}

fn adaptive(policy: LimitPolicy, clock: &ManualClock) -> AdaptiveLimit<ManualClock> {
    let builder = AdaptiveLimit::builder().policy(policy).range(1, 500);
    builder.clock(clock.clone()).build().unwrap()
}

fn fixed(permits: usize, per_second: f64) -> f64 {
    let clock = ManualClock::new();
    let builder = AdaptiveLimit::builder()
        .range(permits, permits)
        .initial(permits);
    let limit = builder.clock(clock.clone()).build().unwrap();
    goodput(&limit, &clock, &mut server(), per_second, 10)
}

fn best_fixed(per_second: f64) -> f64 {
    let limits = [4, 8, 12, 14, 16, 18, 20, 24, 32, 48, 64];
    limits
        .map(|permits| fixed(permits, per_second))
        .into_iter()
        .fold(0.0, f64::max)
}

fn comes_close(policy: LimitPolicy) {
    let best = best_fixed(CAPACITY);
    let peak = best_fixed(3.0 * CAPACITY);
    for (per_second, best) in [(CAPACITY, best), (3.0 * CAPACITY, peak)] {
        let clock = ManualClock::new();
        let limit = adaptive(policy.clone(), &clock);
        let got = goodput(&limit, &clock, &mut server(), per_second, 80);
        let (found, share) = (limit.limit(), got / best);
        assert!(
            share >= 0.95,
            "{policy:?}: {share} of {best} at {per_second}, limit {found}"
        );
    }
}

#[test]
fn a_server_without_a_limit_collapses() {
    let peak = best_fixed(3.0 * CAPACITY);
    assert!(fixed(400, 3.0 * CAPACITY) < 0.3 * peak);
}

#[test]
fn aimd_comes_close_to_the_best_fixed_limit_also_under_threefold_load() {
    comes_close(LimitPolicy::aimd(WORK.mul_f64(1.2)));
}

#[test]
fn vegas_comes_close_to_the_best_fixed_limit_also_under_threefold_load() {
    comes_close(LimitPolicy::vegas());
}

#[test]
fn gradient2_comes_close_to_the_best_fixed_limit_also_under_threefold_load() {
    comes_close(LimitPolicy::gradient2());
}

#[test]
fn failures_that_are_noise_cost_little_under_threefold_load() {
    let load = 3.0 * CAPACITY;
    let peak = best_fixed(load);
    for policy in [
        LimitPolicy::aimd(WORK.mul_f64(1.2)),
        LimitPolicy::vegas(),
        LimitPolicy::gradient2(),
    ] {
        let clock = ManualClock::new();
        let limit = adaptive(policy.clone(), &clock);
        let mut server = server();
        server.noise = 0.004;
        let got = goodput(&limit, &clock, &mut server, load, 80);
        assert!(got >= 0.9 * peak, "{policy:?}: {got} of {peak}");
    }
}

#[test]
fn a_limit_follows_a_server_that_becomes_slower_and_faster() {
    for policy in [LimitPolicy::vegas(), LimitPolicy::gradient2()] {
        let clock = ManualClock::new();
        let limit = adaptive(policy.clone(), &clock);
        let mut server = server();
        let load = 3.0 * CAPACITY;
        let before = goodput(&limit, &clock, &mut server, load, 60);
        server.work = 2 * WORK;
        let slow = goodput(&limit, &clock, &mut server, load, 60);
        assert!(slow >= 0.45 * before, "{policy:?}: {slow} of {before}");
        server.work = WORK;
        let after = goodput(&limit, &clock, &mut server, load, 60);
        assert!(after >= 0.9 * before, "{policy:?}: {after} of {before}");
    }
}

#[test]
fn what_ends_without_a_word_teaches_nothing() {
    let clock = ManualClock::new();
    let limit = adaptive(LimitPolicy::aimd(WORK), &clock);
    for _ in 0..100 {
        let permit = limit.try_acquire().unwrap();
        clock.advance(Duration::from_secs(1));
        permit.ignore();
        drop(limit.try_acquire().unwrap());
    }
    assert_eq!((limit.updates(), limit.in_flight()), (0, 0));
    let permits: Vec<_> = (0..limit.limit()).map(|_| limit.try_acquire()).collect();
    assert_eq!(limit.try_acquire().unwrap_err(), TryAcquireError::Full);
    let before = limit.limit();
    clock.advance(Duration::from_secs(1));
    for permit in permits {
        permit.unwrap().overload();
    }
    assert!(limit.updates() > 0 && limit.limit() < before);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let build = |builder: overdrive_ratelimit::AdaptiveLimitBuilder| {
        builder
            .build()
            .map(drop)
            .map_err(|error: ConfigError| error.field())
    };
    let builder = AdaptiveLimit::builder;
    assert_eq!(build(builder()), Ok(()));
    assert_eq!(build(builder().range(0, 5)), Err("range"));
    assert_eq!(build(builder().range(6, 5)), Err("range"));
    assert_eq!(build(builder().range(1, usize::MAX)), Err("range"));
    assert_eq!(build(builder().range(5, 9).initial(10)), Err("initial"));
    assert_eq!(build(builder().window(Duration::ZERO)), Err("window"));
    assert_eq!(build(builder().min_samples(0)), Err("min_samples"));
    assert_eq!(build(builder().window(Duration::MAX)), Err("window"));
    assert_eq!(build(builder().min_samples(u64::MAX)), Err("min_samples"));
    for share in [-0.1, 1.0, f64::NAN] {
        assert_eq!(
            build(builder().overload_share(share)),
            Err("overload_share")
        );
    }
    let aimd = LimitPolicy::aimd(Duration::ZERO);
    assert_eq!(build(builder().policy(aimd)), Err("timeout"));
}

/// One failure a window among thousands of successes.
fn background(policy: LimitPolicy) {
    let clock = ManualClock::new();
    let limit = adaptive(policy, &clock);
    let mut seen = Vec::new();
    for _ in 0..100 {
        for round in 0..200 {
            let permits: Vec<_> = std::iter::from_fn(|| limit.try_acquire().ok()).collect();
            clock.advance(Duration::from_micros(1300));
            for (i, permit) in permits.into_iter().enumerate() {
                if round == 0 && i == 0 {
                    permit.overload();
                } else {
                    permit.success();
                }
            }
        }
        seen.push(limit.limit());
    }
    let last = seen[seen.len() - 1];
    assert!(last > 20, "{seen:?}");
}

#[test]
fn a_few_failures_do_not_end_the_limit_gradient2() {
    background(LimitPolicy::gradient2());
}

#[test]
fn a_few_failures_do_not_end_the_limit_vegas() {
    background(LimitPolicy::vegas());
}

#[test]
fn a_few_failures_do_not_end_the_limit_aimd() {
    background(LimitPolicy::aimd(Duration::from_millis(100)));
}

/// A waker that looks at the limit runs under the lock of the samples.
#[test]
fn a_waker_that_looks_at_the_limit_does_not_hang() {
    struct Looks(AdaptiveLimit<ManualClock>);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let _ = self.0.updates();
        }
    }
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let clock = ManualClock::new();
        let limit = AdaptiveLimit::builder()
            .policy(LimitPolicy::aimd(Duration::from_millis(1000)))
            .range(1, 10)
            .initial(1)
            .min_samples(1)
            .max_waiters(10)
            .clock(clock.clone())
            .build()
            .unwrap();
        let waker = Waker::from(Arc::new(Looks(limit.clone())));
        let mut context = Context::from_waker(&waker);
        let permit = limit.try_acquire().unwrap();
        let concurrency = limit.concurrency().clone();
        let mut one = Box::pin(concurrency.acquire());
        let mut two = Box::pin(concurrency.acquire());
        assert!(one.as_mut().poll(&mut context).is_pending());
        assert!(two.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_millis(1));
        clock.advance(Duration::from_millis(299));
        // The first is woken by the permit that comes back, the second by the higher limit.
        permit.success();
        done.send(limit.limit()).unwrap();
        drop((one, two));
    });
    let got = is_done.recv_timeout(Duration::from_secs(3));
    assert!(
        got.is_ok(),
        "a deadlock: wakers run under the lock of the samples ({got:?})"
    );
}

/// The lowest limit, where each second window has overloads and the time that work takes does not
/// depend on the limit.
fn lowest_under_overloads_now_and_then(policy: LimitPolicy) -> usize {
    let clock = ManualClock::new();
    let builder = AdaptiveLimit::builder().policy(policy).range(1, 1_000);
    let limit = builder
        .initial(1_000)
        .window(Duration::from_millis(100))
        .clock(clock.clone())
        .build()
        .unwrap();
    let mut lowest = limit.limit();
    for window in 0..100 {
        for _ in 0..10 {
            let permits: Vec<_> = (0..limit.limit())
                .filter_map(|_| limit.try_acquire().ok())
                .collect();
            clock.advance(Duration::from_millis(10));
            for (n, permit) in permits.into_iter().enumerate() {
                if window % 2 == 1 && n % 20 == 0 {
                    permit.overload();
                } else {
                    permit.success();
                }
            }
        }
        lowest = lowest.min(limit.limit());
    }
    lowest
}

#[test]
fn overloads_now_and_then_do_not_bring_a_limit_to_its_floor() {
    let aimd = lowest_under_overloads_now_and_then(LimitPolicy::aimd(Duration::from_secs(1)));
    for policy in [LimitPolicy::vegas(), LimitPolicy::gradient2()] {
        let lowest = lowest_under_overloads_now_and_then(policy.clone());
        assert!(lowest * 2 >= aimd, "{policy:?}: {lowest}, aimd {aimd}");
    }
}

#[test]
fn fewer_overloads_than_the_share_lower_no_limit_that_many_threads_measure() {
    let limit = AdaptiveLimit::builder()
        .policy(LimitPolicy::aimd(Duration::from_secs(60)))
        .range(1, 1_000)
        .initial(1_000)
        .window(Duration::from_nanos(1))
        .min_samples(2_000)
        .overload_share(0.10)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let limit = &limit;
            scope.spawn(move || {
                for n in 0..20_000_u32 {
                    let Ok(permit) = limit.try_acquire() else {
                        continue;
                    };
                    // Half of what is allowed.
                    if (n + thread) % 20 == 0 {
                        permit.overload();
                    } else {
                        permit.success();
                    }
                    assert_eq!(limit.limit(), 1_000, "in {} windows", limit.updates());
                }
            });
        }
    });
    assert!(limit.updates() > 0);
}
