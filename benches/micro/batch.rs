//! Benchmarks a batch without the broker: adding jobs, building records, noting receipts, taking the jobs.

#![expect(clippy::vec_box, reason = "the queue returns boxed jobs")]

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};

use event_pipeline::broker::Receipt;
use event_pipeline::producer::batch::Batch;
use event_pipeline::producer::job::{Job, Lines};

const EVENTS: usize = 1000;
const EVENT: &[u8] = br#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;

/// Every benchmark of this module.
pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch/1000");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, events_a_job) in [("single", 1), ("ndjson", EVENTS)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| jobs(events_a_job), course, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Creates [`EVENTS`] events in jobs of `events_a_job` events each.
fn jobs(events_a_job: usize) -> Vec<Box<Job<()>>> {
    let deadline = Instant::now() + Duration::from_secs(3600);
    (0..EVENTS / events_a_job)
        .map(|_| {
            let mut lines = Lines::with_capacity(events_a_job * EVENT.len());
            for _ in 0..events_a_job {
                lines.buffer().extend_from_slice(EVENT);
                lines.end_line();
            }
            Box::new(Job::new(lines, deadline, ()))
        })
        .collect()
}

/// Passes `jobs` through one batch and returns them, so that dropping them is not measured.
fn course(jobs: Vec<Box<Job<()>>>) -> Vec<Box<Job<()>>> {
    let mut batch = Batch::default();
    for job in jobs {
        batch.push(job);
    }
    let (sent, records) = batch.records(10_000, 2_700_000);
    assert_eq!(records.len(), EVENTS);
    let receipts = (0..EVENTS as i64).map(|offset| Ok(Receipt { partition: 0, offset })).collect();
    batch.note(&sent, receipts);
    batch.take_settled(Instant::now(), &"not due".into())
}
