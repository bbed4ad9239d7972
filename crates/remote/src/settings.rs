//! The settings of a connection, as a plain value.

use std::fmt;
use std::time::Duration;

use overdrive_core::ConfigError;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

const MAX_POOL_SIZE: usize = 10_000;
const MAX_RETRIES: u32 = 100;
const MAX_PREFIX: usize = 1_024;
/// Of waits and time-outs.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3_600);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Where a Redis server is, and how patiently it is used. With the feature `serde` it can be read
/// from a configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; [`Remote::connect`](crate::Remote::connect) and
/// [`Remote::lazy`](crate::Remote::lazy) refuse what cannot be. The [`Debug`] form leaves the
/// password out; the serialised form holds it.
///
/// ```
/// use std::time::Duration;
/// use overdrive_remote::RedisSettings;
///
/// let mut settings = RedisSettings::default();
/// settings.url = "redis://:secret@cache.internal:6379/2".to_owned();
/// settings.read_timeout = Duration::from_millis(500);
/// assert!(!format!("{settings:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RedisSettings {
    /// `redis://[USER][:PASSWORD@]HOST[:PORT][/DATABASE]`, without TLS.
    pub url: String,
    /// The most connections open at a time, and so the most commands under way: each connection
    /// serves one call at a time.
    pub pool_size: usize,
    /// Connections that [`Remote::connect`](crate::Remote::connect) opens, and that stay open
    /// when idle. [`Remote::lazy`](crate::Remote::lazy) opens them in time.
    pub min_idle: usize,
    /// How often an idempotent call is tried again after its first attempt.
    pub retries: u32,
    /// The longest time for opening a connection, from the name look-up to the server's welcome.
    pub dial_timeout: Duration,
    /// The longest time from the start of an attempt to its reply, once it has a connection.
    pub read_timeout: Duration,
    /// The longest time for which a connection may take no more bytes while some wait to be sent.
    /// It shortens the attempts with large requests if it is below `read_timeout`.
    pub write_timeout: Duration,
    /// The longest time a call waits for its turn when `pool_size` calls are under way.
    pub pool_wait: Duration,
    /// How long an idle connection beyond `min_idle` stays open. Looked at on half this interval,
    /// at least every 30 s.
    pub idle_timeout: Duration,
    /// What the keys of [`Remote::key`](crate::Remote::key) begin with.
    pub prefix: String,
    /// How long a value put there by [`Remote::set`](crate::Remote::set) lives.
    pub ttl: Duration,
    /// So many attempts in a row that the server does not answer open the circuit breaker.
    pub breaker_failures: u32,
    /// How long the breaker stays open until one call may probe.
    pub breaker_open_for: Duration,
}

impl RedisSettings {
    /// For handlers of web pages, which would rather go without than wait: as the default, with
    /// reads and writes of at most 500 ms, dials and waits of at most 1 s, and one retry.
    #[must_use]
    pub fn web() -> Self {
        Self {
            retries: 1,
            dial_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_millis(500),
            write_timeout: Duration::from_millis(500),
            pool_wait: Duration::from_secs(1),
            ..Self::default()
        }
    }

    /// For an API: the default.
    #[must_use]
    pub fn api() -> Self {
        Self::default()
    }

    /// For background work, which would rather wait than fail: as the default, with at most 5
    /// connections, one of them kept, reads and writes of at most 10 s, and waits of at most 30 s.
    #[must_use]
    pub fn background() -> Self {
        Self {
            pool_size: 5,
            min_idle: 1,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            pool_wait: Duration::from_secs(30),
            ..Self::default()
        }
    }

    /// The connection's parts, if all settings can be.
    pub(crate) fn check(&self) -> Result<Target, ConfigError> {
        let target = self.target()?;
        at_most("pool_size", self.pool_size as u64, MAX_POOL_SIZE as u64)?;
        positive("pool_size", self.pool_size == 0)?;
        if self.min_idle > self.pool_size {
            return Err(ConfigError::Contradiction {
                field: "min_idle",
                other: "pool_size",
                reason: "must not exceed",
            });
        }
        at_most("retries", self.retries.into(), MAX_RETRIES.into())?;
        for (field, value, max) in [
            ("dial_timeout", self.dial_timeout, MAX_WAIT),
            ("read_timeout", self.read_timeout, MAX_WAIT),
            ("write_timeout", self.write_timeout, MAX_WAIT),
            ("pool_wait", self.pool_wait, MAX_WAIT),
            ("idle_timeout", self.idle_timeout, MAX_WAIT),
            ("ttl", self.ttl, MAX_TTL),
            ("breaker_open_for", self.breaker_open_for, MAX_WAIT),
        ] {
            positive(field, value.is_zero())?;
            at_most(field, nanos(value), nanos(max))?;
        }
        // The unit of the server.
        let unit = Duration::from_millis(1);
        if self.ttl < unit {
            return Err(ConfigError::TooSmall {
                field: "ttl",
                value: nanos(self.ttl),
                min: nanos(unit),
            });
        }
        positive("breaker_failures", self.breaker_failures == 0)?;
        at_most("prefix", self.prefix.len() as u64, MAX_PREFIX as u64)?;
        if self.prefix.chars().any(char::is_control) {
            return Err(ConfigError::Invalid {
                field: "prefix",
                reason: "must not contain control characters",
            });
        }
        Ok(target)
    }

    fn target(&self) -> Result<Target, ConfigError> {
        let invalid = |reason| ConfigError::Invalid {
            field: "url",
            reason,
        };
        if self.url.is_empty() {
            return Err(ConfigError::Missing { field: "url" });
        }
        if self.url.starts_with("rediss:") || self.url.starts_with("valkeys:") {
            return Err(invalid("asks for TLS, which is not supported"));
        }
        let info = self.url.as_str().into_connection_info();
        let info = info.map_err(|_| invalid("is not of the form redis://HOST:PORT"))?;
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(Target {
                host: host.clone(),
                port: *port,
                info,
            }),
            _ => Err(invalid("does not name a host and port")),
        }
    }
}

