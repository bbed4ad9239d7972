//! What the statistics promise, on synthetic noise and on arbitrary input.

use fastrand::Rng;
use overdrive_bench::stats::{
    Interval, LAYOUT_DEVIATION, Launch, Verdict, combine, drop_non_finite, median, median_interval,
};
use proptest::prelude::*;

/// Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (core::f64::consts::TAU * rng.f64()).cos()
}

/// The sampling error of a share found in `runs` runs, three deviations wide.
fn sampling_error(share: f64, runs: usize) -> f64 {
    3.0 * (share * (1.0 - share) / runs as f64).sqrt()
}

/// Log-normal times of which one in twenty is a preemption, fifty times as long.
fn preempted_time(rng: &mut Rng, deviation: f64) -> f64 {
    let time = (deviation * normal(rng)).exp();
    if rng.f64() < 0.05 { 50.0 * time } else { time }
}

/// What one launch finds where the true log-ratio is `effect`: a layout bias
/// that stays for all its rounds, and noise that does not.
///
/// A real launch has some 2000 rounds that deviate by 6 %; 200 rounds that
/// deviate by 2 % are as sharp and quicker to simulate.
fn simulated_launch(rng: &mut Rng, effect: f64) -> Launch {
    let mut bias = LAYOUT_DEVIATION * normal(rng);
    if rng.f64() < 0.05 {
        bias += if rng.bool() { 0.015 } else { -0.015 };
    }
    let mut rounds: Vec<_> = (0..200)
        .map(|_| effect + bias + (preempted_time(rng, 0.014) / preempted_time(rng, 0.014)).ln())
        .collect();
    let found = median_interval(&mut rounds, 0.99).expect("200 finite rounds");
    Launch {
        median: found.estimate,
        low: found.low,
        high: found.high,
    }
}

fn simulated_runs(launches: usize, effect: f64, runs: usize) -> Vec<Interval> {
    let mut rng = Rng::with_seed(7);
    let mut run = || {
        let found: Vec<_> = (0..launches)
            .map(|_| simulated_launch(&mut rng, effect))
            .collect();
        combine(&found).expect("finite launches")
    };
    (0..runs).map(|_| run()).collect()
}

fn share<T>(of: &[T], test: impl Fn(&T) -> bool) -> f64 {
    of.iter().filter(|x| test(x)).count() as f64 / of.len() as f64
}

#[test]
fn median_interval_covers_the_true_median() {
    // Of the mixture, where 95 % of the mass below makes up for the outliers:
    // Phi(z) = 0.5 / 0.95.
    let truth = (0.05 * 0.066_012_f64).exp();
    let mut rng = Rng::with_seed(1);
    for (n, runs) in [(5, 4000), (7, 4000), (20, 4000), (200, 2000), (2000, 500)] {
        for confidence in [0.9, 0.95, 0.99] {
            let intervals: Vec<_> = (0..runs)
                .map(|_| {
                    let mut times: Vec<_> =
                        (0..n).map(|_| preempted_time(&mut rng, 0.05)).collect();
                    median_interval(&mut times, confidence).expect("finite times")
                })
                .collect();
            let covered = share(&intervals, |i| i.low <= truth && truth <= i.high);
            let nominal = f64::min(confidence, 1.0 - 0.5_f64.powi(n - 1));
            assert!(
                covered >= nominal - sampling_error(nominal, runs),
                "n = {n}, confidence {confidence}: covered {covered}"
            );
        }
    }
}

#[test]
fn median_interval_takes_the_textbook_order_statistics() {
    // Two-sided 95 %: n, and k for the k-th smallest and k-th largest.
    for (n, k) in [
        (1, 1),
        (2, 1),
        (5, 1),
        (6, 1),
        (8, 1),
        (9, 2),
        (15, 4),
        (20, 6),
        (100, 40),
    ] {
        let mut ranks: Vec<_> = (1..=n).map(f64::from).collect();
        let interval = median_interval(&mut ranks, 0.95).expect("finite");
        assert_eq!(interval.low, f64::from(k), "n = {n}");
        assert_eq!(interval.high, f64::from(n + 1 - k), "n = {n}");
    }
}

