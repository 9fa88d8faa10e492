//! The log files: lines, rejects, rotation, and the checkpoint that makes each event appear once.

pub mod archiver;
pub mod checkpoint;
pub mod dedup;
pub mod destination;
pub mod durable_file;
pub mod event_log;
pub mod file_set;
mod forms;
pub mod forward;
pub mod id_files;
pub mod ids;
pub mod lines;
pub mod lock;
pub mod metrics;
pub mod open;
pub mod paths;
pub mod rebuild;
pub mod recovery;
pub mod rejects;
pub mod rotation;
pub mod storage;
