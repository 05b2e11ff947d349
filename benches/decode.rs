//! How many bytes of `f32` one core decodes per second, for every encoding.
//!
//! `cargo bench --bench decode`; `cargo bench --bench decode -- Q4_K` for one of them. Both buffers stay the
//! same from one iteration to the next, so that no time goes into page faults. GiB/s count the output, 4
//! bytes per weight; figures belong into `reports/performance.md` with the machine they came from.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qeval::checkpoint::encoding::Encoding;

const WEIGHTS: usize = 1 << 20;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(4 * WEIGHTS as u64));
    let mut out = vec![1.0; WEIGHTS];
    for &encoding in Encoding::ALL {
        let bytes = blocks(encoding);
        group.bench_function(encoding.name(), |bencher| {
            bencher.iter(|| encoding.decode(black_box(&bytes), black_box(&mut out)).unwrap());
        });
    }
    group.finish();
}

/// Bytes without a pattern, so that look-ups go all over their tables. A few scales are infinite or NaN,
/// which costs vectors nothing.
fn blocks(encoding: Encoding) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..encoding.encoded_bytes(WEIGHTS).unwrap()).map(|_| byte()).collect()
}

criterion_group!(benches, decode);
criterion_main!(benches);
