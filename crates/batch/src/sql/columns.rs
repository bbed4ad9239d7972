//! Rows to columns.

/// Tuples of one to twelve values, as [`columns`] takes them.
pub trait Row: Sized {
    /// As many lists.
    type Columns;

    #[doc(hidden)]
    fn collect(rows: impl Iterator<Item = Self>) -> Self::Columns;
}

/// Turns rows into one list for each column, as `INSERT .. SELECT * FROM UNNEST(..)` takes them:
/// however many rows there are, it is one parameter for each column and one text of the statement,
/// so that it is prepared once and no limit on parameters is near.
///
/// A row is a tuple. What it borrows need not be cloned: a list of `&str` is bound as well as one of
/// `String`. Allocates each list once if the iterator knows its length, as that of a slice does.
///
/// The lists have one length by construction; UNNEST would fill shorter ones up with NULL. The order
/// in which the database returns rows is another matter: see [`in_order_of`](crate::sql::in_order_of).
///
/// ```
/// use overdrive_batch::sql::columns;
///
/// struct User {
///     id: i64,
///     name: String,
/// }
///
/// let users = [(1, "Ada"), (2, "Grace")].map(|(id, name)| User { id, name: name.into() });
/// let (ids, names) = columns(users.iter().map(|user| (user.id, user.name.as_str())));
/// assert_eq!(ids, [1, 2]);
/// assert_eq!(names, ["Ada", "Grace"]);
/// // insert into users (id, name) select * from unnest($1::bigint[], $2::text[])
/// ```
pub fn columns<R: Row>(rows: impl IntoIterator<Item = R>) -> R::Columns {
    R::collect(rows.into_iter())
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        #[expect(non_snake_case, reason = "a list has the name of its type")]
        impl<$first, $($rest),*> Row for ($first, $($rest,)*) {
            type Columns = (Vec<$first>, $(Vec<$rest>,)*);

            fn collect(rows: impl Iterator<Item = Self>) -> Self::Columns {
                let room = rows.size_hint().0;
                let mut lists: Self::Columns = (
                    Vec::<$first>::with_capacity(room),
                    $(Vec::<$rest>::with_capacity(room),)*
                );
                let ($first, $($rest,)*) = &mut lists;
                rows.for_each(|row| tuples!(@push row ($first $($rest)*)));
                lists
            }
        }

        tuples!($($rest)*);
    };
    (@push $row:ident ($a:ident)) => { $a.push($row.0) };
    (@push $row:ident ($a:ident $b:ident)) => {{ $a.push($row.0); $b.push($row.1); }};
    (@push $row:ident ($a:ident $b:ident $c:ident $($more:ident)*)) => {{
        $a.push($row.0);
        $b.push($row.1);
        $c.push($row.2);
        tuples!(@more $row ($($more)*) (3 4 5 6 7 8 9 10 11));
    }};
    (@more $row:ident () ($($n:tt)*)) => {};
    (@more $row:ident ($a:ident $($more:ident)*) ($n:tt $($left:tt)*)) => {
        $a.push($row.$n);
        tuples!(@more $row ($($more)*) ($($left)*));
    };
    () => {};
}

tuples!(A B C D E F G H I J K L);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_keeps_the_order_of_the_rows() {
        let (numbers,) = columns((0..5).map(|n| (n,)));
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        let rows = [(1, "a", true), (2, "b", false)];
        assert_eq!(
            columns(rows),
            (vec![1, 2], vec!["a", "b"], vec![true, false])
        );
        let twelve = columns([(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "last")]);
        assert_eq!(
            (twelve.0, twelve.10, twelve.11),
            (vec![0], vec![10], vec!["last"])
        );
        assert_eq!(columns([(1, 2); 0]), (vec![], vec![]));
    }

    #[test]
    fn lists_of_a_known_length_are_allocated_once() {
        let (a, b) = columns((0..1000).map(|n| (n, n)));
        assert_eq!((a.capacity(), b.capacity()), (1000, 1000));
    }
}
