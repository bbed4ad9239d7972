//! Drawing: curves over two axes, and the forest of ratios.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::{Axis, decades};
use super::looks::{LineStyle, verdict_style};
use crate::stats::{Interval, Verdict};

/// Becomes the colour of the surrounding text, on a light and on a dark page.
const INK: RGBColor = BLACK;

/// How wide a character of a label is at most, on average, in pixels.
const CHARACTER: f64 = 7.1;

/// A line with its name at its end.
pub(super) struct Series {
    /// The contender.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) style: LineStyle,
    /// Positions in drawn space.
    pub(super) points: Vec<(f64, f64)>,
}

/// A row of a forest: ours against one other.
pub(super) struct ForestRow {
    /// Whom it is about.
    pub(super) label: String,
    /// Cost of ours over the cost of the other.
    pub(super) ratio: Interval,
    /// What may be said of it.
    pub(super) verdict: Verdict,
}

/// Draws every series as a line with markers, its name to the right of it.
pub(super) fn curves(x: &Axis, y: &Axis, series: &[Series]) -> Result<String, String> {
    let longest = series.iter().map(|s| s.name.chars().count()).max();
    let margin = label_width(longest.unwrap_or(0)).min(190);
    draw((400 + margin, 300), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .margin_right(margin)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(text)?;
        chart
            .configure_mesh()
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.6))
            .label_style(font(15))
            .axis_desc_style(font(16))
            .x_desc(&x.title)
            .y_desc(&y.title)
            .draw()
            .map_err(text)?;

        let mut names = Vec::new();
        for Series {
            name,
            style,
            points,
        } in series
        {
            let width = if style.strong { 3 } else { 1 };
            let line = LineSeries::new(points.iter().copied(), style.color.stroke_width(width));
            chart.draw_series(line).map_err(text)?;
            for point in points {
                draw_marker(root, chart.backend_coord(point), style)?;
            }
            if let Some(last) = points.last() {
                names.push((chart.backend_coord(last), name, style));
            }
        }
        let right = chart.backend_coord(&(x.high, y.low)).0;
        draw_names(root, right, names)
    })
}

/// Writes names in the right margin, close to where their lines end.
fn draw_names(
    root: &Area<'_>,
    right: i32,
    mut names: Vec<((i32, i32), &String, &LineStyle)>,
) -> Result<(), String> {
    const HEIGHT: i32 = 14;

    names.sort_by_key(|name| name.0.1);
    // Downwards each keeps its distance to the one above, and then upwards,
    // within the picture, to the one below.
    let mut rows: Vec<i32> = names.iter().map(|name| name.0.1).collect();
    for i in 1..rows.len() {
        rows[i] = rows[i].max(rows[i - 1] + HEIGHT);
    }
    let mut floor = root.dim_in_pixel().1 as i32 - HEIGHT / 2;
    for row in rows.iter_mut().rev() {
        *row = (*row).min(floor);
        floor = *row - HEIGHT;
    }
    for ((end, name, style), row) in names.into_iter().zip(rows) {
        let leader = vec![(end.0 + 5, end.1), (right + 4, row)];
        root.draw(&PathElement::new(leader, style.color.mix(0.5)))
            .map_err(text)?;
        let mut label = font(15).color(&style.color);
        if style.strong {
            label.font = label.font.style(FontStyle::Bold);
        }
        root.draw(&Text::new(shortened(name, 26), (right + 7, row - 6), label))
            .map_err(text)?;
    }
    Ok(())
}

/// Draws each row's interval on a logarithmic axis, and the line at 1.
///
/// `Ok(None)` if no row's ratio is above zero.
pub(super) fn forest(rows: &[ForestRow], title: &str) -> Result<Option<String>, String> {
    let drawn: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row, decades(row.ratio.estimate)?)))
        .collect();
    let figures = drawn.iter().flat_map(|(row, _)| {
        let Interval {
            estimate,
            low,
            high,
        } = row.ratio;
        [estimate, low, high]
    });
    if drawn.is_empty() {
        return Ok(None);
    }
    let Some(x) = Axis::log(figures.chain([0.95, 1.05]), title.to_owned()) else {
        return Ok(None);
    };

    let longest = drawn.iter().map(|(row, _)| row.label.chars().count()).max();
    let labels = label_width(longest.unwrap_or(0)).min(340);
    let count = drawn.len();
    let size = (labels + 560, 22 * count as u32 + 66);
    draw(size, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(96)
            .x_label_area_size(44)
            .y_label_area_size(labels)
            .build_cartesian_2d(x.clone(), Axis::rows(count))
            .map_err(text)?;
        chart
            .configure_mesh()
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.6))
            .disable_y_axis()
            .label_style(font(16))
            .axis_desc_style(font(16))
            .x_desc(&x.title)
            .draw()
            .map_err(text)?;
        let one = vec![(0.0, -0.5), (0.0, count as f64 - 0.5)];
        chart
            .draw_series([PathElement::new(one, INK.mix(0.8).stroke_width(2))])
            .map_err(text)?;

        let right = chart.backend_coord(&(x.high, 0.0)).0;
        for (i, (row, at)) in drawn.into_iter().enumerate() {
            let (word, color) = verdict_style(row.verdict);
            let place = |x| chart.backend_coord(&(x, (count - 1 - i) as f64));
            let (low, high) = (
                place(decades(row.ratio.low).unwrap_or(x.low)),
                place(decades(row.ratio.high).unwrap_or(x.high)),
            );
            let bar = color.stroke_width(2);
            for (from, to) in [
                (low, high),
                ((low.0, low.1 - 4), (low.0, low.1 + 4)),
                ((high.0, high.1 - 4), (high.0, high.1 + 4)),
            ] {
                root.draw(&PathElement::new(vec![from, to], bar))
                    .map_err(text)?;
            }
            let (middle, y) = place(at);
            root.draw(&Circle::new((middle, y), 4, color.filled()))
                .map_err(text)?;
            let label = shortened(&row.label, 50);
            root.draw(&Text::new(label, (8, y - 6), font(16)))
                .map_err(text)?;
            root.draw(&Text::new(word, (right + 8, y - 6), font(16).color(&color)))
                .map_err(text)?;
        }
        Ok(())
    })
    .map(Some)
}

fn draw_marker(root: &Area<'_>, at: (i32, i32), style: &LineStyle) -> Result<(), String> {
    let size = if style.strong { 4 } else { 3 };
    let filled = style.color.filled();
    match style.marker % 4 {
        0 => root.draw(&Circle::new(at, size, filled)),
        1 => root.draw(&TriangleMarker::new(at, size + 2, filled)),
        2 => root.draw(&Rectangle::new(
            [(at.0 - size, at.1 - size), (at.0 + size, at.1 + size)],
            filled,
        )),
        _ => root.draw(&Cross::new(at, size, style.color.stroke_width(2))),
    }
    .map_err(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&root)?;
        root.present().map_err(text)?;
    }
    // Inline, it needs no name space; its ink is that of the page.
    Ok(svg
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace("\"#000000\"", "\"currentColor\""))
}

fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn label_width(characters: usize) -> u32 {
    (characters as f64 * CHARACTER) as u32 + 24
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['\u{2026}']).collect()
}