#[test]
fn large_and_small_samples_agree_where_the_method_changes() {
    for confidence in [0.5, 0.9, 0.95, 0.99, 0.999] {
        let low = |n: i32| {
            let mut ranks: Vec<_> = (1..=n).map(f64::from).collect();
            median_interval(&mut ranks, confidence).expect("finite").low
        };
        assert!((low(1000) - low(1001)).abs() <= 1.0, "at {confidence}");
    }
}

#[test]
fn combined_intervals_cover_the_truth_despite_layout_bias() {
    let runs = 2000;
    for (launches, nominal) in [(1, 0.65), (2, 0.92), (3, 0.95), (5, 0.9375), (15, 0.95)] {
        let runs = if launches > 5 { runs / 4 } else { runs };
        let found = simulated_runs(launches, 0.03_f64.ln_1p(), runs);
        let covered = share(&found, |i| i.low <= 1.03 && 1.03 <= i.high);
        assert!(
            covered >= nominal - sampling_error(nominal, runs),
            "{launches} launches covered {covered}"
        );
    }
}

#[test]
fn five_launches_raise_no_false_alarm_and_miss_no_three_percent() {
    let runs = 1000;
    let alone = simulated_runs(5, 0.0, runs);
    let alarms = share(&alone, |&i| {
        matches!(Verdict::of(i), Verdict::Faster | Verdict::Slower)
    });
    assert!(alarms <= 0.05, "{alarms}");

    for (ratio, verdict) in [(1.03_f64, Verdict::Slower), (0.97, Verdict::Faster)] {
        let found = share(&simulated_runs(5, ratio.ln(), runs), |&i| {
            Verdict::of(i) == verdict
        });
        assert!(found >= 0.95, "{ratio} found in {found}");
    }
}

#[test]
fn verdicts_follow_the_interval() {
    let of = |low: f64, high: f64| {
        Verdict::of(Interval {
            estimate: low.midpoint(high),
            low,
            high,
        })
    };
    assert_eq!(of(0.30, 0.40), Verdict::Faster);
    assert_eq!(
        of(0.991, 0.994),
        Verdict::Faster,
        "outside 0.5 %, inside 1 %"
    );
    assert_eq!(of(0.991, 0.995), Verdict::Equal);
    assert_eq!(of(0.99, 1.01), Verdict::Equal);
    assert_eq!(of(0.98, 1.001), Verdict::Inconclusive);
    assert_eq!(of(1.004, 1.2), Verdict::Inconclusive);
    assert_eq!(of(1.006, 1.009), Verdict::Slower);
    assert_eq!(of(1.5, 1.6), Verdict::Slower);
    assert_eq!(of(f64::NAN, f64::NAN), Verdict::Inconclusive);
    assert_eq!(of(f64::NEG_INFINITY, f64::INFINITY), Verdict::Inconclusive);
}

#[test]
fn few_launches_are_widened_by_the_layout_deviation() {
    let launch = Launch {
        median: 0.0,
        low: -0.001,
        high: 0.002,
    };
    let few = combine(&[launch; 4]).expect("finite");
    assert!((few.low.ln() + 0.005).abs() < 1e-12 && (few.high.ln() - 0.006).abs() < 1e-12);
    let enough = combine(&[launch; 5]).expect("finite");
    assert!((enough.low.ln() + 0.001).abs() < 1e-12 && (enough.high.ln() - 0.002).abs() < 1e-12);
}

#[test]
fn what_is_not_finite_is_counted_when_dropped_and_refused_otherwise() {
    let mut xs = vec![1.0, f64::NAN, 2.0, f64::INFINITY];
    assert_eq!(median(&mut xs), None);
    assert_eq!(median_interval(&mut xs, 0.95), None);
    assert_eq!(drop_non_finite(&mut xs), 2);
    assert_eq!(median(&mut xs), Some(1.5));
    assert_eq!(median(&mut []), None);
    assert_eq!(median_interval(&mut [], 0.95), None);
    assert_eq!(combine(&[]), None);
}

fn any_f64() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => any::<f64>(),
        4 => -1e3..1e3_f64,
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MAX, f64::MIN_POSITIVE]),
    ]
}

