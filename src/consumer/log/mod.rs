//! The log files: lines, rejects, rotation, and the checkpoint that makes each event appear once.

pub mod archiver;
pub mod checkpoint;
pub mod durable_file;
pub mod event_log;
pub mod hangup;
pub mod lines;
pub mod lock;
pub mod paths;
pub mod recovery;
pub mod rejects;
pub mod rotation;
pub mod storage;
