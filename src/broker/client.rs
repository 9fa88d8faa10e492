//! The interface that both Kafka clients implement: carrying records to and from one broker.
//!
//! Everything the clients share (leaders, partitioning, sizes, retries, offsets, errors) lives in the layer
//! above.

use std::time::Duration;

use crate::broker::error::Result;
use crate::broker::protocol::{Call, Code, FetchLimits, PerPartition};
use crate::broker::record::{Fetched, Position, Record};

/// Outcome of a batch that reached its partition's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Produced {
    /// Written, with the offset of its first record.
    At(i64),
    /// Not written because of some of its records.
    Rejected(Verdict),
}

/// The records of a batch that a broker rejects, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub code: Code,
    /// Indexes in the batch of the records that the broker names, with its message about each. Brokers before
    /// 2.4 name none, and neither does any broker that must reject the batch as a whole.
    pub records: Vec<(usize, String)>,
    /// The broker's message about the batch; empty from brokers before 2.4.
    pub reason: String,
}

impl Verdict {
    /// A verdict without any messages.
    pub fn of(code: Code) -> Self {
        Self { code, records: Vec::new(), reason: String::new() }
    }
}

/// Records for one partition in one request, in order.
pub struct Batch<'a> {
    pub partition: i32,
    pub records: Vec<Record<'a>>,
}

/// A copy of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: Vec<u8>,
}

impl OwnedRecord {
    /// Copies `record`.
    pub fn of(record: &Record<'_>) -> Self {
        let Record { key, value, headers } = record;
        Self { key: key.map(<[u8]>::to_vec), value: value.to_vec(), headers: headers.to_vec() }
    }

    /// The record that was copied.
    pub fn record(&self) -> Record<'_> {
        Record { key: self.key.as_deref(), value: &self.value, headers: &self.headers }
    }
}

/// A batch that may have been written without our knowing. Sent again unchanged, it is not written twice.
pub struct BatchInDoubt {
    pub partition: i32,
    pub records: Vec<OwnedRecord>,
}

/// Carries records of one topic to and from one broker, with `acks=all`.
///
/// After an `Err` the client is unusable and is dropped, unless the error concerns one partition's data.
pub trait Client: Send {
    /// False once the broker has closed the connection, so that no records are sent on a dead one.
    fn is_usable(&self) -> bool;

    /// Sends `batches`, at most one per partition, and lets the broker wait up to `ack_timeout` for its
    /// replicas. Returns exactly one outcome per batch.
    ///
    /// # Errors
    /// Fails with `BrokerError::Retryable`. Any of the batches may have been written.
    fn produce(
        &mut self,
        on: &mut Call<'_>,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
    ) -> Result<PerPartition<Produced>>;

    /// Checks whether each of `partitions` would acknowledge a record now. Writes nothing.
    ///
    /// # Errors
    /// Fails with `BrokerError::Retryable`.
    fn would_acknowledge(&mut self, on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<()>>;

    /// Reads on from `positions`. Returns at most one result per position: after a batch above the usual
    /// size, the other positions may have to wait for the next call.
    ///
    /// # Errors
    /// Fails with `BrokerError::Retryable`.
    fn fetch(
        &mut self,
        on: &mut Call<'_>,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>>;
}
