//! What the handles of a tiered cache share.

use std::borrow::Cow;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Timestamp};
use tokio::sync::watch;

use crate::cache::{Cache, Hashed};
use crate::options::{Tag, Ttl};
use crate::put::{Begun as Since, Put, Value};
use crate::tiered::control::Control;
use crate::tiered::reach::{Hit, Life, Reach};
use crate::tiered::second::TierError;
use crate::tiered::stats::{Count, Counts};

pub(crate) struct Inner<K, V> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) memory: Cache<K, Held<V>>,
    pub(crate) control: Mutex<Control<K, V>>,
    pub(crate) reach: Option<Reach<K, V>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ttl: Ttl,
    pub(crate) local_ttl: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) random: AtomicU64,
    pub(crate) stale_for: Duration,
    pub(crate) loader_timeout: Option<Duration>,
    pub(crate) counts: Counts,
    pub(crate) closed: AtomicBool,
    /// Loads under way.
    pub(crate) jobs: watch::Sender<usize>,
}

/// A value in memory, where it stays when it is no longer fresh, to stand in for failed loads.
pub(crate) struct Held<V> {
    pub(crate) value: Arc<V>,
    pub(crate) fresh_until: Timestamp,
}

impl<V> Held<V> {
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.fresh_until || self.fresh_until == Timestamp::MAX
    }
}

impl<V> Clone for Held<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            fresh_until: self.fresh_until,
        }
    }
}

/// A stale value of the second tier, to stand in for a failed load.
pub(crate) struct Spare<V> {
    pub(crate) value: Arc<V>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) until: Timestamp,
}

/// Where a value goes.
pub(crate) struct StoreIn<'a, K> {
    pub(crate) key: &'a K,
    pub(crate) hash: Hashed,
    pub(crate) tags: &'a [Tag],
    pub(crate) begun: Begun,
}

/// When what is to be stored was begun, by the fence.
#[derive(Clone, Copy)]
pub(crate) enum Begun {
    /// A load or a read: an invalidation or insertion since then wins.
    Load(u64),
    /// An insertion: the invalidation of a tag or of all since then wins, and whatever was begun
    /// before it is stored is out of date.
    Insertion(u64),
}

impl<K: Eq, V> Inner<K, V> {
    pub(crate) fn control(&self) -> MutexGuard<'_, Control<K, V>> {
        // Only `Eq` of keys can panic under it, before anything is changed.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The fresh value in memory.
    pub(crate) fn look(&self, key: &K) -> Option<Arc<V>> {
        let now = self.clock.now();
        let held = self.memory.get(key).filter(|held| held.is_fresh(now));
        self.counts.up(match held {
            Some(_) => Count::MemoryHits,
            None => Count::MemoryMisses,
        });
        held.map(|held| held.value)
    }

    /// The value in memory, fresh or not.
    pub(crate) fn retained(&self, hash: Hashed, key: &K) -> Option<Arc<V>> {
        let now = self.memory.now();
        let value = |held: &Held<V>| Arc::clone(&held.value);
        self.memory.peek(hash, key, now, value)
    }

    pub(crate) fn allows(&self, since: u64, hash: Hashed, tags: &[Tag]) -> bool {
        let tags: Vec<u64> = self.hashes(tags);
        self.control().allows(since, Some(hash.whole()), tags)
    }

    fn hashes(&self, tags: &[Tag]) -> Vec<u64> {
        tags.iter()
            .map(|tag| self.memory.hash(&**tag).whole())
            .collect()
    }

    /// Puts a value of the second tier into memory, for no longer than it lives there.
    pub(crate) fn promote(&self, key: &K, hash: Hashed, hit: Hit<V>, since: u64) {
        let place = StoreIn {
            key,
            hash,
            tags: &hit.tags,
            begun: Begun::Load(since),
        };
        // Others may keep it for longer.
        let kept = hit.fresh.map(|fresh| fresh.saturating_add(self.stale_for));
        let kept = [kept, hit.remaining].into_iter().flatten().min();
        self.keep(place, hit.value, hit.fresh, kept);
    }

    /// Unless it is older than this cache allows.
    pub(crate) fn spare(&self, hit: Hit<V>) -> Option<Spare<V>> {
        let left = self.stale_for.checked_sub(hit.overdue)?;
        let left = left.min(hit.remaining.unwrap_or(left));
        Some(Spare {
            value: hit.value,
            tags: hit.tags,
            until: self.clock.now().saturating_add(left),
        })
    }

    /// Puts a new value into memory. Whether it is there; `None` if it was superseded.
    pub(crate) fn store(&self, place: StoreIn<'_, K>, value: Arc<V>, ttl: Ttl) -> Option<bool> {
        let fresh = ttl.duration();
        let kept = self.life(ttl).total();
        self.keep(place, value, fresh, kept)
    }

