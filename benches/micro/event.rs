//! Benchmarks the processing of events before they are queued and after they are fetched, with `serde_json`
//! alone as a reference.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use serde::de::IgnoredAny;

use event_pipeline::event::{Events, Format, Limits, Stamp, TIMESTAMP, Value, one_line};

const LIMITS: Limits = Limits { max_event_bytes: 512 << 10, max_depth: Limits::DEFAULT_MAX_DEPTH };
const STAMPED: &str = r#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;
const UNSTAMPED: &str = r#"{"event": "purchase", "user_id": 203, "session": "8c1f0d2e", "amount": 19.99}"#;

/// Every benchmark of this module.
pub fn all(criterion: &mut Criterion) {
    single(criterion);
    large(criterion);
    batch(criterion);
}

/// Reads a body as the producer does: finds its events and their `key`, and writes a line for each.
fn read(body: &[u8], format: Format, key: &str, stamp: &Stamp, out: &mut Vec<u8>) -> usize {
    out.clear();
    let mut key_bytes = 0;
    let mut events = Events::new(black_box(body), format, LIMITS, [TIMESTAMP, key]);
    while let Some(event) = events.next_event().expect("sound") {
        let event = event.expect("valid");
        let [timestamp, key] = event.members;
        let added = timestamp.is_none().then(|| stamp.member());
        event.write(added.as_slice(), &LIMITS, out).expect("small");
        key_bytes += key.and_then(Value::text).map_or(0, |key| key.len());
    }
    out.len() + key_bytes
}

fn single(criterion: &mut Criterion) {
    let stamp = Stamp::from_unix_millis(1_751_933_521_781);
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("event");
    for (name, raw, key) in [
        ("read/unstamped", UNSTAMPED, TIMESTAMP),
        ("read/stamped", STAMPED, TIMESTAMP),
        ("read/keyed", UNSTAMPED, "user_id"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| read(raw.as_bytes(), Format::Object, key, &stamp, &mut out));
        });
    }
    group.bench_function("serde_json/ignored_any", |bencher| {
        bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(UNSTAMPED.as_bytes())).is_ok());
    });
    group.bench_function("one_line", |bencher| {
        bencher.iter(|| one_line(black_box(STAMPED.as_bytes()), None).expect("valid").text.len());
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
            bencher.iter(|| read(raw.as_bytes(), Format::Object, TIMESTAMP, &stamp, &mut out));
        });
    }
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let stamp = Stamp::from_unix_millis(1_751_933_521_781);
    let mut out = Vec::with_capacity(256 << 10);
    for (n_events, format, separator) in
        [(100, Format::Ndjson, "\n"), (1000, Format::Ndjson, "\n"), (1000, Format::Array, ",")]
    {
        let events = vec![UNSTAMPED; n_events].join(separator);
        let body = if format == Format::Array { format!("[{events}]") } else { events };
        let mut group = criterion.benchmark_group(format!("event/{n_events}"));
        group.throughput(Throughput::Elements(n_events as u64));
        for (name, key) in [("plain", TIMESTAMP), ("keyed", "user_id")] {
            group.bench_function(format!("{format:?}/{name}").to_lowercase(), |bencher| {
                bencher.iter(|| read(body.as_bytes(), format, key, &stamp, &mut out));
            });
        }
        group.finish();
    }
}
