//! A connection outside of the pool.

use std::fmt;

use overdrive_core::Deadline;
use redis::FromRedisValue;
use tokio::time::timeout;

use crate::connection::{Connection, unreachable_at};
use crate::error::{is_loss, mistyped};
use crate::settings::Target;
use crate::{RemoteError, Request};

/// A connection of one's own, from [`Remote::dedicated`](crate::Remote::dedicated). Dropping it
/// closes it.
#[must_use = "dropping it closes the connection"]
pub struct Dedicated {
    connection: Option<Connection>,
    target: Target,
}

impl Dedicated {
    pub(crate) fn new(connection: Connection, target: Target) -> Self {
        Self {
            connection: Some(connection),
            target,
        }
    }

    /// Sends a request and waits until `deadline`, with no other limit. After a failure that
    /// [`is_unavailable`](RemoteError::is_unavailable) and after a cancelled call the connection
    /// is closed, and so are all calls that follow.
    ///
    /// # Errors
    /// See [`RemoteError`]; [`RemoteError::Closed`] after one of the above.
    ///
    /// # Cancel safety
    /// The request may have been carried out, or not.
    pub async fn query<T: FromRedisValue>(
        &mut self,
        request: &impl Request,
        deadline: impl Into<Deadline>,
    ) -> Result<T, RemoteError> {
        // Kept here meanwhile, so that it goes with a dropped call.
        let mut connection = self.connection.take().ok_or(RemoteError::Closed)?;
        let limit = deadline.into().remaining();
        let answer = match timeout(limit, request.send(&mut connection.redis)).await {
            Err(_) => return Err(RemoteError::TimedOut { after: limit }),
            Ok(Err(error)) if is_loss(&error) => return Err(unreachable_at(&self.target, error)),
            Ok(answer) => answer,
        };
        self.connection = Some(connection);
        let value = answer.map_err(RemoteError::Server)?;
        redis::from_redis_value(value).map_err(mistyped)
    }
}

impl fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedicated")
            .field("addr", &self.target.addr())
            .field("closed", &self.connection.is_none())
            .finish()
    }
}
