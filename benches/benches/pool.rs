//! The pool under criterion, for those who know its tools:
//! `cargo bench -p overdrive-benches --features pool,criterion`. Claims rest on
//! `cargo xtask bench`, which compares side by side.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use overdrive_pool::{Keep, Pool};

fn get_put(c: &mut Criterion) {
    let builder = Pool::builder().factory(|| Vec::<u8>::with_capacity(4096));
    let pool = builder
        .reset(|buffer: &mut Vec<u8>| {
            buffer.clear();
            Keep::Yes
        })
        .build()
        .expect("the settings are valid");
    c.bench_function("pool/get_put_4k", |b| {
        b.iter(|| pool.get().extend_from_slice(black_box(&[7; 8])));
    });
    c.bench_function("pool/get_owned_4k", |b| {
        b.iter(|| pool.get_owned().extend_from_slice(black_box(&[7; 8])));
    });
}

criterion_group!(benches, get_put);
criterion_main!(benches);
