//! Kafka's protocol on one connection: frames, codes, requests and time limits.

#![cfg_attr(not(feature = "tls"), allow(unused_imports, reason = "some are only for our own client, or TLS"))]

mod answer;
mod code;
mod connection;
pub mod control;
mod deadline;
mod epochs;
pub mod fetch;
pub mod fetched;
mod frame;
pub mod group;
pub mod metadata;
mod oversize;
mod peek;
pub mod stored;
mod topic_id;

pub use code::Code;
pub use connection::{Api, CLIENT_ID, Connection, MUTING_PRODUCE, PRODUCE_KEY, REASONS_PRODUCE, failure};
pub use control::{
    Call, PerPartition, READ_COMMITTED, READ_UNCOMMITTED, Versions, answers_exactly, outcome_of,
    per_partition,
};
pub use deadline::{ack_timeout, share, transfer_time};
pub use epochs::{EPOCH_ENDS, Question, epoch_ends};
pub use fetch::{FETCH_BYTES, FetchLimits, ONE_BATCH, Wanted};
pub use fetched::FetchedPart;
pub use frame::{Malformed, Reader, Writer, push_varint, varint_bytes};
pub use metadata::Metadata;
#[cfg(test)]
pub use peek::headers;
pub use peek::{Peek, peek};
pub use stored::{BatchHeader, HEADER_BYTES, next_batch};
pub use topic_id::topic_id;
