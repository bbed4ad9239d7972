//! Keys that are known to be absent.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use fastbloom::AtomicBloomFilter;
use overdrive_core::ConfigError;

/// The most keys that a filter can be set up for.
pub const MAX_FILTER_KEYS: usize = 1 << 36;

/// Says of keys that were never inserted that they are absent, most of the time, and of those
/// that were, never: a guard before a loader that would look for what is not there. Clones are
/// handles of the same filter.
///
/// A Bloom filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", CACM
/// 1970): with a false-positive rate of one in a hundred, some ten bits for each key, whatever its
/// size. Keys are inserted by several threads at once. None can be taken out: from time to time,
/// or once there are more than expected, [`rebuild`](Self::rebuild) it.
///
/// ```
/// use overdrive_tiered_cache::KeyFilter;
///
/// let known = KeyFilter::<String>::builder().expected_keys(1_000).build()?;
/// known.insert("ada");
/// assert!(known.may_contain("ada"));
/// if known.may_contain("bob") {
///     // Rarely. Load it; it may be absent all the same.
/// }
/// # Ok::<(), overdrive_tiered_cache::ConfigError>(())
/// ```
pub struct KeyFilter<K: ?Sized, S = RandomState> {
    inner: Arc<Inner<S>>,
    keys: PhantomData<fn(&K)>,
}

struct Inner<S> {
    name: Cow<'static, str>,
    hasher: S,
    rate: f64,
    /// Read by all, written for an instant by a rebuild's begin and end.
    filters: RwLock<Filters>,
    /// Whether a rebuild is under way.
    rebuilding: Mutex<bool>,
    rebuilt: Condvar,
}

struct Filters {
    current: Filter,
    next: Option<Filter>,
}

struct Filter {
    bits: AtomicBloomFilter,
    expected: usize,
}

impl Filter {
    fn new(rate: f64, expected: usize) -> Self {
        // Hashes come from our own hasher; this one's is never asked.
        let bits = AtomicBloomFilter::with_false_pos(rate).seed(&0);
        Self {
            bits: bits.expected_items(expected),
            expected,
        }
    }
}

/// Sets up a [`KeyFilter`]; from [`KeyFilter::builder`].
#[must_use = "it builds nothing until `build`"]
pub struct KeyFilterBuilder<K: ?Sized, S = RandomState> {
    name: Cow<'static, str>,
    expected: Option<usize>,
    rate: f64,
    hasher: S,
    keys: PhantomData<fn(&K)>,
}

/// A filter's figures, from [`KeyFilter::stats`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyFilterStats {
    /// Keys that it is laid out for.
    pub expected_keys: usize,
    /// Its memory, in bits.
    pub bits: usize,
    /// Which part of them is set.
    pub fill: f64,
    /// The part of absent keys that it lets through, as its fill says.
    pub false_positive_rate: f64,
}

impl<K: Hash + ?Sized> KeyFilter<K> {
    /// Starts the set-up of a filter.
    pub fn builder() -> KeyFilterBuilder<K> {
        KeyFilterBuilder {
            name: "filter".into(),
            expected: None,
            rate: 0.01,
            hasher: RandomState::new(),
            keys: PhantomData,
        }
    }
}

impl<K: Hash + ?Sized, S: BuildHasher> KeyFilterBuilder<K, S> {
    /// A label for figures. Default `"filter"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How many keys there will be. Required. With more of them its false positives become more.
    pub fn expected_keys(mut self, n: usize) -> Self {
        self.expected = Some(n);
        self
    }

    /// Which part of absent keys it may let through once all that are expected are in it. Default
    /// 0.01.
    pub fn false_positive_rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// How keys are hashed. Default the standard library's, which withstands keys chosen to
    /// collide.
    pub fn hasher<S2: BuildHasher>(self, hasher: S2) -> KeyFilterBuilder<K, S2> {
        KeyFilterBuilder {
            name: self.name,
            expected: self.expected,
            rate: self.rate,
            hasher,
            keys: PhantomData,
        }
    }

    /// The filter, with all of its memory.
    ///
    /// # Errors
    /// No number of keys, or one of zero or above [`MAX_FILTER_KEYS`]; a rate that is not between
    /// 10^-9 and 0.5.
    pub fn build(self) -> Result<KeyFilter<K, S>, ConfigError> {
        let field = "expected_keys";
        let expected = self.expected.ok_or(ConfigError::Missing { field })?;
        let expected = check(expected)?;
        if !(1e-9..=0.5).contains(&self.rate) {
            return Err(ConfigError::Invalid {
                field: "false_positive_rate",
                reason: "must be between 1e-9 and 0.5",
            });
        }
        let filters = Filters {
            current: Filter::new(self.rate, expected),
            next: None,
        };
        Ok(KeyFilter {
            inner: Arc::new(Inner {
                name: self.name,
                hasher: self.hasher,
                rate: self.rate,
                filters: RwLock::new(filters),
                rebuilding: Mutex::new(false),
                rebuilt: Condvar::new(),
            }),
            keys: PhantomData,
        })
    }
}

