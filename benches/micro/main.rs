//! Micro-benchmarks of the pure pieces: `cargo bench --bench micro [-- NAME]`. One module a room of the crate.

mod event;

use criterion::{criterion_group, criterion_main};

criterion_group!(micro, event::all);
criterion_main!(micro);
