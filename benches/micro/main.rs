//! Micro-benchmarks of pure functions, one file per module: `cargo bench --bench micro [-- NAME]`.

mod audit;
mod batch;
mod event;
mod line;

use criterion::{criterion_group, criterion_main};

criterion_group!(micro, event::all, batch::all, line::all, audit::all);
criterion_main!(micro);
