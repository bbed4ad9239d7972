//! The way to the second tier: envelopes, deadlines, one writer per key.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use overdrive_core::{Clock, Deadline, Timestamp};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::options::Tag;
use crate::tiered::codec::{Codec, CodecError};
use crate::tiered::envelope::Envelope;
use crate::tiered::second::{AnyTier, Found, TierError};
use crate::tiered::stats::{Count, Counts};

/// The tag of every entry.
const ALL: &str = "all";
/// Writers of keys in the same stripe take turns.
const STRIPES: usize = 256;

/// The second tier and all that it takes to use it.
pub(crate) struct Reach<K, V> {
    pub(crate) tier: Box<dyn AnyTier>,
    pub(crate) codec: Box<dyn Codec<V>>,
    pub(crate) key: fn(&K) -> Vec<u8>,
    pub(crate) timeout: Duration,
    pub(crate) max_value_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) turns: Box<[Mutex<()>]>,
    /// Whether the last call failed.
    pub(crate) down: AtomicBool,
}

/// What a read found.
pub(crate) enum Read<V> {
    Hit(Hit<V>),
    Miss,
    Unavailable(TierError),
}

pub(crate) struct Hit<V> {
    pub(crate) value: Arc<V>,
    /// How long it is fresh; zero if it is stale, `None` if for ever.
    pub(crate) fresh: Option<Duration>,
    /// For how long it has been stale.
    pub(crate) overdue: Duration,
    /// How long it may be kept.
    pub(crate) remaining: Option<Duration>,
    /// The user's tags.
    pub(crate) tags: Vec<Tag>,
}

/// The versions of an entry's tags, by name, as of before it was made.
pub(crate) type Versions = Vec<(String, u64)>;

