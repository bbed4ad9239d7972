//! What a handler needs to write or read many rows with one statement. No database, no dependency.

mod chunks;
mod columns;
mod order;
mod placeholders;

pub use self::chunks::chunks_by_params;
pub use self::columns::{Row, columns};
pub use self::order::{OrderError, in_order_of};
pub use self::placeholders::{MAX_PLACEHOLDERS, Placeholders, placeholders};
