//! Random pipelines against the iterator chains that they stand for.

use std::collections::BTreeSet;

use overdrive_pipeline::{ErrorPolicy, Pipeline, PipelineError};
use overdrive_workstealing::ThreadPool;
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some();
    ProptestConfig {
        cases: if deep { 4000 } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What is done to the numbers, in this order.
#[derive(Clone, Debug)]
struct Shape {
    items: u32,
    refused: BTreeSet<u32>,
    keep: u32,
    copies: u32,
    workers: usize,
    futures: usize,
    ordered: bool,
    in_flight: Option<usize>,
    skip: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let refused = proptest::collection::btree_set(0..120_u32, 0..4);
    let counts = (0..120_u32, 1..4_u32, 0..3_u32, 1..5_usize, 1..6_usize);
    let options = (
        any::<bool>(),
        proptest::option::of(1..9_usize),
        any::<bool>(),
    );
    (refused, counts, options).prop_map(|(refused, counts, options)| {
        let (items, keep, copies, workers, futures) = counts;
        let (ordered, in_flight, skip) = options;
        Shape {
            items,
            refused,
            keep,
            copies,
            workers,
            futures,
            ordered,
            in_flight,
            skip,
        }
    })
}

/// The results by an iterator, and the first refused item if that ends it.
fn expected(shape: &Shape) -> (Vec<u32>, Option<u32>) {
    let refused = |n: &u32| shape.refused.contains(n) && n % shape.keep == 0;
    let first = (0..shape.items)
        .find(|n| refused(n))
        .filter(|_| !shape.skip);
    let results = (0..first.unwrap_or(shape.items))
        .filter(|n| n % shape.keep == 0)
        .filter(|n| !refused(n))
        .flat_map(|n| (0..shape.copies).map(move |copy| n * 10 + copy))
        .map(|n| n + 1)
        .collect();
    (results, first)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_pipeline_is_its_iterator_chain(shape in shapes()) {
        let pool = ThreadPool::builder().workers(2).build().unwrap();
        let Shape { items, keep, copies, .. } = shape;
        let refused = shape.refused.clone();
        let mut run = Pipeline::from_iter(0..items)
            .filter(move |n| n % keep == 0)
            .try_map(move |n| if refused.contains(&n) { Err("refused") } else { Ok(n) })
            .flat_map(move |n| (0..copies).map(move |copy| n * 10 + copy))
            .parallel(shape.workers);
        if !shape.ordered {
            run = run.unordered();
        }
        let mut run = run.map_async(shape.futures, |n| async move { n + 1 }).on(&pool);
        if !shape.ordered {
            run = run.unordered();
        }
        if let Some(bound) = shape.in_flight {
            run = run.in_flight(bound);
        }
        if shape.skip {
            run = run.on_error(ErrorPolicy::Skip);
        }
        let mut out = Vec::new();
        let ended = run.run(|n| out.push(n));
        let (expected, first) = expected(&shape);
        let stats = match (&ended, first) {
            (Ok(stats), None) => *stats,
            (Err(PipelineError::Stage { sequence, stats, .. }), Some(first)) => {
                if shape.ordered {
                    prop_assert_eq!(*sequence, u64::from(first));
                }
                *stats
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        if first.is_none() {
            prop_assert_eq!(stats.received, u64::from(items));
            if !shape.ordered {
                out.sort_unstable();
            }
            prop_assert_eq!(&out, &expected);
        } else if shape.ordered {
            prop_assert_eq!(&out, &expected);
        }
        prop_assert_eq!(stats.delivered, out.len() as u64);
        prop_assert_eq!(stats.in_flight, 0);
        if let Some(bound) = shape.in_flight {
            prop_assert!(stats.peak_in_flight <= bound as u64);
        }
    }
}
