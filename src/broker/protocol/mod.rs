//! Kafka's protocol on one connection: frames, codes, requests and time limits.

pub mod code;
pub mod connection;
pub mod control;
pub mod frame;
pub mod stored;
pub mod stream;
pub mod topic_id;