fn check(expected: usize) -> Result<usize, ConfigError> {
    let field = "expected_keys";
    if expected == 0 {
        return Err(ConfigError::Zero { field });
    }
    ConfigError::at_most(field, expected, MAX_FILTER_KEYS)
}

impl<K: Hash + ?Sized, S: BuildHasher> KeyFilter<K, S> {
    /// From now on the key may be there.
    pub fn insert<Q: Hash + ?Sized>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        let hash = self.inner.hasher.hash_one(key);
        let filters = self.inner.read();
        filters.current.bits.insert_hash(hash);
        if let Some(next) = &filters.next {
            next.bits.insert_hash(hash);
        }
    }

    /// Whether the key may be there; false is certain.
    #[must_use]
    pub fn may_contain<Q: Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        let hash = self.inner.hasher.hash_one(key);
        self.inner.read().current.bits.contains_hash(hash)
    }

    /// Begins to build it anew, for so many keys: insert all that are there, and
    /// [`finish`](Rebuild::finish). Until then it answers as before, and keys that others insert
    /// meanwhile are in both. Waits, blocking, for another rebuild that is under way, also for one
    /// of its own thread.
    ///
    /// # Errors
    /// Zero, or more than [`MAX_FILTER_KEYS`].
    pub fn rebuild(&self, expected_keys: usize) -> Result<Rebuild<'_, K, S>, ConfigError> {
        let expected = check(expected_keys)?;
        self.inner.take_turn();
        let rebuild = Rebuild { filter: self };
        let next = Filter::new(self.inner.rate, expected);
        self.inner.write().next = Some(next);
        Ok(rebuild)
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its figures. Linear in its memory; a rebuild that begins or ends meanwhile waits for it, and
    /// so does all that comes after that.
    #[must_use]
    pub fn stats(&self) -> KeyFilterStats {
        let filters = self.inner.read();
        let Filter { bits, expected } = &filters.current;
        let set: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        let fill = set as f64 / bits.num_bits() as f64;
        KeyFilterStats {
            expected_keys: *expected,
            bits: bits.num_bits(),
            fill,
            false_positive_rate: fill.powf(f64::from(bits.num_hashes())),
        }
    }
}

impl<S> Inner<S> {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Filters> {
        self.filters.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Filters> {
        self.filters.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn rebuilding(&self) -> MutexGuard<'_, bool> {
        let rebuilding = self.rebuilding.lock();
        rebuilding.unwrap_or_else(PoisonError::into_inner)
    }

    fn take_turn(&self) {
        let turn = self.rebuilt.wait_while(self.rebuilding(), |taken| *taken);
        *turn.unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn pass_turn(&self) {
        *self.rebuilding() = false;
        self.rebuilt.notify_one();
    }
}

/// A filter being built anew; from [`KeyFilter::rebuild`]. Dropped unfinished, it changes nothing.
/// It can go to other threads, and so be kept while a task waits for the keys.
#[must_use = "dropped, it changes nothing"]
pub struct Rebuild<'a, K: Hash + ?Sized, S: BuildHasher = RandomState> {
    filter: &'a KeyFilter<K, S>,
}

impl<K: Hash + ?Sized, S: BuildHasher> Rebuild<'_, K, S> {
    /// The key is there.
    pub fn insert<Q: Hash + ?Sized>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        let hash = self.filter.inner.hasher.hash_one(key);
        if let Some(next) = &self.filter.inner.read().next {
            next.bits.insert_hash(hash);
        }
    }

    /// From now on the filter knows the keys inserted since the rebuild began, and no others.
    pub fn finish(self) {
        let old = {
            let mut filters = self.filter.inner.write();
            let next = filters.next.take();
            next.map(|next| std::mem::replace(&mut filters.current, next))
        };
        drop(old);
    }
}

impl<K: Hash + ?Sized, S: BuildHasher> Drop for Rebuild<'_, K, S> {
    fn drop(&mut self) {
        let unfinished = self.filter.inner.write().next.take();
        self.filter.inner.pass_turn();
        drop(unfinished);
    }
}

impl<K: ?Sized, S> Clone for KeyFilter<K, S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            keys: PhantomData,
        }
    }
}

impl<K: ?Sized, S> fmt::Debug for KeyFilter<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.inner.name;
        f.debug_struct("KeyFilter")
            .field("name", name)
            .finish_non_exhaustive()
    }
}

