//! Rows back in the order of what they were asked for.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::Hash;

/// Puts the rows that a statement returned in the order of the keys that it was given: at each key's
/// place its row, or `None` where there is none.
///
/// No database promises an order without `ORDER BY`, neither of a `SELECT .. WHERE id IN (..)` nor of
/// `RETURNING`, although it often looks as if: giving the first row to the first submitter gives
/// somebody another's. So a row finds its place by its key, never by its position. For rows whose ids
/// the database makes, send a key of your own along (a number is enough) and return it.
///
/// A hash insert for each key and a look-up for each row; no row is cloned.
///
/// # Errors
/// Two keys are equal, two rows have one key, or a row has a key that was not asked for. None of
/// these has an answer that would not be a guess.
///
/// ```
/// use overdrive_batch::sql::in_order_of;
///
/// let returned = vec![(30, "thirty"), (10, "ten")];
/// let rows = in_order_of(&[10, 20, 30], returned, |row| &row.0)?;
/// assert_eq!(rows, [Some((10, "ten")), None, Some((30, "thirty"))]);
/// # Ok::<(), overdrive_batch::sql::OrderError>(())
/// ```
pub fn in_order_of<K, R>(
    keys: &[K],
    rows: impl IntoIterator<Item = R>,
    key_of: impl Fn(&R) -> &K,
) -> Result<Vec<Option<R>>, OrderError>
where
    K: Eq + Hash,
{
    let mut places = HashMap::with_capacity(keys.len());
    for (second, key) in keys.iter().enumerate() {
        if let Some(first) = places.insert(key, second) {
            return Err(OrderError::RepeatedKey { first, second });
        }
    }
    let mut ordered: Vec<Option<R>> = keys.iter().map(|_| None).collect();
    for (row, value) in rows.into_iter().enumerate() {
        let Some(&key) = places.get(key_of(&value)) else {
            return Err(OrderError::UnknownRow { row });
        };
        if ordered[key].replace(value).is_some() {
            return Err(OrderError::RepeatedRow { key, row });
        }
    }
    Ok(ordered)
}

/// Why rows have no order by their keys. Positions count from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderError {
    /// Two keys are equal.
    RepeatedKey {
        /// The one's position.
        first: usize,
        /// The other's.
        second: usize,
    },
    /// Two rows have the same key.
    RepeatedRow {
        /// The key's position.
        key: usize,
        /// The second row's position.
        row: usize,
    },
    /// A row's key is none of the keys.
    UnknownRow {
        /// The row's position.
        row: usize,
    },
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepeatedKey { first, second } => {
                write!(f, "keys {first} and {second} are equal")
            }
            Self::RepeatedRow { key, row } => {
                write!(f, "row {row} is not the first with key {key}")
            }
            Self::UnknownRow { row } => write!(f, "row {row} has none of the keys"),
        }
    }
}

impl Error for OrderError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_any_order_find_their_keys() {
        let keys = ["c", "a", "b", "d"];
        let mut rows = vec![("a", 1), ("b", 2), ("c", 3)];
        for _ in 0..3 {
            rows.rotate_left(1);
            let ordered = in_order_of(&keys, rows.clone(), |row| &row.0).unwrap();
            let numbers: Vec<_> = ordered.into_iter().map(|row| row.map(|r| r.1)).collect();
            assert_eq!(numbers, [Some(3), Some(1), Some(2), None]);
        }
        assert_eq!(in_order_of(&[0_u8; 0], [], |row| row), Ok(vec![]));
    }

    #[test]
    fn nothing_is_guessed() {
        let refused = in_order_of(&[1, 2, 1], [2], |row| row).unwrap_err();
        assert_eq!(
            refused,
            OrderError::RepeatedKey {
                first: 0,
                second: 2
            }
        );
        let refused = in_order_of(&[1, 2], [2, 1, 2], |row| row).unwrap_err();
        assert_eq!(refused, OrderError::RepeatedRow { key: 1, row: 2 });
        let refused = in_order_of(&[1, 2], [2, 3], |row| row).unwrap_err();
        assert_eq!(refused, OrderError::UnknownRow { row: 1 });
        assert_eq!(refused.to_string(), "row 1 has none of the keys");
    }
}
