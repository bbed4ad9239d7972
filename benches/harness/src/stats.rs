//! Statistics of paired measurements: medians, distribution-free intervals,
//! verdicts.
//!
//! Nothing here assumes a shape of the noise. Timings are skewed and have far
//! outliers, so the centre is the median, and its interval comes from order
//! statistics (W. J. Conover, *Practical Nonparametric Statistics*, 3rd ed.,
//! section 3.2).
//!
//! No function panics on any `f64`. Values that are not finite have no place
//! in a median: drop and count them first with [`drop_non_finite`]; handed in
//! nevertheless, they make the answer `None`.

use serde::{Deserialize, Serialize};

/// How far one process's memory and code layout moves a ratio, as a standard
/// deviation in log-ratio space.
///
/// Stored, because a run with few launches cannot see it: 0.4 points, measured
/// on identical loops over ten processes.
pub const LAYOUT_DEVIATION: f64 = 0.004;

/// From this many launches on, their own spread shows the layout deviation.
pub const ENOUGH_LAUNCHES: usize = 5;

/// An estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The best single figure.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What one process launch found, in log-ratio space.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The median of the rounds' log-ratios.
    pub median: f64,
    /// The lower end of that median's interval.
    pub low: f64,
    /// The upper end of that median's interval.
    pub high: f64,
}

/// What an interval of a cost ratio allows us to say of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval lies within one percent of 1.
    Equal,
    /// The whole interval lies below 0.995.
    Faster,
    /// None of the others: more measuring is needed to say anything.
    Inconclusive,
    /// The whole interval lies above 1.005.
    Slower,
}

impl Verdict {
    /// Judges the interval of a cost ratio.
    ///
    /// An interval that lies both outside half a percent and inside one
    /// percent, such as 0.991 to 0.994, is a difference: small, but proven.
    /// What cannot be compared, such as NaN, is inconclusive.
    pub fn of(ratio: Interval) -> Self {
        if ratio.high < 0.995 {
            Self::Faster
        } else if ratio.low > 1.005 {
            Self::Slower
        } else if ratio.low >= 0.99 && ratio.high <= 1.01 {
            Self::Equal
        } else {
            Self::Inconclusive
        }
    }
}

/// Removes what is not finite and says how many that were.
pub fn drop_non_finite(xs: &mut Vec<f64>) -> usize {
    let before = xs.len();
    xs.retain(|x| x.is_finite());
    before - xs.len()
}

/// The median, which for an even count is the mean of the two middle values.
///
/// Reorders `xs`, in linear time. `None` if `xs` is empty or holds a value
/// that is not finite.
pub fn median(xs: &mut [f64]) -> Option<f64> {
    if xs.is_empty() || !all_finite(xs) {
        return None;
    }
    let even = xs.len().is_multiple_of(2);
    let (left, middle, _) = xs.select_nth_unstable_by(xs.len() / 2, f64::total_cmp);
    if !even {
        return Some(*middle);
    }
    let below = left.iter().copied().max_by(f64::total_cmp)?;
    Some(below.midpoint(*middle))
}

/// The median and an interval that holds the true median of whatever the
/// values were drawn from with at least the given confidence.
///
/// The interval runs from the k-th smallest to the k-th largest value. It
/// misses only if fewer than k values fall on one side of the true median,
/// which is a matter of coin tosses, whatever the distribution.
///
/// Too few values for the confidence give the full range, whose confidence is
/// really `1 - 2^(1-n)`: none for one value, 50 % for two, 93.75 % for five;
/// 95 % takes six. A confidence of 1 or more, or NaN, gives the full range too.
///
/// Sorts `xs`. `None` if `xs` is empty or holds a value that is not finite.
pub fn median_interval(xs: &mut [f64], confidence: f64) -> Option<Interval> {
    if xs.is_empty() || !all_finite(xs) {
        return None;
    }
    xs.sort_unstable_by(f64::total_cmp);
    let last = xs.len() - 1;
    let trim = trimmed(xs.len(), confidence);
    Some(Interval {
        estimate: xs[last / 2].midpoint(xs[xs.len() / 2]),
        low: xs[trim],
        high: xs[last - trim],
    })
}

/// Unites what several launches found, and returns a ratio.
///
/// The estimate is the median of the launches' medians. Its interval is the
/// envelope of two:
/// - within launches: the estimate, less and plus the median of the launches'
///   lower and upper half-widths;
/// - between launches: the order-statistics interval of their medians at 95 %.
///
/// One process's interval alone is falsely tight, as its layout is the same in
/// every round. With fewer than [`ENOUGH_LAUNCHES`] the spread between them
/// says too little, and the interval is widened by [`LAYOUT_DEVIATION`] on
/// either side. Even where the noise within launches is negligible, that holds
/// the true ratio in some 93 % of runs with two launches, but only in two
/// thirds of runs with one.
///
/// `None` if there is no launch, or if a figure going in or coming out is not
/// finite.
pub fn combine(launches: &[Launch]) -> Option<Interval> {
    let pick = |figure: fn(&Launch) -> f64| launches.iter().map(figure).collect::<Vec<_>>();
    let between = median_interval(&mut pick(|launch| launch.median), 0.95)?;
    let below = median(&mut pick(|launch| (launch.median - launch.low).max(0.0)))?;
    let above = median(&mut pick(|launch| (launch.high - launch.median).max(0.0)))?;
    let layout = if launches.len() < ENOUGH_LAUNCHES {
        LAYOUT_DEVIATION
    } else {
        0.0
    };

    let ratio = Interval {
        estimate: between.estimate.exp(),
        low: (between.low.min(between.estimate - below) - layout).exp(),
        high: (between.high.max(between.estimate + above) + layout).exp(),
    };
    all_finite(&[ratio.estimate, ratio.low, ratio.high]).then_some(ratio)
}

fn all_finite(xs: &[f64]) -> bool {
    xs.iter().all(|x| x.is_finite())
}

/// How many values to leave out at either end of `n` sorted ones.
///
/// It is the largest k with P(B <= k - 1) <= (1 - confidence) / 2 for B
/// binomial over n fair tosses, less one, and 0 if there is no such k.
fn trimmed(n: usize, confidence: f64) -> usize {
    // Up to here 2^-n is a normal f64, so that the exact sum can be formed.
    const EXACT: usize = 1000;

    let tail = (1.0 - confidence) / 2.0;
    let innermost = (n - 1) / 2;
    if tail.is_nan() || tail <= 0.0 {
        return 0;
    }
    if tail >= 0.5 {
        return innermost;
    }
    if n > EXACT {
        // P(B <= k - 1) is about Phi((k - 1/2 - n/2) / (sqrt(n) / 2)).
        let n = n as f64;
        let k = (n + 1.0 - upper_quantile(tail) * n.sqrt()) / 2.0;
        return (k.max(1.0) as usize - 1).min(innermost);
    }
    let mut probability = 0.5_f64.powi(n as i32);
    let mut sum = probability;
    let mut k = 0;
    while sum <= tail && k < innermost + 1 {
        probability *= (n - k) as f64 / (k + 1) as f64;
        sum += probability;
        k += 1;
    }
    k.saturating_sub(1)
}

/// The z that a normal variable exceeds with probability `tail`, which must
/// lie between 0 and 0.5; never too small.
///
/// Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.2.23, whose
/// error is below 4.5e-4; that much is added.
fn upper_quantile(tail: f64) -> f64 {
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515517 + t * (0.802853 + t * 0.010328);
    let below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308));
    t - above / below + 4.5e-4
}
