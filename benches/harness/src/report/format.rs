//! Figures and text as people read them.

/// A figure with three significant digits.
///
/// Without an exponent from 0.001 up to a million; `-` for what is not finite.
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // Rounding first: 999.9 has the digits of 1000.
    let scientific = format!("{value:.2e}");
    let Some((digits, exponent)) = scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)))
    else {
        return scientific;
    };
    match exponent {
        -3..=1 => format!("{value:.*}", (2 - exponent) as usize),
        2..=5 => {
            let zeros = "0".repeat((exponent - 2) as usize);
            format!("{}{zeros}", digits.replace('.', ""))
        }
        _ => scientific,
    }
}

/// A cost ratio: three decimals around 1, where half a percent matters.
pub fn ratio(value: f64) -> String {
    if (0.1..2.0).contains(&value) {
        format!("{value:.3}")
    } else {
        figure(value)
    }
}

/// The label of a round figure on an axis: without the zeros at its end.
pub(super) fn tick(value: f64) -> String {
    let label = figure(value);
    let (digits, exponent) = label.find('e').map_or((&*label, ""), |e| label.split_at(e));
    if !digits.contains('.') {
        return label;
    }
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{exponent}")
}

/// Makes text safe inside HTML, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Shows `text` for a figure, with the figure itself in the `value` attribute,
/// spelled exactly as in the results file.
pub(super) fn data(value: f64, text: &str) -> String {
    match serde_json::to_string(&value) {
        Ok(exact) if value.is_finite() => {
            format!("<data value=\"{exact}\" title=\"{exact}\">{text}</data>")
        }
        _ => "&ndash;".to_owned(),
    }
}

/// A whole number, shown as it is.
pub(super) fn count(value: impl core::fmt::Display) -> String {
    format!("<data value=\"{value}\">{value}</data>")
}

/// A figure that may be missing.
pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "&ndash;".to_owned(), |value| data(value, &figure(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1.00"),
            (0.39123, "0.391"),
            (0.001, "0.00100"),
            (0.00099949, "9.99e-4"),
            (0.0009999, "0.00100"),
            (-0.5, "-0.500"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (999.9, "1000"),
            (-1234.0, "-1230"),
            (65_536.0, "65500"),
            (999_499.0, "999000"),
            (999_999.0, "1.00e6"),
            (1e300, "1.00e300"),
            (f64::NAN, "-"),
            (f64::NEG_INFINITY, "-"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn ratios_near_one_show_a_tenth_of_a_percent() {
        for (value, text) in [
            (1.0051, "1.005"),
            (0.3912, "0.391"),
            (2.5, "2.50"),
            (0.05, "0.0500"),
        ] {
            assert_eq!(ratio(value), text);
        }
    }
}
