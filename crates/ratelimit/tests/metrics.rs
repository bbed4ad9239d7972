//! What a recorder of the crate `metrics` is told.
#![cfg(feature = "metrics")]

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use overdrive_ratelimit::{
    AdaptiveLimit, ConcurrencyLimit, ExactKeyedLimiter, KeyedLimiter, Quota, RateLimiter,
};

/// All figures after that, by name and limiter.
fn recorded(report: impl FnOnce()) -> BTreeMap<(String, String), DebugValue> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, report);
    let figures = snapshotter.snapshot().into_vec().into_iter();
    let named = figures.map(|(key, _, _, value)| {
        let (name, labels) = key.key().clone().into_parts();
        let limiter = labels.iter().find(|label| label.key() == "limiter");
        let limiter = limiter.unwrap().value().to_owned();
        ((name.as_str().to_owned(), limiter), value)
    });
    named.collect()
}

#[test]
fn every_limiter_reports_its_figures_under_its_name() {
    let quota = Quota::per_hour(2);
    let calls = RateLimiter::builder().quota(quota).name("calls");
    let calls = calls.build().unwrap();
    for _ in 0..3 {
        let _any = calls.check();
    }
    let users = KeyedLimiter::<u32>::builder().quota(quota).name("users");
    let users = users.build().unwrap();
    users.check(&1).unwrap();
    let tenants = ExactKeyedLimiter::<u32>::builder()
        .quota(quota)
        .name("tenants");
    let tenants = tenants.build().unwrap();
    tenants.check(&1).unwrap();
    let work = ConcurrencyLimit::builder()
        .limit(5)
        .name("work")
        .build()
        .unwrap();
    let _permit = work.try_acquire().unwrap();
    let backend = AdaptiveLimit::builder().name("backend").build().unwrap();
    let figures = recorded(|| {
        calls.report_metrics();
        users.report_metrics();
        tenants.report_metrics();
        work.report_metrics();
        backend.report_metrics();
        // Absolute: reported twice is not counted twice.
        calls.report_metrics();
    });
    let figure = |metric: &str, limiter: &str| {
        let name = format!("overdrive_ratelimit_{metric}");
        match figures.get(&(name, limiter.to_owned())) {
            Some(DebugValue::Counter(n)) => *n as f64,
            Some(DebugValue::Gauge(n)) => n.into_inner(),
            other => panic!("{metric} of {limiter}: {other:?}"),
        }
    };
    let close = |one: f64, other: u32| assert!((one - f64::from(other)).abs() < 0.5, "{one}");
    close(figure("allowed_total", "calls"), 2);
    close(figure("denied_total", "calls"), 1);
    close(figure("remaining", "calls"), 0);
    close(figure("keys", "users"), 1);
    close(figure("allowed_total", "tenants"), 1);
    close(figure("in_flight", "work"), 1);
    close(figure("limit", "work"), 5);
    close(figure("limit", "backend"), 20);
}
