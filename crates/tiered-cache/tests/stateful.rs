//! Random operations in lock step with an executable specification.
//!
//! `OVERDRIVE_DEEP=1` runs a million operations.

use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, EntryOptions, Rejected, Ttl};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const TAGS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Clear,
    Contains(u8),
    Get(u8),
    GetOrInsert(u8),
    Insert(u8, u64, Option<Option<u64>>, u8),
    InvalidateTag(usize),
    Purge,
    Remove(u8),
    Retain(u8),
    TryGetOrInsertFails(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..12_u8;
    let ttl = prop_oneof![
        3 => Just(None),
        1 => Just(Some(None)),
        3 => (0..8_u64).prop_map(|seconds| Some(Some(seconds))),
    ];
    prop_oneof![
        3 => (0..4_u64).prop_map(Op::Advance),
        1 => Just(Op::Clear),
        2 => key().prop_map(Op::Contains),
        10 => key().prop_map(Op::Get),
        3 => key().prop_map(Op::GetOrInsert),
        12 => (key(), 0..14_u64, ttl, 0..8_u8).prop_map(|(k, w, t, tags)| Op::Insert(k, w, t, tags)),
        2 => (0..TAGS.len()).prop_map(Op::InvalidateTag),
        1 => Just(Op::Purge),
        3 => key().prop_map(Op::Remove),
        1 => (2..5_u8).prop_map(Op::Retain),
        1 => key().prop_map(Op::TryGetOrInsertFails),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    max_weight: u64,
    ttl: Option<u64>,
    idle: Option<u64>,
}

fn setup() -> impl Strategy<Value = Setup> {
    let time = || prop::option::of(1..10_u64);
    (1..12_u64, time(), time()).prop_map(|(max_weight, ttl, idle)| Setup {
        max_weight,
        ttl,
        idle,
    })
}

/// What a cache is: entries from the least to the most recently used, in seconds.
struct Spec {
    setup: Setup,
    now: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: u8,
    id: u64,
    weight: u64,
    expires: Option<u64>,
    used: u64,
    tags: u8,
}

impl Spec {
    fn is_live(&self, entry: &Entry) -> bool {
        let idle = self
            .setup
            .idle
            .is_none_or(|idle| self.now < entry.used + idle);
        entry.expires.is_none_or(|end| self.now < end) && idle
    }

    /// Takes it out; an expired one is dropped.
    fn take(&mut self, key: u8) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(at);
        Some(entry).filter(|entry| self.is_live(entry))
    }

    fn get(&mut self, key: u8) -> Option<u64> {
        let mut entry = self.take(key)?;
        entry.used = self.now;
        let id = entry.id;
        self.entries.push(entry);
        Some(id)
    }

    /// The value replaced; an error if it is too heavy.
    fn insert(&mut self, entry: Entry) -> Result<Option<u64>, ()> {
        let old = self.take(entry.key).map(|entry| entry.id);
        if entry.expires == Some(self.now) {
            return Ok(old);
        }
        if entry.weight > self.setup.max_weight {
            return Err(());
        }
        while self.weight() + entry.weight > self.setup.max_weight {
            self.entries.remove(0);
        }
        self.entries.push(entry);
        Ok(old)
    }

    fn weight(&self) -> u64 {
        self.entries.iter().map(|entry| entry.weight).sum()
    }

    fn remove_if(&mut self, gone: impl Fn(&Self, &Entry) -> bool) -> usize {
        let before = self.entries.len();
        let kept = self.entries.iter().filter(|e| !gone(self, e)).cloned();
        self.entries = kept.collect();
        before - self.entries.len()
    }
}

#[derive(Clone)]
struct Value {
    id: u64,
    weight: u64,
    _token: overdrive_testkit::Token,
}

