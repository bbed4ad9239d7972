//! Rows in slices that a statement has parameters for.

use std::slice::Chunks;

use overdrive_core::ConfigError;

/// Cuts `rows` into the longest slices of which `rows * params_per_row` stays within `limit`, the
/// number of parameters that one statement may bind. No copy, no allocation.
///
/// PostgreSQL's protocol counts them in 16 bits: 65,535. SQLite since 3.32 allows 32,766 unless
/// built otherwise, SQL Server 2,100.
///
/// # Errors
/// `params_per_row` is zero, or exceeds `limit`, so that not even one row would fit.
///
/// ```
/// use overdrive_batch::chunks_by_params;
///
/// let rows = [["a", "1"], ["b", "2"], ["c", "3"]];
/// let lengths: Vec<_> = chunks_by_params(&rows, 2, 5)?.map(<[_]>::len).collect();
/// assert_eq!(lengths, [2, 1]);
/// # Ok::<(), overdrive_batch::ConfigError>(())
/// ```
pub fn chunks_by_params<T>(
    rows: &[T],
    params_per_row: usize,
    limit: usize,
) -> Result<Chunks<'_, T>, ConfigError> {
    const FIELD: &str = "params_per_row";
    if params_per_row == 0 {
        return Err(ConfigError::Zero { field: FIELD });
    }
    if params_per_row > limit {
        return Err(ConfigError::Contradiction {
            field: FIELD,
            other: "limit",
            reason: "must not exceed",
        });
    }
    Ok(rows.chunks(limit / params_per_row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_as_long_as_the_limit_allows_and_lose_nothing() {
        let rows: Vec<_> = (0..1000).collect();
        for (params, limit) in [(1, 1), (3, 10), (7, 65_535), (10, 10), (999, 1000)] {
            let slices: Vec<_> = chunks_by_params(&rows, params, limit).unwrap().collect();
            assert!(slices.iter().all(|s| s.len() * params <= limit));
            assert!((slices[0].len() + 1) * params > limit || slices.len() == 1);
            assert_eq!(slices.concat(), rows);
        }
        assert_eq!(chunks_by_params::<u8>(&[], 1, 1).unwrap().count(), 0);
    }

    #[test]
    fn rows_that_fit_nowhere_are_refused() {
        for (params, limit) in [(0, 10), (11, 10), (1, 0)] {
            let refused = chunks_by_params(&[1], params, limit).unwrap_err();
            assert_eq!(refused.field(), "params_per_row");
        }
    }
}
