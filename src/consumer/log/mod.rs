//! The log files: lines, rejects, rotation, and the checkpoint that makes each event appear once.

pub mod archiver;
pub mod checkpoint;
pub mod destination;
pub mod durable_file;
pub mod event_log;
pub mod lines;
pub mod lock;
pub mod metrics;
pub mod open;
pub mod paths;
pub mod recovery;
pub mod rejects;
pub mod rotation;
pub mod storage;