impl<K: ?Sized, S> fmt::Debug for KeyFilterBuilder<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFilterBuilder")
            .field("name", &self.name)
            .field("expected_keys", &self.expected)
            .field("false_positive_rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + ?Sized, S: BuildHasher> fmt::Debug for Rebuild<'_, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A fixed hasher, so that the rates are always the same.
    #[derive(Clone, Copy, Debug)]
    struct Fixed;

    impl BuildHasher for Fixed {
        type Hasher = std::hash::DefaultHasher;

        fn build_hasher(&self) -> Self::Hasher {
            std::hash::DefaultHasher::new()
        }
    }

    fn filter(n: usize, rate: f64) -> KeyFilter<u64, Fixed> {
        let builder = KeyFilter::builder().expected_keys(n);
        let builder = builder.false_positive_rate(rate).hasher(Fixed);
        builder.build().unwrap()
    }

    #[test]
    fn of_absent_keys_it_lets_through_no_more_than_it_was_told() {
        for rate in [0.1, 0.01, 0.001] {
            let filter = filter(50_000, rate);
            (0..50_000).for_each(|key| filter.insert(&key));
            assert!((0..50_000).all(|key| filter.may_contain(&key)));
            let passed = (50_000..1_050_000).filter(|key| filter.may_contain(key));
            let passed = passed.count() as f64 / 1e6;
            assert!(passed < 1.1 * rate, "{passed} instead of {rate}");
            let known = filter.stats().false_positive_rate;
            assert!(
                (known / passed - 1.0).abs() < 0.2,
                "{known} instead of {passed}"
            );
        }
    }

    #[test]
    fn threads_that_insert_at_once_lose_no_key() {
        let filter = filter(40_000, 0.01);
        thread::scope(|scope| {
            for part in 0..4 {
                let filter = &filter;
                scope.spawn(move || {
                    for key in part * 10_000..(part + 1) * 10_000 {
                        filter.insert(&key);
                        assert!(filter.may_contain(&key));
                    }
                });
            }
        });
        assert!((0..40_000).all(|key| filter.may_contain(&key)));
    }

    #[test]
    fn a_rebuild_misses_no_key_at_any_moment() {
        let filter = filter(1_000, 0.01);
        (0..1_000).for_each(|key| filter.insert(&key));
        let rebuild = filter.rebuild(2_000).unwrap();
        filter.insert(&5_000);
        (500..1_000).for_each(|key| rebuild.insert(&key));
        assert!(
            (0..1_000)
                .chain([5_000])
                .all(|key| filter.may_contain(&key))
        );
        rebuild.finish();
        assert!(
            (500..1_000)
                .chain([5_000])
                .all(|key| filter.may_contain(&key))
        );
        let old = (0..500).filter(|key| filter.may_contain(key)).count();
        assert!(old < 50, "{old} of those that are gone");
        drop(filter.rebuild(10).unwrap());
        assert!(
            filter.may_contain(&5_000),
            "a rebuild given up changes nothing"
        );
        assert_eq!(filter.stats().expected_keys, 2_000);
    }

    #[test]
    fn rebuilds_take_turns_wherever_they_end() {
        fn can_go<T: Send + Sync>(_: &T) {}
        let filter = filter(1_000, 0.01);
        let first = filter.rebuild(10).unwrap();
        can_go(&first);
        first.insert(&1);
        thread::scope(|scope| {
            // One of them waits for this one, and for the other.
            let others: Vec<_> = [2, 3]
                .map(|key| {
                    let filter = &filter;
                    scope.spawn(move || {
                        let rebuild = filter.rebuild(key as usize).unwrap();
                        rebuild.insert(&1);
                        rebuild.insert(&key);
                        rebuild.finish();
                    })
                })
                .into();
            scope.spawn(move || first.finish()).join().unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
        assert!(filter.may_contain(&1));
        assert!([2, 3].contains(&filter.stats().expected_keys));
        drop(filter.rebuild(7).unwrap());
        filter.rebuild(8).unwrap().finish();
        assert_eq!(filter.stats().expected_keys, 8);
    }

    #[test]
    fn bad_settings_are_refused() {
        let builder = || KeyFilter::<u64>::builder();
        let field = |error: Result<KeyFilter<u64>, ConfigError>| error.unwrap_err().field();
        assert_eq!(field(builder().build()), "expected_keys");
        assert_eq!(field(builder().expected_keys(0).build()), "expected_keys");
        for rate in [0.0, 1.0, f64::NAN] {
            let builder = builder().expected_keys(1).false_positive_rate(rate);
            assert_eq!(field(builder.build()), "false_positive_rate");
        }
        assert!(filter(1, 0.1).rebuild(0).is_err());
    }
}
