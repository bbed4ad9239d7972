//! A second tier over Redis.

use std::fmt;
use std::time::Duration;

use overdrive_core::Deadline;
use overdrive_remote::redis::{ParsingError, Script, Value, cmd, from_redis_value, pipe};
use overdrive_remote::{ConfigError, Remote, RemoteError};

use crate::tiered::{Found, SecondTier, Stored, TierError};

/// Longer than any entry should live: a tag that nobody has used for so long is forgotten, and
/// its entries are misses then.
const TAG_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The versions of the keys; those without one get the server's time in microseconds, so that no
/// version comes twice even if the server loses some.
const VERSIONS: &str = r"
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
local versions = {}
for i, key in ipairs(KEYS) do
    local version = redis.call('GET', key)
    if not version then
        version = now
        redis.call('SET', key, version)
    end
    redis.call('PEXPIRE', key, ARGV[1])
    versions[i] = version
end
return versions";

/// A version later than the one there, and than all lost ones.
const BUMP: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local old = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if now <= old then now = old + 1 end
redis.call('SET', KEYS[1], string.format('%.0f', now), 'PX', ARGV[1])
return 1";

/// A second tier over Redis: the [`SecondTier`] of several processes.
///
/// Keys are `PREFIX NAMESPACE:k:KEY` and `PREFIX NAMESPACE:t:TAG`, with the prefix of the
/// remote's settings and each part escaped, so that no two namespaces or keys meet. The life of an
/// entry is Redis's own. Memory is bounded by Redis too: set its `maxmemory` and an eviction
/// policy; an evicted tag makes its entries misses, nothing worse.
///
/// A look-up is one round trip (`GET`, `PTTL` and the versions in a pipeline). Tags expire 30 days
/// after their last use, and the entries of a namespace into which nobody has written for so long
/// are misses then. All is idempotent, so the remote's retries apply, within the deadline that the
/// cache gives; its breaker spares callers the wait for a server that is away.
///
/// One server, or one that behaves so: the keys of a call are not in one cluster slot. Failing
/// over to a replica can lose the newest writes, bumps of tags among them. No word goes from one
/// process to another: they see a change in Redis at once and in their memories when the entries
/// there end.
///
/// ```no_run
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use overdrive_tiered_cache::{RedisSettings, RedisTier, Remote, TieredCache, codec_of};
///
/// let remote = Remote::connect(RedisSettings::api()).await?;
/// let names = codec_of(
///     1,
///     |name: &String, out: &mut Vec<u8>| { out.extend(name.as_bytes()); Ok(()) },
///     |bytes: &[u8]| Ok(String::from_utf8(bytes.to_vec())?),
/// );
/// let users = TieredCache::<u64, String>::builder()
///     .max_entries(10_000)
///     .local_ttl(Duration::from_secs(10))
///     .second_tier(RedisTier::new(remote, "users")?)
///     .codec(names)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct RedisTier {
    remote: Remote,
    namespace: String,
    versions: Script,
    bump: Script,
}

impl RedisTier {
    /// A tier in that namespace, which should hold one kind of value.
    ///
    /// # Errors
    /// An empty namespace.
    pub fn new(remote: Remote, namespace: impl Into<String>) -> Result<Self, ConfigError> {
        let namespace = namespace.into();
        if namespace.is_empty() {
            return Err(ConfigError::Missing { field: "namespace" });
        }
        Ok(Self {
            remote,
            namespace,
            versions: Script::new(VERSIONS),
            bump: Script::new(BUMP),
        })
    }

    /// The connection that it uses.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        self.remote.key(&[self.namespace.as_bytes(), b"k", key])
    }

    fn tag(&self, tag: &str) -> Vec<u8> {
        let namespace = self.namespace.as_bytes();
        self.remote.key(&[namespace, b"t", tag.as_bytes()])
    }
}

impl SecondTier for RedisTier {
    async fn get(&self, key: &[u8], tags: &[&str], by: Deadline) -> Result<Found, TierError> {
        let key = self.key(key);
        let mut pipe = pipe();
        pipe.get(&key).pttl(&key);
        for tag in tags {
            pipe.get(self.tag(tag));
        }
        let reply = self.remote.query_idempotent::<Vec<Value>>(&pipe, by).await;
        let reply = reply.map_err(failed)?;
        let (bytes, ttl, versions) = parse(reply).map_err(mistyped)?;
        let stored = bytes.and_then(|bytes| {
            let remaining = match u64::try_from(ttl) {
                // It has ended between the two commands.
                Ok(0) => return None,
                Ok(millis) => Some(Duration::from_millis(millis)),
                Err(_) if ttl == -1 => None,
                Err(_) => return None,
            };
            Some(Stored { bytes, remaining })
        });
        let versions = versions.into_iter();
        let versions = versions.map(|v| v.and_then(|v| v.parse().ok())).collect();
        Ok(Found { stored, versions })
    }

    async fn set(
        &self,
        key: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
        by: Deadline,
    ) -> Result<(), TierError> {
        let mut set = cmd("SET");
        set.arg(self.key(key)).arg(bytes);
        if let Some(ttl) = ttl {
            set.arg("PX").arg(millis(ttl));
        }
        self.remote.query_idempotent(&set, by).await.map_err(failed)
    }

    async fn remove(&self, key: &[u8], by: Deadline) -> Result<(), TierError> {
        let mut unlink = cmd("UNLINK");
        unlink.arg(self.key(key));
        let removed = self.remote.query_idempotent::<i64>(&unlink, by).await;
        removed.map(|_| ()).map_err(failed)
    }

    async fn versions(&self, tags: &[&str], by: Deadline) -> Result<Vec<u64>, TierError> {
        let mut call = self.versions.prepare_invoke();
        for tag in tags {
            call.key(self.tag(tag));
        }
        call.arg(millis(TAG_LIFE));
        let versions = self.remote.query_idempotent::<Vec<u64>>(&call, by).await;
        versions.map_err(failed)
    }

    async fn bump(&self, tag: &str, by: Deadline) -> Result<(), TierError> {
        let mut call = self.bump.prepare_invoke();
        call.key(self.tag(tag)).arg(millis(TAG_LIFE));
        let bumped = self.remote.query_idempotent::<i64>(&call, by).await;
        bumped.map(|_| ()).map_err(failed)
    }
}

type Parsed = (Option<Vec<u8>>, i64, Vec<Option<String>>);

/// The value, its `PTTL`, and the versions.
fn parse(reply: Vec<Value>) -> Result<Parsed, ParsingError> {
    let mut reply = reply.into_iter();
    let bytes = from_redis_value(reply.next().unwrap_or(Value::Nil))?;
    let ttl = from_redis_value(reply.next().unwrap_or(Value::Int(0)))?;
    let versions = reply.map(from_redis_value).collect::<Result<_, _>>()?;
    Ok((bytes, ttl, versions))
}

/// The client's own error repeats the answer, which may be a secret.
fn mistyped(_: ParsingError) -> TierError {
    TierError::failed("the answer is not of the type asked for")
}

fn failed(error: RemoteError) -> TierError {
    match error {
        RemoteError::TimedOut { after } => TierError::TimedOut { after },
        error => TierError::failed(error),
    }
}

/// The server's unit, rounded up: a short life is not none. The server's limit is 2^63 - 1, from
/// the epoch on.
fn millis(duration: Duration) -> u64 {
    const MAX: u128 = 1 << 50;
    let millis = duration.as_nanos().div_ceil(1_000_000).clamp(1, MAX);
    u64::try_from(millis).unwrap_or(1 << 50)
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTier")
            .field("namespace", &self.namespace)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