    fn keep(
        &self,
        place: StoreIn<'_, K>,
        value: Arc<V>,
        fresh: Option<Duration>,
        kept: Option<Duration>,
    ) -> Option<bool> {
        let StoreIn {
            key,
            hash,
            tags,
            begun,
        } = place;
        let local = [fresh, self.local_ttl].into_iter().flatten().min();
        let retained = if self.stale_for.is_zero() {
            local
        } else {
            kept
        };
        let ttl = retained.map_or(Ttl::Forever, Ttl::After);
        let held = Held {
            value,
            fresh_until: local.map_or(Timestamp::MAX, |local| {
                self.clock.now().saturating_add(local)
            }),
        };
        let weight = self.memory.weigh(key, &held);
        let hashes = self.hashes(tags);
        let is_zero = fresh == Some(Duration::ZERO);
        let for_memory = key.clone();
        let tags = (!tags.is_empty()).then(|| tags.into());
        let now = self.memory.now();
        let mut garbage = self.memory.garbage();
        let mut control = self.control();
        let (allowed, superseded) = match begun {
            Begun::Load(since) => (control.allows(since, Some(hash.whole()), hashes), None),
            Begun::Insertion(since) => {
                let allowed = control.allows(since, None, hashes);
                (allowed, control.supersede_key(hash.whole(), key))
            }
        };
        if !allowed && matches!(begun, Begun::Load(_)) {
            drop(control);
            self.counts.up(Count::Superseded);
            return None;
        }
        if is_zero || !allowed {
            let old = self.memory.take(hash, key, now, &mut garbage, |_| true);
            drop(control);
            survive(|| drop(old));
            survive(|| drop((for_memory, held)));
            survive(|| drop(superseded));
            if !allowed {
                self.counts.up(Count::Superseded);
                return None;
            }
            return Some(false);
        }
        let value = Value {
            value: held,
            weight,
            ttl,
            tags,
        };
        let put = (self.memory).put(hash, for_memory, value, Since::Now, &mut garbage);
        drop(control);
        let stored = matches!(put, Put::Stored(_));
        survive(|| drop(put));
        survive(|| drop(superseded));
        Some(stored)
    }

    /// Takes the key out of memory, and out of the reach of what was begun before.
    pub(crate) fn forget(&self, key: &K, hash: Hashed) {
        let now = self.memory.now();
        let mut garbage = self.memory.garbage();
        let mut control = self.control();
        let superseded = control.supersede_key(hash.whole(), key);
        let old = self.memory.take(hash, key, now, &mut garbage, |_| true);
        drop(control);
        survive(|| drop(old));
        survive(|| drop(superseded));
    }

    /// Ends what was begun before a value got to the second tier, and any value in memory that is
    /// not it.
    pub(crate) fn settle(&self, key: &K, hash: Hashed, value: &Arc<V>) {
        let now = self.memory.now();
        let mut garbage = self.memory.garbage();
        let mut control = self.control();
        let superseded = control.supersede_key(hash.whole(), key);
        let is_other = |held: &Held<V>| !Arc::ptr_eq(&held.value, value);
        let old = (self.memory).take(hash, key, now, &mut garbage, is_other);
        drop(control);
        survive(|| drop(old));
        survive(|| drop(superseded));
    }

    pub(crate) fn forget_tag(&self, tag: &str) {
        let hash = self.memory.hash(tag).whole();
        let mut garbage = self.memory.garbage();
        let mut control = self.control();
        let superseded = control.supersede_tag(hash, tag);
        self.memory.take_tagged(tag, &mut garbage);
        drop(control);
        survive(|| drop(superseded));
    }

    pub(crate) fn forget_all(&self) {
        let mut garbage = self.memory.garbage();
        let mut control = self.control();
        let superseded = control.supersede_all();
        self.memory.take_all(&mut garbage);
        drop(control);
        survive(|| drop(superseded));
    }

    pub(crate) fn life(&self, ttl: Ttl) -> Life {
        Life {
            fresh: ttl.duration(),
            stale: self.stale_for,
        }
    }

    /// The time to live, shortened by a random part of it.
    pub(crate) fn jittered(&self, ttl: Ttl) -> Ttl {
        match ttl {
            Ttl::After(time) if self.jitter > 0.0 => {
                let part = 1.0 - self.jitter * self.random();
                let shorter = Duration::try_from_secs_f64(time.as_secs_f64() * part);
                // Not zero, which would mean to store nothing.
                let least = time.min(Duration::from_nanos(1));
                Ttl::After(shorter.unwrap_or(time).clamp(least, time))
            }
            _ => ttl,
        }
    }

    /// From 0 to 1. SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
    /// generators", OOPSLA 2014).
    fn random(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(STEP, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn count_write(&self, written: &Result<bool, TierError>) {
        match written {
            Ok(true) => self.counts.up(Count::SecondWrites),
            Ok(false) => {}
            Err(_) => self.counts.up(Count::SecondWriteFailures),
        }
    }
}
