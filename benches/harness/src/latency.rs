//! Open-loop latency: requests arrive on a schedule, whether or not the server
//! keeps up, and are timed from their scheduled arrival. A stall is therefore
//! charged to every request that it delays, which a closed loop would hide
//! ("coordinated omission", Gil Tene).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::child::{Answer, LaunchRatio, Order, RowAnswer, disagreement};
use crate::results::Role;
use crate::scenario::{Contender, Scenario, Serve, Setup, Work};

/// The percentiles that are reported as points.
const PERCENTILES: [(&str, f64); 7] = [
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
    ("max", 100.0),
];

/// Segments are interleaved like the slices of a time scenario, but must be
/// long enough for a queue to form.
const SEGMENT: Duration = Duration::from_millis(100);

pub(crate) fn measure(
    scenario: &Scenario,
    chosen: &[&Contender],
    setup: &Setup,
    order: &Order,
) -> Result<Answer, String> {
    let servers: Vec<Serve> = chosen
        .iter()
        .filter_map(|c| match &c.work {
            Work::Latency(make) => Some(make(setup)),
            _ => None,
        })
        .collect();
    let checks: Vec<(String, u64)> = chosen
        .iter()
        .zip(&servers)
        .map(|(c, serve)| {
            let sum = (0..scenario.check_ops).fold(0u64, |sum, i| sum.wrapping_add(serve(i)));
            (c.name.clone(), sum)
        })
        .collect();
    let differ = disagreement(checks.clone());
    if !differ.is_empty() {
        return Ok(Answer {
            differ,
            ..Answer::default()
        });
    }
    let mut histograms = chosen
        .iter()
        .map(|_| histogram())
        .collect::<Result<Vec<_>, _>>()?;
    let segments = (order.seconds / SEGMENT.as_secs_f64()).ceil().max(1.0) as u64;
    let mut rng = fastrand::Rng::with_seed(order.seed);
    let mut turn: Vec<usize> = (0..servers.len()).collect();
    for segment in 0..segments {
        rng.shuffle(&mut turn);
        for &i in &turn {
            // The same arrivals for every contender of a segment.
            let arrivals = schedule(
                scenario.arrivals.per_second,
                SEGMENT,
                order.seed.wrapping_add(segment),
            );
            open_loop(&servers[i], &arrivals, setup.threads, &mut histograms[i]);
        }
    }
    let mut answer = summarise(scenario, chosen, &histograms);
    for (row, (_, check)) in answer.rows.iter_mut().zip(checks) {
        row.check = check;
    }
    Ok(answer)
}

/// Nanoseconds from 1 to ten minutes, to three digits; longer ones count as ten
/// minutes.
fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).map_err(|e| e.to_string())
}

/// Poisson arrivals: independent users do not take turns.
fn schedule(per_second: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut at = 0.0;
    let mut arrivals = Vec::new();
    loop {
        at += -(1.0 - rng.f64()).ln() / per_second;
        if at >= length.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

/// Serves the arrivals with that many threads; each takes the next one due.
fn open_loop(serve: &Serve, arrivals: &[Duration], threads: usize, histogram: &mut Histogram<u64>) {
    let next = AtomicU64::new(0);
    let start = Instant::now() + Duration::from_micros(200);
    let work = || {
        let mut local = Vec::with_capacity(arrivals.len());
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(due) = usize::try_from(n).ok().and_then(|i| arrivals.get(i)) else {
                return local;
            };
            let intended = start + *due;
            wait_until(intended);
            std::hint::black_box(serve(n));
            let took = Instant::now().saturating_duration_since(intended);
            local.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(times) => times.iter().for_each(|t| histogram.saturating_record(*t)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
}

/// Parks while the time is far, then spins: a timer's slack must not be charged
/// to the server.
fn wait_until(at: Instant) {
    const SLACK: Duration = Duration::from_micros(150);
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SLACK {
            std::thread::park_timeout(left - SLACK);
        } else {
            std::hint::spin_loop();
        }
    }
}

fn summarise(scenario: &Scenario, chosen: &[&Contender], histograms: &[Histogram<u64>]) -> Answer {
    let us = |h: &Histogram<u64>, p: f64| h.value_at_percentile(p) as f64 / 1_000.0;
    let value = |h: &Histogram<u64>| us(h, scenario.arrivals.value_percentile);
    let ours = chosen.iter().position(|c| c.role == Role::Ours);
    let rows = chosen
        .iter()
        .zip(histograms)
        .enumerate()
        .map(|(i, (c, h))| {
            let against = ours.filter(|&o| o != i).map(|o| {
                let log = (value(&histograms[o]).max(1e-3) / value(h).max(1e-3)).ln();
                LaunchRatio {
                    median: log,
                    low: log,
                    high: log,
                }
            });
            let points: Vec<_> = PERCENTILES
                .iter()
                .map(|(name, p)| ((*name).to_owned(), us(h, *p)))
                .collect();
            RowAnswer {
                name: c.name.clone(),
                value: value(h),
                check: 0,
                against,
                metrics: points
                    .iter()
                    .map(|(name, v)| (format!("{name}_us"), *v))
                    .chain([("requests".to_owned(), h.len() as f64)])
                    .collect(),
                points,
            }
        });
    Answer {
        rows: rows.collect(),
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_charged_to_the_requests_it_delays() {
        let stalled = AtomicU64::new(0);
        let serve: Serve = Box::new(move |n| {
            if n == 50 && stalled.fetch_add(1, Ordering::Relaxed) == 0 {
                let until = Instant::now() + Duration::from_millis(20);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            n
        });
        let arrivals: Vec<_> = (0..200).map(|i| Duration::from_micros(i * 100)).collect();
        let mut histogram = histogram().expect("the bounds are valid");
        open_loop(&serve, &arrivals, 1, &mut histogram);
        assert_eq!(histogram.len(), 200);
        // A closed loop would report one slow request; 150 arrived behind it.
        let late = histogram.count_between(1_000_000, histogram.high());
        assert!(late > 50, "only {late} requests carry the stall");
    }

    #[test]
    fn arrivals_are_ordered_and_of_the_asked_rate() {
        let arrivals = schedule(100_000.0, Duration::from_millis(100), 7);
        assert!(arrivals.is_sorted());
        assert!((9_000..11_000).contains(&arrivals.len()));
        assert_eq!(arrivals, schedule(100_000.0, Duration::from_millis(100), 7));
    }
}
