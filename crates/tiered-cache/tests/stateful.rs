//! Random operations in lock step with an executable specification. It leaves open which entries
//! are evicted, but not when and how many; `policy.rs` says which.
//!
//! `OVERDRIVE_DEEP=1` runs a million operations.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overdrive_core::clock::ManualClock;
use overdrive_testkit::DropCounter;
use overdrive_tiered_cache::{Cache, Cause, EntryOptions, Lookup, Rejected, Reserve, Ttl};
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
    RemoveIf(u8, bool),
    Reserve(u8, bool),
    Resize(u64),
    Retain(u8),
    TryGetOrInsertFails(u8),
    Update(u8, u64),
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
        1 => (key(), any::<bool>()).prop_map(|(k, holds)| Op::RemoveIf(k, holds)),
        1 => (key(), any::<bool>()).prop_map(|(k, made)| Op::Reserve(k, made)),
        1 => (1..12_u64).prop_map(Op::Resize),
        1 => (2..5_u8).prop_map(Op::Retain),
        1 => key().prop_map(Op::TryGetOrInsertFails),
        2 => (key(), 0..14_u64).prop_map(|(k, w)| Op::Update(k, w)),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    max_weight: u64,
    shards: usize,
    ttl: Option<u64>,
    idle: Option<u64>,
    refresh: Option<u64>,
}

fn setup() -> impl Strategy<Value = Setup> {
    let time = || prop::option::of(1..10_u64);
    let setup = (1..12_u64, 1..4_usize, time(), time(), time());
    setup.prop_map(|(max_weight, shards, ttl, idle, refresh)| Setup {
        max_weight,
        shards,
        ttl,
        idle,
        refresh: refresh.filter(|&refresh| ttl.is_none_or(|ttl| refresh < ttl)),
    })
}

/// What a cache is, in seconds. Expired entries may still be there, or not.
struct Spec {
    setup: Setup,
    now: u64,
    entries: HashMap<u8, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    weight: u64,
    stored: u64,
    expires: Option<u64>,
    used: u64,
    tags: u8,
}

impl Spec {
    fn is_live(&self, entry: &Entry) -> bool {
        let idle = self.setup.idle;
        let idle = idle.is_none_or(|idle| self.now < entry.used + idle);
        entry.expires.is_none_or(|end| self.now < end) && idle
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        let refresh = self.setup.refresh;
        refresh.is_some_and(|refresh| self.now >= entry.stored + refresh)
    }

    fn peek(&self, key: u8) -> Option<&Entry> {
        self.entries.get(&key).filter(|entry| self.is_live(entry))
    }

    fn get(&mut self, key: u8) -> Option<u64> {
        let now = self.now;
        let id = self.peek(key)?.id;
        self.entries.get_mut(&key)?.used = now;
        Some(id)
    }