fn finite() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-1e6..1e6_f64, 1..60)
}

fn any_launch() -> impl Strategy<Value = Launch> {
    (any_f64(), any_f64(), any_f64()).prop_map(|(median, low, high)| Launch { median, low, high })
}

fn launch() -> impl Strategy<Value = Launch> {
    (-1.0..1.0_f64, 0.0..0.1_f64, 0.0..0.1_f64).prop_map(|(median, below, above)| Launch {
        median,
        low: median - below,
        high: median + above,
    })
}

proptest! {
    #[test]
    fn never_panics(
        mut xs in prop::collection::vec(any_f64(), 0..40),
        confidence in any_f64(),
        launches in prop::collection::vec(any_launch(), 0..8),
        low in any_f64(),
        high in any_f64(),
    ) {
        let centre = median(&mut xs);
        let interval = median_interval(&mut xs, confidence);
        prop_assert_eq!(centre, interval.map(|i| i.estimate));
        for i in interval.into_iter().chain(combine(&launches)) {
            prop_assert!(i.estimate.is_finite() && i.low.is_finite() && i.high.is_finite());
            prop_assert!(i.low <= i.estimate && i.estimate <= i.high, "{i:?}");
        }
        Verdict::of(Interval { estimate: low, low, high });
    }

    #[test]
    fn order_does_not_matter(mut xs in finite(), seed: u64) {
        let once = (median(&mut xs), median_interval(&mut xs, 0.95));
        Rng::with_seed(seed).shuffle(&mut xs);
        prop_assert_eq!((median(&mut xs), median_interval(&mut xs, 0.95)), once);
    }

    #[test]
    fn launches_may_come_in_any_order(mut launches in prop::collection::vec(launch(), 1..9), seed: u64) {
        let once = combine(&launches);
        Rng::with_seed(seed).shuffle(&mut launches);
        prop_assert_eq!(combine(&launches), once);
    }

    #[test]
    fn scaling_the_values_scales_the_answer(mut xs in finite(), power in -20..20_i32) {
        // A power of two scales without rounding.
        let factor = 2.0_f64.powi(power);
        let plain = median_interval(&mut xs, 0.95).expect("finite");
        let mut scaled: Vec<_> = xs.iter().map(|x| x * factor).collect();
        prop_assert_eq!(median(&mut scaled), Some(plain.estimate * factor));
        let scaled = median_interval(&mut scaled, 0.95).expect("finite");
        prop_assert_eq!(
            scaled,
            Interval { estimate: plain.estimate * factor, low: plain.low * factor, high: plain.high * factor }
        );
    }

    #[test]
    fn a_longer_log_ratio_scales_the_ratio(launches in prop::collection::vec(launch(), 1..9), shift in -1.0..1.0_f64) {
        let plain = combine(&launches).expect("finite");
        let moved: Vec<_> = launches
            .iter()
            .map(|l| Launch { median: l.median + shift, low: l.low + shift, high: l.high + shift })
            .collect();
        let moved = combine(&moved).expect("finite");
        for (a, b) in [(moved.estimate, plain.estimate), (moved.low, plain.low), (moved.high, plain.high)] {
            prop_assert!((a / (b * shift.exp()) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_envelope_is_never_narrower_than_either_interval(launches in prop::collection::vec(launch(), 1..9)) {
        let whole = combine(&launches).expect("finite");
        let mut medians: Vec<_> = launches.iter().map(|l| l.median).collect();
        let between = median_interval(&mut medians, 0.95).expect("finite");
        prop_assert!(whole.low.ln() <= between.low + 1e-12 && whole.high.ln() >= between.high - 1e-12);
        let mut below: Vec<_> = launches.iter().map(|l| l.median - l.low).collect();
        let below = median(&mut below).expect("finite");
        prop_assert!(whole.low.ln() <= between.estimate - below + 1e-12);
    }

    #[test]
    fn more_confidence_is_never_narrower(mut xs in finite(), a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
        let (less, more) = (a.min(b), a.max(b));
        let narrow = median_interval(&mut xs, less).expect("finite");
        let wide = median_interval(&mut xs, more).expect("finite");
        prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
    }
}
