//! Colours and shapes: of contenders and of verdicts.
//!
//! All are of middling lightness, to be seen on white and on black.

use plotters::style::RGBColor;

use super::canvas::Series;
use crate::results::{Role, ScenarioResult};
use crate::stats::Verdict;

/// Gives each contender of a group one look in all of the group's plots.
pub(super) struct Looks(Vec<(String, LineStyle)>);

impl Looks {
    /// The looks of all contenders of the scenarios.
    pub(super) fn of<'a>(scenarios: impl IntoIterator<Item = &'a ScenarioResult>) -> Self {
        let mut looks = Self(Vec::new());
        for scenario in scenarios {
            for row in &scenario.rows {
                looks.add(&row.name, row.role);
            }
            for row in scenario.points.iter().flat_map(|point| &point.rows) {
                looks.add(&row.name, Role::Peer);
            }
        }
        looks
    }

    fn add(&mut self, name: &str, role: Role) {
        const OURS: RGBColor = RGBColor(0xE8, 0x59, 0x0C);
        const LIMIT: RGBColor = RGBColor(0x86, 0x8E, 0x96);
        const OTHERS: [RGBColor; 9] = [
            RGBColor(0x22, 0x8B, 0xE6),
            RGBColor(0x37, 0xA2, 0x4C),
            RGBColor(0xAE, 0x5F, 0xD6),
            RGBColor(0x12, 0x9F, 0xAF),
            RGBColor(0xE6, 0x49, 0x80),
            RGBColor(0xB8, 0x8A, 0x0B),
            RGBColor(0x5C, 0x7C, 0xFA),
            RGBColor(0x7A, 0x9E, 0x1E),
            RGBColor(0xA9, 0x6B, 0x4A),
        ];
        if self.0.iter().any(|(known, _)| known == name) {
            return;
        }
        let i = self.0.len();
        let color = match role {
            Role::Ours => OURS,
            Role::Limit => LIMIT,
            _ => OTHERS[i % OTHERS.len()],
        };
        let style = LineStyle {
            color,
            marker: if role == Role::Ours { 0 } else { i },
            strong: role == Role::Ours,
        };
        self.0.push((name.to_owned(), style));
    }

    /// One series a contender, in drawn space, without those that have no
    /// point there.
    pub(super) fn series(&self, points_of: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Series> {
        let mut series: Vec<_> = self
            .0
            .iter()
            .map(|(name, style)| {
                let mut points = points_of(name);
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series {
                    name: name.clone(),
                    style: *style,
                    points,
                }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        // The last drawn is on top.
        series.sort_by_key(|series| series.style.strong);
        series
    }
}

/// How a contender is drawn, wherever it occurs.
#[derive(Clone, Copy)]
pub(super) struct LineStyle {
    /// Colour of line, markers and name.
    pub(super) color: RGBColor,
    /// Shape of the markers.
    pub(super) marker: usize,
    /// Drawn thicker than the others.
    pub(super) strong: bool,
}

/// The word and the colour of a verdict.
pub(super) fn verdict_style(verdict: Verdict) -> (&'static str, RGBColor) {
    match verdict {
        Verdict::Equal => ("equal", RGBColor(0x2B, 0x86, 0xD9)),
        Verdict::Faster => ("faster", RGBColor(0x2D, 0xA0, 0x4E)),
        Verdict::Inconclusive => ("inconclusive", RGBColor(0x8B, 0x94, 0x9E)),
        Verdict::Slower => ("slower", RGBColor(0xE0, 0x3E, 0x3E)),
    }
}
