//! Benchmarks formatting the lines of the event log in memory, before they are written as one block.

use std::hint::black_box;

use criterion::{Criterion, Throughput};

use event_pipeline::consumer::lines::Lines;

const LINES: usize = 1000;
const EVENT: &str = r#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;

/// Every benchmark of this module.
pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line/1000");
    group.throughput(Throughput::Elements(LINES as u64));
    let mut lines = Lines::default();
    group.bench_function("add_and_take", |bencher| {
        bencher.iter(|| {
            for _ in 0..LINES {
                lines.add(black_box(1_751_933_521_782), black_box(EVENT));
            }
            lines.take().len()
        });
    });
    group.finish();
}
