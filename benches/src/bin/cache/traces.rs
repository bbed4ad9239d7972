//! What the policies are held to: recorded traces where there are some, drawn ones otherwise.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;
use overdrive_bench::Setup;

/// Requests for keys, in order.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u64>,
    /// 2, 10 and 30 % of the distinct keys.
    pub(crate) capacities: Vec<usize>,
}

impl Trace {
    fn new(name: String, keys: Vec<u64>) -> Self {
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let size = |percent: usize| ((distinct.len() * percent + 50) / 100).max(100);
        Self {
            name,
            keys,
            capacities: [2, 10, 30].map(size).to_vec(),
        }
    }
}

/// Those of the folder that was named, or drawn ones. Read once.
pub(crate) fn traces(setup: &Setup) -> Arc<[Trace]> {
    type Read = Option<(Option<PathBuf>, Arc<[Trace]>)>;
    static READ: Mutex<Read> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, traces)) = &*read
        && *of == setup.traces
    {
        return Arc::clone(traces);
    }
    let traces: Arc<[Trace]> = match &setup.traces {
        Some(folder) => recorded(folder).into(),
        None => {
            eprintln!(
                "hit ratios of drawn traces; for recorded ones see docs/benchmarks.md, \"Traces\""
            );
            drawn(setup.seed).into()
        }
    };
    *read = Some((setup.traces.clone(), Arc::clone(&traces)));
    traces
}

/// All `*.u64.zst` of a folder: little-endian numbers.
fn recorded(folder: &Path) -> Vec<Trace> {
    let Ok(files) = std::fs::read_dir(folder) else {
        panic!("no traces in {}", folder.display());
    };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let named = paths.iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".u64.zst")?;
        Some((name.to_owned(), path))
    });
    let traces: Vec<Trace> = named
        .map(|(name, path)| match read(path) {
            Ok(keys) => Trace::new(name, keys),
            Err(error) => panic!("{}: {error}", path.display()),
        })
        .collect();
    assert!(!traces.is_empty(), "no traces in {}", folder.display());
    traces
}

fn read(path: &Path) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let mut packed = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&mut packed)?.read_to_end(&mut bytes)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    Ok(numbers
        .iter()
        .map(|&bytes| u64::from_le_bytes(bytes))
        .collect())
}

fn drawn(seed: u64) -> Vec<Trace> {
    let mut rng = Rng::with_seed(seed);
    let zipf = |rng: &mut Rng, exponent| zipf(rng.u64(..), 100_000, exponent, 400_000);
    let trace = |name: &str, keys| Trace::new(name.to_owned(), keys);
    vec![
        trace("drawn_zipf_08", zipf(&mut rng, 0.8)),
        trace("drawn_zipf_10", zipf(&mut rng, 1.0)),
        trace("drawn_loop", (0..200_000).map(|n| n % 2_000).collect()),
        trace("drawn_two_pools", two_pools(&mut rng)),
        trace("drawn_moving", moving(&mut rng)),
        trace("drawn_scans", scans(&mut rng)),
    ]
}

/// Requests that alternate between a few keys and many.
fn two_pools(rng: &mut Rng) -> Vec<u64> {
    let pair = |_| [rng.u64(..200), 1_000 + rng.u64(..20_000)];
    (0..100_000).flat_map(pair).collect()
}

/// The popular keys are others all the time.
fn moving(rng: &mut Rng) -> Vec<u64> {
    let ranks = zipf(rng.u64(..), 10_000, 0.9, 300_000);
    let moved = |(at, rank): (usize, &u64)| rank + at as u64 / 30;
    ranks.iter().enumerate().map(moved).collect()
}

/// Popular keys, and now and then all keys of a table one after the other.
fn scans(rng: &mut Rng) -> Vec<u64> {
    let ranks = zipf(rng.u64(..), 20_000, 0.9, 200_000);
    let mut keys = Vec::new();
    for part in ranks.chunks(20_000) {
        keys.extend_from_slice(part);
        let table = 1_000_000 + 100_000 * rng.u64(..3);
        keys.extend(table..table + 10_000);
    }
    keys
}

/// Keys of which the n-th most frequent comes as often as `n` to the power of `-exponent`.
pub(crate) fn zipf(seed: u64, keys: usize, exponent: f64, n: usize) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|n| {
            sum += (n as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut rng = Rng::with_seed(seed);
    let draw = |_| {
        let part = rng.f64() * sum;
        sums.partition_point(|&upto| upto < part) as u64
    };
    (0..n).map(draw).collect()
}
