//! Axes: where a value is drawn, and which positions get a label.

use core::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::format::tick;

/// One axis in drawn space: a logarithmic axis runs over decades.
#[derive(Clone)]
pub(super) struct Axis {
    /// The lower end.
    pub(super) low: f64,
    /// The upper end.
    pub(super) high: f64,
    /// Positions and their labels.
    pub(super) ticks: Vec<(f64, String)>,
    /// What the axis shows, and its unit.
    pub(super) title: String,
}

impl Axis {
    /// Room for so many rows, unlabelled.
    pub(super) fn rows(count: usize) -> Self {
        Self {
            low: -0.5,
            high: count as f64 - 0.5,
            ticks: Vec::new(),
            title: String::new(),
        }
    }

    /// An axis over the decades of those values that are above zero.
    ///
    /// `None` if there is no such value.
    pub(super) fn log(values: impl IntoIterator<Item = f64>, title: String) -> Option<Self> {
        let values = values.into_iter().filter_map(decades);
        let (low, high) = padded(values, 0.01)?;
        Some(Self {
            low,
            high,
            ticks: log_ticks(low, high),
            title,
        })
    }

    /// An axis over the values as they are.
    ///
    /// `None` if none of them is finite.
    pub(super) fn linear(values: impl IntoIterator<Item = f64>, title: String) -> Option<Self> {
        let values = values
            .into_iter()
            .filter(|v| v.is_finite() && v.abs() < 1e300);
        let (low, high) = padded(values, 1e-3)?;
        Some(Self {
            low,
            high,
            ticks: round_numbers(low, high).map(|v| (v, tick(v))).collect(),
            title,
        })
    }

    /// Puts the labels at the given positions instead, leaving out those that
    /// would run into the one before.
    pub(super) fn labelled(mut self, mut ticks: Vec<(f64, String)>) -> Self {
        // A character takes about a fiftieth of the axis; one keeps labels apart.
        let character = (self.high - self.low) / 50.0;
        let half = |label: &str| (label.chars().count() as f64 / 2.0 + 0.5) * character;
        ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
        ticks.dedup_by(|next, kept| next.0 - kept.0 < half(&next.1) + half(&kept.1));
        self.ticks = ticks;
        self
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        from + (share.clamp(0.0, 1.0) * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|tick| tick.0).collect()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, at: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *at);
        tick.map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// Where a logarithmic axis draws a value, if it can.
pub(super) fn decades(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then(|| value.log10())
}

/// The values' range with some air around, at least `least` wide.
fn padded(values: impl Iterator<Item = f64>, least: f64) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let span = high - low;
    if !span.is_finite() {
        return None;
    }
    let air = (0.05 * span)
        .max((least - span) / 2.0)
        .max(low.abs() * 1e-9);
    Some((low - air, high + air))
}

/// Round values between two decades, close enough together to read between.
fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let span = high - low;
    if span < 0.5 {
        let (low, high) = (10_f64.powf(low), 10_f64.powf(high));
        return round_numbers(low, high)
            .filter_map(|v| Some((decades(v)?, tick(v))))
            .collect();
    }
    let mantissas: &[f64] = match span {
        ..1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        ..3.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let step = (span / 8.0).ceil().max(1.0);
    let first = (low / step).floor() * step;
    let steps = ((high - first) / step) as u32;
    (0..=steps)
        .map(|i| first + step * f64::from(i))
        .flat_map(|decade| mantissas.iter().map(move |m| m * 10_f64.powf(decade)))
        .filter_map(|v| Some((decades(v)?, tick(v))))
        .filter(|tick| (low..=high).contains(&tick.0))
        .collect()
}

/// Some four to eight multiples of 1, 2 or 5 in a power of ten.
fn round_numbers(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = match rough / power {
        ..1.5 => 1.0,
        ..3.5 => 2.0,
        ..7.5 => 5.0,
        _ => 10.0,
    } * power;
    let first = (low / step).ceil();
    let steps = ((high / step).floor() - first).clamp(0.0, 20.0) as u32;
    // Dividing by the whole number 1 / step keeps 0.3 from being 0.30000000000000004.
    (0..=steps).map(move |i| {
        let multiple = first + f64::from(i);
        if step < 1.0 {
            multiple / (1.0 / step).round()
        } else {
            multiple * step
        }
    })
}
