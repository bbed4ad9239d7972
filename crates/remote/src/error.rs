//! Why a call failed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use overdrive_core::ConfigError;
use overdrive_core::breaker::BreakerOpen;
use redis::{ErrorKind, ParsingError, RedisError, RetryMethod, ServerErrorKind};

/// Why a [`Remote`](crate::Remote) could not be made, or its call failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RemoteError {
    /// A setting cannot be.
    Config(ConfigError),
    /// No connection could be opened, or the one used was lost in the middle: the command may
    /// have run, or not.
    Unreachable {
        /// Host and port.
        addr: String,
        /// What the connection gave.
        source: RedisError,
    },
    /// The server did not answer in time: the command may have run, or may run yet.
    TimedOut {
        /// The limit: what was left until the caller's deadline, or one of the settings.
        after: Duration,
    },
    /// The server has not answered lately, and was not asked.
    Open(BreakerOpen),
    /// So many calls are under way as are allowed, and none ended in time. The server was not
    /// asked.
    PoolTimedOut {
        /// How long it waited.
        after: Duration,
    },
    /// The server answered with an error, or with something that is not of the type asked for.
    Server(RedisError),
    /// The remote was closed. The server was not asked.
    Closed,
}

impl RemoteError {
    /// Whether the server is away: unreachable, silent, still loading its data, or not asked for
    /// such reasons. Otherwise the fault is with the call, the settings, or the load on this side.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Open(_) => true,
            Self::Server(error) => is_not_serving(error),
            Self::Config(_) | Self::PoolTimedOut { .. } | Self::Closed => false,
        }
    }
}

/// For an answer that is not of the type asked for. The client's own error repeats the answer,
/// which may be a secret.
pub(crate) fn mistyped(error: ParsingError) -> RemoteError {
    let kind = RedisError::from(error).kind();
    RemoteError::Server((kind, "the answer is not of the type asked for").into())
}

/// Whether the server says that it is there, but not ready.
pub(crate) fn is_not_serving(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown};
    matches!(
        error.kind(),
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown)
    )
}

/// Whether the connection cannot be used any more.
pub(crate) fn is_loss(error: &RedisError) -> bool {
    let fatal = [ErrorKind::Io, ErrorKind::Parse].contains(&error.kind());
    fatal || matches!(error.retry_method(), RetryMethod::Reconnect)
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the redis settings were refused"),
            Self::Unreachable { addr, .. } => write!(f, "no connection to redis at {addr}"),
            Self::TimedOut { after } => write!(f, "redis did not answer within {after:?}"),
            Self::Open(_) => f.write_str("redis has not answered lately and was not asked"),
            Self::PoolTimedOut { after } => {
                write!(f, "no redis connection became free within {after:?}")
            }
            Self::Server(_) => f.write_str("redis answered with an error"),
            Self::Closed => f.write_str("the connection to redis was closed"),
        }
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(source) => Some(source),
            Self::Unreachable { source, .. } | Self::Server(source) => Some(source),
            Self::Open(source) => Some(source),
            Self::TimedOut { .. } | Self::PoolTimedOut { .. } | Self::Closed => None,
        }
    }
}

impl From<ConfigError> for RemoteError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_ready_is_away_and_one_that_refuses_is_not() {
        let reply = |kind| RemoteError::Server((ErrorKind::Server(kind), "reply").into());
        assert!(reply(ServerErrorKind::BusyLoading).is_unavailable());
        assert!(reply(ServerErrorKind::MasterDown).is_unavailable());
        assert!(!reply(ServerErrorKind::ResponseError).is_unavailable());
        assert!(!reply(ServerErrorKind::NoPerm).is_unavailable());
    }

    #[test]
    fn messages_are_lower_case_and_name_their_source() {
        let after = Duration::from_secs(1);
        let source = || RedisError::from((ErrorKind::Io, "gone"));
        let addr = "host:1".to_owned();
        let all = [
            RemoteError::Config(ConfigError::Missing { field: "url" }),
            RemoteError::Unreachable {
                addr,
                source: source(),
            },
            RemoteError::TimedOut { after },
            RemoteError::PoolTimedOut { after },
            RemoteError::Server(source()),
            RemoteError::Closed,
        ];
        for error in all {
            let text = error.to_string();
            assert!(
                !text.ends_with('.') && text == text.to_lowercase(),
                "{text}"
            );
            let silent = matches!(
                error,
                RemoteError::TimedOut { .. }
                    | RemoteError::PoolTimedOut { .. }
                    | RemoteError::Closed
            );
            assert_eq!(error.source().is_none(), silent);
        }
    }
}
