//! Benchmarks the processing of events before they are queued and after they are fetched, with `serde_json`
//! alone as a reference.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use serde::de::IgnoredAny;

use event_pipeline::event::{Format, Limits, Stamp, key_of, one_line, prepare, split};

const LIMITS: Limits = Limits { max_event_bytes: 512 << 10, max_depth: Limits::DEFAULT_MAX_DEPTH };
const STAMPED: &str = r#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;
const UNSTAMPED: &str = r#"{"event": "purchase", "user_id": 203, "session": "8c1f0d2e", "amount": 19.99}"#;

/// Every benchmark of this module.
pub fn all(criterion: &mut Criterion) {
    single(criterion);
    large(criterion);
    batch(criterion);
}

fn single(criterion: &mut Criterion) {
    let stamp = Stamp::from_unix_millis(1_751_933_521_781);
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("event");
    for (name, raw) in [("prepare/unstamped", UNSTAMPED), ("prepare/stamped", STAMPED)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                prepare(black_box(raw.as_bytes()), &stamp, &LIMITS, &mut out).expect("valid");
                out.len()
            });
        });
    }
    group.bench_function("serde_json/ignored_any", |bencher| {
        bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(UNSTAMPED.as_bytes())).is_ok());
    });
    group.bench_function("key_of", |bencher| {
        bencher.iter(|| key_of(black_box(UNSTAMPED.as_bytes()), "user_id"));
    });
    group.bench_function("one_line", |bencher| {
        bencher.iter(|| one_line(black_box(STAMPED.as_bytes())).expect("valid").len());
    });
    group.bench_function("stamp", |bencher| {
        bencher.iter(|| Stamp::from_unix_millis(black_box(1_751_933_521_781)));
    });
    group.finish();
}

/// Benchmarks long text and deep nesting, which show costs per byte and per level.
fn large(criterion: &mut Criterion) {
    let stamp = Stamp::from_unix_millis(1_751_933_521_781);
    let members: Vec<String> =
        (0..64).map(|i| format!("\"k{i}\": [{i}, {{\"text\": \"é {i} \\n\"}}]")).collect();
    let nested = format!("{{{}}}", members.join(",\n "));
    let text = format!("{{\"message\": \"{}\"}}", "All work and no play. ".repeat(200));
    let mut out = Vec::with_capacity(16 << 10);
    let mut group = criterion.benchmark_group("event/large");
    for (name, raw) in [("nested", &nested), ("text", &text)] {
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                prepare(black_box(raw.as_bytes()), &stamp, &LIMITS, &mut out).expect("valid");
                out.len()
            });
        });
    }
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let stamp = Stamp::from_unix_millis(1_751_933_521_781);
    let events = vec![UNSTAMPED; 1000];
    let ndjson = events.join("\n");
    let array = format!("[{}]", events.join(","));
    let mut out = Vec::with_capacity(256 << 10);
    let mut group = criterion.benchmark_group("event/1000");
    group.throughput(Throughput::Elements(1000));
    for (name, body, format) in [("ndjson", &ndjson, Format::Ndjson), ("array", &array, Format::Array)] {
        group.bench_function(format!("split/{name}"), |bencher| {
            bencher.iter(|| split(black_box(body.as_bytes()), format).expect("sound").count());
        });
        group.bench_function(format!("split_and_prepare/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for raw in split(black_box(body.as_bytes()), format).expect("sound") {
                    prepare(raw, &stamp, &LIMITS, &mut out).expect("valid");
                }
                out.len()
            });
        });
    }
    group.finish();
}
