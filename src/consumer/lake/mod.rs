//! Turns closed logs into Parquet files: a data lake in a directory, with every event once.
//!
//! A closed log is immutable and has a name of its own, so its files have the same names and the same bytes however
//! often they are made. Start with `place` (the steps for one log), then `survey` (what is in a log), `convert` and
//! `file` (one Parquet file), and `publish` (how a file gets its name). `remote` is the seam for a copy elsewhere, such
//! as `consumer::s3`.

mod columns;
mod convert;
pub mod fault;
mod file;
mod identity;
mod input;
mod manifest;
mod metrics;
mod paths;
mod place;
mod publish;
pub mod remote;
mod survey;

pub use metrics::LakeMetrics;
pub use place::Lake;
