//! Kafka's protocol on one connection: frames, codes, requests and time limits.

pub mod answer;
pub mod code;
pub mod connection;
pub mod control;
pub mod deadline;
pub mod epochs;
pub mod fetch;
pub mod frame;
pub mod group;
pub mod metadata;
pub mod oversize;
pub mod peek;
pub mod stored;
pub mod stream;
pub mod tcp;
pub mod topic_id;
