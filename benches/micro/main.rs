//! Micro-benchmarks of the pure pieces: `cargo bench --bench micro [-- NAME]`. One module a room of the crate.

mod audit;
mod batch;
mod event;
mod line;

use criterion::{criterion_group, criterion_main};

criterion_group!(micro, event::all, batch::all, line::all, audit::all);
criterion_main!(micro);