impl Default for RedisSettings {
    /// Redis on this machine; a pool of 20, 10 kept idle; 3 retries; 5 s to dial, 3 s to read and
    /// write, 4 s to wait for a turn, 5 minutes idle; keys under `nextevent:v2:` that live for an
    /// hour; a breaker that opens after 5 failures for a second.
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            pool_size: 20,
            min_idle: 10,
            retries: 3,
            dial_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(3),
            pool_wait: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(300),
            prefix: "nextevent:v2:".to_owned(),
            ttl: Duration::from_secs(3_600),
            breaker_failures: 5,
            breaker_open_for: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self.target() {
            Ok(target) => format!("redis://{}/{}", target.addr(), target.database()),
            Err(_) => "(invalid)".to_owned(),
        };
        f.debug_struct("RedisSettings")
            .field("url", &url)
            .field("pool_size", &self.pool_size)
            .field("min_idle", &self.min_idle)
            .field("retries", &self.retries)
            .field("dial_timeout", &self.dial_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("write_timeout", &self.write_timeout)
            .field("pool_wait", &self.pool_wait)
            .field("idle_timeout", &self.idle_timeout)
            .field("prefix", &self.prefix)
            .field("ttl", &self.ttl)
            .field("breaker_failures", &self.breaker_failures)
            .field("breaker_open_for", &self.breaker_open_for)
            .finish()
    }
}

/// What a URL says. Holds the password.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) info: ConnectionInfo,
}

impl Target {
    /// For messages.
    pub(crate) fn addr(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }
}

fn positive(field: &'static str, zero: bool) -> Result<(), ConfigError> {
    if zero {
        Err(ConfigError::Zero { field })
    } else {
        Ok(())
    }
}

fn at_most(field: &'static str, value: u64, max: u64) -> Result<(), ConfigError> {
    if value > max {
        return Err(ConfigError::TooLarge { field, value, max });
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut RedisSettings)) -> ConfigError {
        let mut settings = RedisSettings::default();
        change(&mut settings);
        settings.check().err().expect("a fault")
    }

    #[test]
    fn presets_are_valid() {
        let presets = [
            RedisSettings::default(),
            RedisSettings::web(),
            RedisSettings::api(),
            RedisSettings::background(),
        ];
        for settings in presets {
            settings.check().map(|_| ()).unwrap();
        }
    }

    #[test]
    fn every_bad_setting_is_named() {
        const ZERO: Duration = Duration::ZERO;
        assert_eq!(fault(|s| s.pool_size = 0).field(), "pool_size");
        assert_eq!(fault(|s| s.pool_size = 1 << 40).field(), "pool_size");
        assert_eq!(fault(|s| s.min_idle = 21).field(), "min_idle");
        assert_eq!(fault(|s| s.retries = u32::MAX).field(), "retries");
        assert_eq!(fault(|s| s.dial_timeout = ZERO).field(), "dial_timeout");
        assert_eq!(fault(|s| s.read_timeout = ZERO).field(), "read_timeout");
        assert_eq!(fault(|s| s.write_timeout = ZERO).field(), "write_timeout");
        assert_eq!(fault(|s| s.pool_wait = Duration::MAX).field(), "pool_wait");
        assert_eq!(fault(|s| s.idle_timeout = ZERO).field(), "idle_timeout");
        assert_eq!(fault(|s| s.ttl = Duration::from_nanos(1)).field(), "ttl");
        assert_eq!(fault(|s| s.ttl = Duration::MAX).field(), "ttl");
        assert_eq!(fault(|s| s.prefix = "a\nb".into()).field(), "prefix");
        assert_eq!(fault(|s| s.prefix = "a".repeat(2_000)).field(), "prefix");
        assert_eq!(
            fault(|s| s.breaker_failures = 0).field(),
            "breaker_failures"
        );
        assert_eq!(
            fault(|s| s.breaker_open_for = ZERO).field(),
            "breaker_open_for"
        );
    }

    #[test]
    fn bad_urls_are_refused_and_not_repeated() {
        for url in [
            "",
            "secret",
            "http://:secret@host",
            "rediss://:secret@host",
            "redis+unix:///secret",
            "redis://:secret@host:99999999",
            "redis://:secret@host/not-a-number",
        ] {
            let error = fault(|s| s.url = url.to_owned());
            assert_eq!(error.field(), "url", "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
            let settings = RedisSettings {
                url: url.to_owned(),
                ..RedisSettings::default()
            };
            assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
        }
    }

    #[test]
    fn ipv6_hosts_are_shown_in_brackets() {
        let settings = RedisSettings {
            url: "redis://user:secret@[::1]:7000/3".to_owned(),
            ..RedisSettings::default()
        };
        let shown = format!("{settings:?}");
        assert!(shown.contains("redis://[::1]:7000/3"), "{shown}");
        assert!(!shown.contains("secret"));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: RedisSettings = serde_json::from_str(r#"{"pool_size": 30}"#).unwrap();
        assert_eq!(settings.pool_size, 30);
        assert_eq!(settings.min_idle, 10);
        let text = serde_json::to_string(&RedisSettings::web()).unwrap();
        let read: RedisSettings = serde_json::from_str(&text).unwrap();
        assert_eq!(read, RedisSettings::web());
        assert!(serde_json::from_str::<RedisSettings>(r#"{"poolsize": 30}"#).is_err());
    }
}