    /// Takes it out; an expired one is dropped.
    fn take(&mut self, key: u8) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        Some(entry).filter(|entry| self.is_live(entry))
    }

    /// The value replaced; an error if it is too heavy.
    fn insert(&mut self, key: u8, entry: Entry) -> Result<Option<u64>, ()> {
        let old = self.take(key).map(|entry| entry.id);
        if entry.expires == Some(self.now) {
            return Ok(old);
        }
        if entry.weight > self.setup.max_weight {
            return Err(());
        }
        self.entries.insert(key, entry);
        Ok(old)
    }

    fn entry(&self, id: u64, weight: u64, expires: Option<u64>, tags: u8) -> Entry {
        Entry {
            id,
            weight: weight.max(1),
            stored: self.now,
            expires,
            used: self.now,
            tags,
        }
    }

    fn weight(&self) -> u64 {
        self.entries.values().map(|entry| entry.weight).sum()
    }

    fn live(&self) -> HashMap<u8, u64> {
        let live = self.entries.iter().filter(|(_, e)| self.is_live(e));
        live.map(|(key, entry)| (*key, entry.id)).collect()
    }

    fn remove_if(&mut self, gone: impl Fn(&Self, u8, &Entry) -> bool) -> Vec<u8> {
        let gone = self.entries.iter().filter(|(k, e)| gone(self, **k, e));
        let gone: Vec<u8> = gone.map(|(key, _)| *key).collect();
        for key in &gone {
            self.entries.remove(key);
        }
        gone
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
    let heard = Arc::new(Mutex::new(HashMap::<Cause, u64>::new()));
    let listener = {
        let heard = Arc::clone(&heard);
        move |_: &u8, _: &Value, cause| *heard.lock().unwrap().entry(cause).or_default() += 1
    };
    let seconds = Duration::from_secs;
    let mut builder = Cache::<u8, Value>::builder()
        .max_weight(setup.max_weight)
        .weigher(|_, value| value.weight)
        .shards(setup.shards)
        .listener(listener)
        .clock(clock.clone());
    if let Some(ttl) = setup.ttl {
        builder = builder.ttl(seconds(ttl));
    }
    if let Some(idle) = setup.idle {
        builder = builder.idle_timeout(seconds(idle));
    }
    if let Some(refresh) = setup.refresh {
        builder = builder.refresh_after(seconds(refresh));
    }
    let cache = builder.build().unwrap();
    let mut spec = Spec {
        setup,
        now: 0,
        entries: HashMap::new(),
    };
    for (id, op) in (0_u64..).zip(ops) {
        let value = |weight| Value {
            id,
            weight,
            _token: counter.token(),
        };
        let evicted = cache.stats().evicted;
        let weight_before = spec.weight();
        let mut stored = None;
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
                assert_eq!(cache.contains_key(&key), spec.peek(key).is_some(), "{op:?}");
            }
            Op::Get(key) => {
                let stale = spec.peek(key).is_some_and(|entry| spec.is_stale(entry));
                let expected = spec.get(key).map(|id| (id, stale));
                let got = match cache.lookup(&key) {
                    Lookup::Fresh(value) => Some((value.id, false)),
                    Lookup::Stale(value) => Some((value.id, true)),
                    _ => None,
                };
                assert_eq!(got, expected, "{op:?}");
            }
            Op::GetOrInsert(key) => {
                let fresh = spec.peek(key).filter(|entry| !spec.is_stale(entry));
                let fresh = fresh.is_some();
                let got = spec.get(key).filter(|_| fresh);
                let expected = got.unwrap_or_else(|| {
                    let entry = spec.entry(id, 1, setup.ttl.map(|ttl| spec.now + ttl), 0);
                    spec.insert(key, entry).unwrap();
                    stored = Some(key);
                    id
                });
                let got = cache.get_or_insert_with(key, || value(1));
                assert_eq!(got.id, expected, "{op:?}");
            }
            Op::Reserve(key, made) => {
                let fresh = spec.peek(key).is_some_and(|entry| !spec.is_stale(entry));
                spec.get(key);
                match cache.reserve(key) {
                    Reserve::Found(_) => assert!(fresh, "{op:?}"),
                    Reserve::Busy(_) => panic!("nobody makes it"),
                    Reserve::Vacant(mine) => {
                        assert!(!fresh, "{op:?}");
                        assert!(!matches!(cache.reserve(key), Reserve::Vacant(_)));
                        if made {
                            mine.insert(value(1));
                            let entry = spec.entry(id, 1, setup.ttl.map(|ttl| spec.now + ttl), 0);
                            spec.insert(key, entry).unwrap();
                            stored = Some(key);
                        }
                    }
                }
            }
            Op::TryGetOrInsertFails(key) => {
                let fresh = spec.peek(key).filter(|entry| !spec.is_stale(entry));
                let expected = fresh.map(|entry| entry.id);
                spec.get(key);
                let got = cache.try_get_or_insert_with(key, || Err(()));
                assert_eq!(got.ok().map(|value| value.id), expected, "{op:?}");
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
                let expected = spec.insert(key, spec.entry(id, weight, expires, tags));
                if expected.is_ok() && expires != Some(spec.now) {
                    stored = Some(key);
                }
                let got = cache.insert_with(key, value(weight), options);
                let got = got.map(|old| old.map(|value| value.id)).map_err(|error| {
                    assert!(matches!(error, Rejected::TooHeavy { .. }));
                    assert_eq!(error.into_inner().1.id, id, "it gives the value back");
                });
                assert_eq!(got, expected, "{op:?}");
            }
            Op::InvalidateTag(tag) => {
                let gone = spec.remove_if(|_, _, entry| entry.tags & (1 << tag) != 0);
                assert!(cache.invalidate_tag(TAGS[tag]) <= gone.len(), "{op:?}");
            }
            Op::Purge => {
                let gone = spec.remove_if(|spec, _, entry| !spec.is_live(entry));
                assert!(cache.purge_expired() <= gone.len(), "{op:?}");
                assert_eq!(cache.len(), spec.entries.len(), "{op:?}");
            }
            Op::Remove(key) => {
                let expected = spec.take(key).map(|entry| entry.id);
                let got = cache.remove(&key).map(|(_, value)| value.id);
                assert_eq!(got, expected, "{op:?}");
            }
            Op::RemoveIf(key, holds) => {
                let expected = spec.peek(key).map(|entry| entry.id).filter(|_| holds);
                if expected.is_some() {
                    spec.take(key);
                }
                let got = cache.remove_if(&key, |_| holds);
                assert_eq!(got.map(|(_, value)| value.id), expected, "{op:?}");
            }
            Op::Resize(max) => {
                spec.setup.max_weight = max;
                cache.set_max_weight(max).unwrap();
            }
            Op::Retain(divisor) => {
                let gone = spec.remove_if(|spec, k, e| spec.is_live(e) && divides(divisor, k));
                let got = cache.retain(|key, _| !divides(divisor, *key));
                assert_eq!(got, gone.len(), "{op:?}");
            }
            Op::Update(key, weight) => {
                let expected = spec.peek(key).map(|entry| entry.id);
                let got = cache.update(&key, |value| {
                    value.weight = weight;
                    std::mem::replace(&mut value.id, id)
                });
                assert_eq!(got, expected, "{op:?}");
                let now = spec.now;
                if let Some(entry) = spec.entries.get_mut(&key).filter(|_| got.is_some()) {
                    entry.used = now;
                    (entry.id, entry.weight) = (id, weight.max(1));
                    if !cache.contains_key(&key) {
                        assert!(weight > spec.setup.max_weight, "{op:?}");
                        spec.take(key);
                    }
                }
            }
        }
        // What it evicted, and why.
        let kept: HashMap<u8, u64> = cache.iter().map(|(key, value)| (key, value.id)).collect();
        let live = spec.live();
        let gone: HashSet<u8> = live
            .keys()
            .filter(|k| !kept.contains_key(k))
            .copied()
            .collect();
        assert!(
            kept.iter().all(|(key, id)| live.get(key) == Some(id)),
            "{op:?}"
        );
        assert!(stored.is_none_or(|key| kept.contains_key(&key)), "{op:?}");
        let stats = cache.stats();
        assert_eq!(stats.evicted - evicted, gone.len() as u64, "{op:?}");
        let most = spec.weight().max(weight_before);
        assert!(
            gone.is_empty() || most > spec.setup.max_weight,
            "in vain: {op:?}"
        );
        spec.entries.retain(|key, _| !gone.contains(key));
        assert!(stats.weight <= spec.setup.max_weight, "{op:?}");
        assert_eq!(cache.weight(), stats.weight, "{op:?}");
        let left = stats.replaced + stats.evicted + stats.expired + stats.removed;
        assert_eq!(stats.inserted, stats.entries as u64 + left, "{op:?}");
        assert_eq!(heard.lock().unwrap().values().sum::<u64>(), left, "{op:?}");
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