impl<K, V: 'static> Reach<K, V> {
    pub(crate) fn turns() -> Box<[Mutex<()>]> {
        (0..STRIPES).map(|_| Mutex::new(())).collect()
    }

    /// The entry at the key, and the versions of the tags given, if all have one.
    pub(crate) async fn read(
        &self,
        key: &K,
        tags: &[Tag],
        limit: Limit,
        counts: &Counts,
    ) -> (Read<V>, Option<Versions>) {
        let names = names(tags);
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let bytes = (self.key)(key);
        let get = self.tier.get(&bytes, &asked, limit.by);
        let found = match self.call(get, limit).await {
            Ok(found) if found.versions.len() == asked.len() => found,
            Ok(_) => return (unavailable(counts, wrong_count()), None),
            Err(error) => return (unavailable(counts, error), None),
        };
        let read = self.judge(&found, &asked, limit, counts).await;
        let versions = found.versions.into_iter().collect::<Option<Vec<u64>>>();
        let versions = versions.map(|versions| names.into_iter().zip(versions).collect());
        (read, versions)
    }

    async fn judge(&self, found: &Found, asked: &[&str], limit: Limit, counts: &Counts) -> Read<V> {
        let Some(stored) = &found.stored else {
            counts.up(Count::SecondMisses);
            return Read::Miss;
        };
        let envelope = Envelope::open(&stored.bytes);
        let envelope = envelope.filter(|envelope| envelope.schema == self.codec.schema());
        let Some(envelope) = envelope else {
            counts.up(Count::SecondMisses);
            counts.up(Count::SecondUnreadable);
            return Read::Miss;
        };
        match self.is_current(&envelope, found, asked, limit).await {
            Ok(true) => {}
            Ok(false) => {
                counts.up(Count::SecondMisses);
                counts.up(Count::SecondInvalidated);
                return Read::Miss;
            }
            Err(error) => return unavailable(counts, error),
        }
        let Ok(value) = self.codec.decode(envelope.value) else {
            counts.up(Count::SecondMisses);
            counts.up(Count::SecondUnreadable);
            return Read::Miss;
        };
        // Its life was told at some time of this read: that it was at the beginning is safe.
        let age = self.clock.now().saturating_since(limit.began);
        let remaining = stored.remaining.map(|left| left.saturating_sub(age));
        if remaining == Some(Duration::ZERO) {
            counts.up(Count::SecondMisses);
            return Read::Miss;
        }
        let fresh = remaining.map(|left| left.saturating_sub(envelope.stale));
        counts.up(if fresh == Some(Duration::ZERO) {
            Count::SecondMisses
        } else {
            Count::SecondHits
        });
        let tags = envelope.versions.iter();
        Read::Hit(Hit {
            value: Arc::new(value),
            fresh,
            overdue: remaining.map_or(Duration::ZERO, |left| envelope.stale.saturating_sub(left)),
            remaining,
            tags: tags.filter_map(|(tag, _)| user_tag(tag)).collect(),
        })
    }

    /// Whether no tag of the entry has another version by now.
    async fn is_current(
        &self,
        envelope: &Envelope<'_>,
        found: &Found,
        asked: &[&str],
        limit: Limit,
    ) -> Result<bool, TierError> {
        let known: HashMap<_, _> = asked.iter().zip(&found.versions).collect();
        let mut unknown = Vec::new();
        for &(tag, version) in &envelope.versions {
            match known.get(&tag) {
                Some(&&now) if now != Some(version) => return Ok(false),
                Some(_) => {}
                None => unknown.push((tag, version)),
            }
        }
        // An entry without the tag of all would outlive a clear.
        if !envelope.versions.iter().any(|&(tag, _)| tag == ALL) {
            return Ok(false);
        }
        if unknown.is_empty() {
            return Ok(true);
        }
        let tags: Vec<&str> = unknown.iter().map(|&(tag, _)| tag).collect();
        let now = self
            .call(self.tier.versions(&tags, limit.by), limit)
            .await?;
        Ok(now.into_iter().eq(unknown.into_iter().map(|(_, v)| v)))
    }

    /// The versions of these tags, and of the tag of all; those without one get one.
    pub(crate) async fn versions(&self, tags: &[Tag], limit: Limit) -> Result<Versions, TierError> {
        let names = names(tags);
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let versions = self.tier.versions(&asked, limit.by);
        let versions = self.call(versions, limit).await?;
        if versions.len() != names.len() {
            return Err(wrong_count());
        }
        Ok(names.into_iter().zip(versions).collect())
    }

    /// The turn to write this key.
    pub(crate) async fn turn(&self, hash: u64, limit: Limit) -> Result<Turn<'_>, TierError> {
        let turns = &self.turns;
        let turn = turns[hash as usize % turns.len()].lock();
        let turn = timeout_at(limit.cut, turn).await;
        turn.map_err(|_| limit.timed_out())
    }

    /// Puts the value there. What cannot be put there for its own sake is removed, since it is
    /// out of date.
    pub(crate) async fn set(
        &self,
        _turn: &Turn<'_>,
        key: &K,
        value: &V,
        life: Life,
        versions: &Versions,
        limit: Limit,
    ) -> Result<(), TierError> {
        let bytes = (self.key)(key);
        let refused = match self.seal(value, life.stale, versions) {
            Ok(sealed) => {
                let set = self.tier.set(&bytes, &sealed, life.total(), limit.by);
                return self.call(set, limit).await;
            }
            Err(error) => error,
        };
        self.call(self.tier.remove(&bytes, limit.by), limit).await?;
        Err(refused)
    }

    fn seal(&self, value: &V, stale: Duration, versions: &Versions) -> Result<Vec<u8>, TierError> {
        let mut bytes = Vec::new();
        let encoded = self.codec.encode(value, &mut bytes);
        encoded.map_err(|error| TierError::Encode(error.into()))?;
        let (len, max) = (bytes.len(), self.max_value_bytes);
        if len > max {
            return Err(TierError::TooLarge { len, max });
        }
        let tags = versions.iter();
        let envelope = Envelope {
            schema: self.codec.schema(),
            stale,
            versions: tags
                .map(|(tag, version)| (tag.as_str(), *version))
                .collect(),
            value: &bytes,
        };
        let too_many = || {
            let reason: CodecError = "there are too many or too long tags".into();
            TierError::Encode(reason.into())
        };
        envelope.seal().ok_or_else(too_many)
    }

    pub(crate) async fn remove(
        &self,
        _turn: &Turn<'_>,
        key: &K,
        limit: Limit,
    ) -> Result<(), TierError> {
        let bytes = (self.key)(key);
        self.call(self.tier.remove(&bytes, limit.by), limit).await
    }

    /// Invalidates the entries with the tag; all, if there is none.
    pub(crate) async fn bump(&self, tag: Option<&str>) -> Result<(), TierError> {
        let name = tag.map_or_else(|| ALL.to_owned(), name);
        let limit = self.limit();
        self.call(self.tier.bump(&name, limit.by), limit).await
    }

    /// The limit of an operation that begins now.
    pub(crate) fn limit(&self) -> Limit {
        let after = self.timeout;
        Limit {
            after,
            began: self.clock.now(),
            by: Deadline::after(after),
            cut: Instant::now() + after + after / 10,
        }
    }

    /// A tier that keeps the deadline has its say about why; one that does not is cut off.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, TierError>>,
        limit: Limit,
    ) -> Result<T, TierError> {
        let answer = timeout_at(limit.cut, call).await;
        let answer = answer.unwrap_or_else(|_| Err(limit.timed_out()));
        self.down.store(answer.is_err(), Ordering::Relaxed);
        answer
    }
}

/// The turn to write a key.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

/// How long an operation on the second tier may take, all its steps together.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    after: Duration,
    began: Timestamp,
    by: Deadline,
    cut: Instant,
}

impl Limit {
    fn timed_out(self) -> TierError {
        TierError::TimedOut { after: self.after }
    }
}

/// How long an entry is fresh in the second tier, and how long it stays after that.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    pub(crate) fresh: Option<Duration>,
    pub(crate) stale: Duration,
}

impl Life {
    pub(crate) fn total(self) -> Option<Duration> {
        self.fresh.map(|fresh| fresh.saturating_add(self.stale))
    }
}

fn unavailable<V>(counts: &Counts, error: TierError) -> Read<V> {
    counts.up(Count::SecondUnavailable);
    Read::Unavailable(error)
}

fn wrong_count() -> TierError {
    TierError::failed("it answered with another number of versions than it was asked for")
}

fn names(tags: &[Tag]) -> Vec<String> {
    let all = std::iter::once(ALL.to_owned());
    all.chain(tags.iter().map(|tag| name(tag))).collect()
}

/// So that no tag of the user's is the tag of all.
fn name(tag: &str) -> String {
    format!("tag:{tag}")
}

fn user_tag(name: &str) -> Option<Tag> {
    name.strip_prefix("tag:").map(Tag::from)
}