fn run(setup: Setup, ops: &[Op]) {
    let clock = ManualClock::new();
    let counter = DropCounter::new();
    let seconds = Duration::from_secs;
    let mut builder = Cache::<u8, Value>::builder()
        .max_weight(setup.max_weight)
        .weigher(|_, value| value.weight)
        .clock(clock.clone());
    if let Some(ttl) = setup.ttl {
        builder = builder.ttl(seconds(ttl));
    }
    if let Some(idle) = setup.idle {
        builder = builder.idle_timeout(seconds(idle));
    }
    let cache = builder.build().unwrap();
    let mut spec = Spec {
        setup,
        now: 0,
        entries: Vec::new(),
    };
    for (id, op) in (0_u64..).zip(ops) {
        let value = |weight| Value {
            id,
            weight,
            _token: counter.token(),
        };
        match *op {
            Op::Advance(by) => {
                spec.now += by;
                clock.advance(seconds(by));
            }
            Op::Clear => {
                spec.entries.clear();
                cache.clear();
            }
            Op::Contains(key) => {
                let entry = spec.entries.iter().find(|entry| entry.key == key);
                let live = entry.is_some_and(|entry| spec.is_live(entry));
                assert_eq!(cache.contains_key(&key), live, "{op:?}");
            }
            Op::Get(key) => {
                assert_eq!(
                    cache.get(&key).map(|value| value.id),
                    spec.get(key),
                    "{op:?}"
                );
            }
            Op::GetOrInsert(key) => {
                let expected = spec.get(key).unwrap_or_else(|| {
                    let expires = setup.ttl.map(|ttl| spec.now + ttl);
                    let (weight, used, tags) = (1, spec.now, 0);
                    let entry = Entry {
                        key,
                        id,
                        weight,
                        expires,
                        used,
                        tags,
                    };
                    spec.insert(entry).unwrap();
                    id
                });
                let got = cache.get_or_insert_with(key, || value(1));
                assert_eq!(got.id, expected, "{op:?}");
            }
            Op::TryGetOrInsertFails(key) => {
                let got = cache.try_get_or_insert_with(key, || Err(()));
                assert_eq!(got.ok().map(|value| value.id), spec.get(key), "{op:?}");
            }
            Op::Insert(key, weight, ttl, tags) => {
                let mut options = EntryOptions::new();
                options.ttl = ttl.map(|ttl| ttl.map_or(Ttl::Forever, |s| Ttl::After(seconds(s))));
                for (bit, tag) in TAGS.iter().enumerate() {
                    if tags & (1 << bit) != 0 {
                        options = options.tag(*tag);
                    }
                }
                let expires = ttl.unwrap_or(setup.ttl).map(|ttl| spec.now + ttl);
                let entry = Entry {
                    key,
                    id,
                    weight: weight.max(1),
                    expires,
                    used: spec.now,
                    tags,
                };
                let expected = spec.insert(entry);
                let got = cache.insert_with(key, value(weight), options);
                let got = got.map(|old| old.map(|value| value.id)).map_err(|error| {
                    assert!(matches!(error, Rejected::TooHeavy { .. }));
                    assert_eq!(error.into_inner().1.id, id, "it gives the value back");
                });
                assert_eq!(got, expected, "{op:?}");
            }
            Op::InvalidateTag(tag) => {
                let expected = spec.remove_if(|_, entry| entry.tags & (1 << tag) != 0);
                assert_eq!(cache.invalidate_tag(TAGS[tag]), expected, "{op:?}");
            }
            Op::Purge => {
                let expected = spec.remove_if(|spec, entry| !spec.is_live(entry));
                assert_eq!(cache.purge_expired(), expected, "{op:?}");
            }
            Op::Remove(key) => {
                let expected = spec.take(key).map(|entry| entry.id);
                assert_eq!(
                    cache.remove(&key).map(|(_, value)| value.id),
                    expected,
                    "{op:?}"
                );
            }
            Op::Retain(divisor) => {
                let expected = spec.remove_if(|spec, e| spec.is_live(e) && divides(divisor, e.key));
                let got = cache.retain(|key, _| !divides(divisor, *key));
                assert_eq!(got, expected, "{op:?}");
            }
        }
        let stats = cache.stats();
        assert_eq!(cache.len(), spec.entries.len(), "{op:?}");
        assert_eq!(cache.weight(), spec.weight(), "{op:?}");
        assert!(stats.weight <= setup.max_weight, "{op:?}");
        let left = stats.replaced + stats.evicted + stats.expired + stats.removed;
        assert_eq!(stats.inserted, stats.entries as u64 + left, "{op:?}");
        assert_eq!(
            counter.alive(),
            stats.entries,
            "nothing else is kept: {op:?}"
        );
    }
    drop(cache);
    assert_eq!(counter.alive(), 0);
}

fn divides(divisor: u8, key: u8) -> bool {
    key % divisor == 0
}

#[test]
fn a_cache_does_what_its_specification_does() {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    let config = Config {
        cases: if deep { 2_500 } else { 60 },
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (setup(), prop::collection::vec(op(), 1..400));
    let outcome = runner.run(&strategy, |(setup, ops)| {
        run(setup, &ops);
        Ok(())
    });
    outcome.unwrap();
}
