//! Benchmarks the audit of log lines.

use std::hint::black_box;

use criterion::{Criterion, Throughput};

use event_pipeline::broker::Receipt;
use event_pipeline::simulate::answer::Fate;
use event_pipeline::simulate::audit::Auditor;
use event_pipeline::simulate::ledger::{Entry, Ledger};
use event_pipeline::simulate::workload::run_marker;

const LINES: u32 = 1000;
const RUN: &str = "k3x9";

/// Every benchmark of this module.
pub fn all(criterion: &mut Criterion) {
    let mut ledger = Ledger::new(RUN.into());
    let fate = Fate::Acknowledged(Some(Receipt { partition: 0, offset: 0 }));
    ledger.enter(&Entry { first: 0, count: LINES, fate, retried: false });
    let lines: Vec<String> = (0..LINES).map(line).collect();
    let mut group = criterion.benchmark_group("audit/1000");
    group.throughput(Throughput::Elements(LINES.into()));
    group.bench_function("lines", |bencher| {
        bencher.iter(|| {
            let mut auditor = Auditor::new(&ledger);
            lines.iter().for_each(|line| auditor.line(black_box(line.as_bytes())));
            let findings = auditor.finish();
            assert_eq!(findings.logged, u64::from(LINES));
            findings.logged
        });
    });
    group.finish();
}

fn line(seq: u32) -> String {
    format!(
        "2025-07-08 00:12:01,782 - {{\"event\": \"purchase\", \"user_id\": 203, {}{seq}, \"timestamp\": \"2025-07-08T00:12:01.781Z\"}}",
        run_marker(RUN)
    )
}
