//! One connection, and how it is opened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, cmd, pipe};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::RemoteError;
use crate::link::Link;
use crate::settings::Target;

/// A connection. Dropping it ends it, whatever is under way.
pub(crate) struct Connection {
    pub(crate) link: Link,
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
        let dial = async {
            let stream = TcpStream::connect((&*target.host, target.port)).await?;
            stream.set_nodelay(true)?;
            let settings = target.info.redis_settings();
            let mut link = Link::new(stream, write_timeout, settings.db());
            introduce(&mut link, settings).await?;
            RedisResult::Ok(link)
        };
        let link = match timeout(limit, dial).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) if is_refusal(&error) => return Err(RemoteError::Server(error)),
            Ok(Err(source)) => return Err(unreachable_at(target, source)),
            Err(_) => {
                let silence = format!("no welcome within {limit:?}");
                let silence = io::Error::new(io::ErrorKind::TimedOut, silence);
                return Err(unreachable_at(target, silence.into()));
            }
        };
        open.fetch_add(1, Ordering::AcqRel);
        Ok(Self {
            link,
            open: open.clone(),
        })
    }

    /// Whether the other side has closed it, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.link.has_ended()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Protocol, credentials and database, of which a `PING` takes the place if there are none: a
/// server that says nothing is none.
async fn introduce(link: &mut Link, settings: &RedisConnectionInfo) -> RedisResult<()> {
    let mut words = pipe();
    let password = settings.password();
    if settings.protocol() == ProtocolVersion::RESP3 {
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if let Some(password) = password {
            let username = settings.username().unwrap_or("default");
            hello.arg("AUTH").arg(username).arg(password);
        }
        words.add_command(hello);
    } else if let Some(password) = password {
        let mut auth = cmd("AUTH");
        auth.arg(settings.username()).arg(password);
        words.add_command(auth);
    }
    if settings.db() != 0 {
        words.cmd("SELECT").arg(settings.db());
    }
    if words.is_empty() {
        words.cmd("PING");
    }
    for answer in link.req_packed_commands(&words, 0, words.len()).await? {
        answer.extract_error()?;
    }
    Ok(())
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
