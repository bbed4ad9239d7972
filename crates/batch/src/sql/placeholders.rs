//! The parameters of a statement with many rows.

use std::fmt::Write;

use overdrive_core::ConfigError;

/// The largest accepted number of placeholders in one text. Every database allows fewer.
pub const MAX_PLACEHOLDERS: usize = 1 << 20;

/// How a database writes parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placeholders {
    /// `$1`, `$2`: PostgreSQL, SQLite.
    Dollar,
    /// `?`: MySQL, SQLite.
    Question,
}

/// The text `($1,$2),($3,$4)` of so many rows, for a statement with `VALUES`, where there is no
/// UNNEST. One row is the list of an `IN`.
///
/// Use it with [`chunks_by_params`](crate::sql::chunks_by_params), and keep the texts of full chunks:
/// each number of rows is a statement of its own to be prepared.
///
/// # Errors
/// `rows` or `params_per_row` is zero, which no statement may have, or there are more than
/// [`MAX_PLACEHOLDERS`].
///
/// ```
/// use overdrive_batch::sql::{Placeholders, placeholders};
///
/// assert_eq!(placeholders(2, 2, Placeholders::Dollar)?, "($1,$2),($3,$4)");
/// assert_eq!(placeholders(1, 3, Placeholders::Question)?, "(?,?,?)");
/// # Ok::<(), overdrive_batch::ConfigError>(())
/// ```
pub fn placeholders(
    rows: usize,
    params_per_row: usize,
    style: Placeholders,
) -> Result<String, ConfigError> {
    ConfigError::within("params_per_row", params_per_row, MAX_PLACEHOLDERS)?;
    ConfigError::within("rows", rows, MAX_PLACEHOLDERS / params_per_row)?;
    let mut text = String::with_capacity(rows * (params_per_row * 7 + 3));
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for param in 0..params_per_row {
            if param > 0 {
                text.push(',');
            }
            match style {
                Placeholders::Question => text.push('?'),
                Placeholders::Dollar => {
                    let number = row * params_per_row + param + 1;
                    write!(text, "${number}").expect("a String takes all");
                }
            }
        }
        text.push(')');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_from_row_to_row() {
        let text = placeholders(4, 3, Placeholders::Dollar).unwrap();
        assert_eq!(text, "($1,$2,$3),($4,$5,$6),($7,$8,$9),($10,$11,$12)");
        let text = placeholders(2, 1, Placeholders::Question).unwrap();
        assert_eq!(text, "(?),(?)");
    }

    #[test]
    fn texts_that_no_statement_may_have_are_refused() {
        for (rows, params, field) in [
            (0, 1, "rows"),
            (1, 0, "params_per_row"),
            (1, usize::MAX, "params_per_row"),
            (usize::MAX, 1, "rows"),
            (1 << 19, 3, "rows"),
        ] {
            let refused = placeholders(rows, params, Placeholders::Dollar).unwrap_err();
            assert_eq!(refused.field(), field);
        }
    }
}
