//! One connection, and how it is opened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::RemoteError;
use crate::settings::Target;
use crate::stream::WriteLimited;

/// A connection with the task that drives it. Dropping it ends both, whatever is under way.
pub(crate) struct Connection {
    pub(crate) redis: MultiplexedConnection,
    driver: AbortHandle,
    ended: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

impl Connection {
    /// Opens one within `limit`; `open` counts it while it lasts.
    pub(crate) async fn dial(
        target: &Target,
        limit: Duration,
        write_timeout: Duration,
        open: &Arc<AtomicUsize>,
    ) -> Result<Self, RemoteError> {
        // The limits are ours: the client's own would end a call without ending its connection.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let dial = async {
            let stream = TcpStream::connect((&*target.host, target.port)).await?;
            stream.set_nodelay(true)?;
            let stream = WriteLimited::new(stream, write_timeout);
            let settings = target.info.redis_settings();
            MultiplexedConnection::new_with_config(settings, stream, config).await
        };
        let (redis, driver) = match timeout(limit, dial).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) if is_refusal(&error) => return Err(RemoteError::Server(error)),
            Ok(Err(source)) => return Err(unreachable_at(target, source)),
            Err(_) => {
                let silence = format!("no welcome within {limit:?}");
                let silence = io::Error::new(io::ErrorKind::TimedOut, silence);
                return Err(unreachable_at(target, silence.into()));
            }
        };
        let ended = Arc::new(AtomicBool::new(false));
        let end = SetOnDrop(ended.clone());
        let driver = tokio::spawn(async move {
            let _set_also_if_the_runtime_ends = end;
            driver.await;
        });
        open.fetch_add(1, Ordering::AcqRel);
        Ok(Self {
            redis,
            driver: driver.abort_handle(),
            ended,
            open: open.clone(),
        })
    }

    /// Whether the other side has closed it, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whether the server is there and does not let us in.
fn is_refusal(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::Server(_)
            | ErrorKind::Extension
            | ErrorKind::RESP3NotSupported
    )
}

pub(crate) fn unreachable_at(target: &Target, source: RedisError) -> RemoteError {
    let addr = target.addr();
    RemoteError::Unreachable { addr, source }
}
