//! Our own client for every Kafka from 0.11 to 4.x, using Produce v3, Fetch v4 or v10, and InitProducerId v0.
//!
//! All these Kafka versions support those requests. From Kafka 2.4 on it uses Produce v8, which names the
//! records that a broker rejects (KIP-467). It writes nothing twice (see `sequence`), reads and writes every
//! compression codec, and hides aborted transactions. It has no socket of its own: records go over the connection that
//! carries the control requests.

mod answer;
mod batch;
mod client;
mod codec;
mod compress;
mod probe;
mod produce;
mod records;
mod sequence;

#[cfg(fuzzing)]
#[path = "tests/fuzz.rs"]
mod fuzz;

#[cfg(test)]
#[path = "tests/leaders.rs"]
mod leaders;

pub use client::WireConnector;
#[cfg(fuzzing)]
pub use fuzz::fuzzed;
pub use produce::produce_plainly;
