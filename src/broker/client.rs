//! The interface that both Kafka clients implement: carrying records to and from one broker.
//!
//! Everything the clients share (leaders, partitioning, sizes, retries, offsets, errors) lives in the layer
//! above.

use std::time::{Duration, Instant};

use crate::broker::error::BrokerError;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::{Connection, left};
use crate::broker::protocol::control::PerPartition;
use crate::broker::record::{Fetched, Position, Record};

/// Maximum bytes of all partitions in one fetch; more is no faster. The consumer holds up to five times as
/// much: the response, its copy, and two more fetches on their way to the file, one of them also as lines. A
/// single batch may be larger, up to [`Reach::max_bytes`].
pub const FETCH_BYTES: usize = 8 << 20;

/// Bounds of one partition's share. The lower one exceeds the largest batch that brokers accept by default.
const FETCH_BYTES_PER_PARTITION: (usize, usize) = (1280 << 10, 4 << 20);

/// Room in a response on top of one batch: its header, and each partition's list of aborted transactions.
const ANSWER_OVERHEAD: usize = 1 << 20;

/// Minimum speed of a transfer that takes longer than its request's deadline, in bytes per second.
const SLOWEST: usize = 1 << 20;

/// Time for a broker's response to arrive after the broker has stopped waiting for replicas.
const ANSWER_TIME: Duration = Duration::from_millis(250);

/// Maximum bytes per partition in a fetch of `partitions` partitions.
pub fn fetch_share(partitions: usize) -> usize {
    let (min, max) = FETCH_BYTES_PER_PARTITION;
    (FETCH_BYTES / partitions.max(1)).clamp(min, max)
}

/// Limits of one fetch.
#[derive(Clone, Copy)]
pub struct Reach {
    /// How long the broker waits if there is nothing to read.
    pub wait: Duration,
    /// Largest batch to read, in bytes, both as stored and decompressed.
    pub max_bytes: usize,
    /// Nothing after the batch of the position is wanted.
    pub one_batch: bool,
    pub deadline: Instant,
}

impl Reach {
    /// Longest response that is read in full. A broker always sends the first batch whole (KIP-74); it sends
    /// more than one only within the requested size.
    pub fn answer_bytes(&self) -> usize {
        self.max_bytes.max(2 * FETCH_BYTES) + ANSWER_OVERHEAD
    }
}

/// Extra time for a request that transfers `bytes`, compared with one of the usual size.
pub fn transfer_time(bytes: usize) -> Duration {
    Duration::from_millis((bytes / (SLOWEST / 1000)) as u64)
}

/// How long a broker may wait for its replicas so that its response still reaches us before `deadline`.
pub fn ack_timeout(deadline: Instant) -> Duration {
    let left = left(deadline);
    left - (left / 4).min(ANSWER_TIME)
}

/// Turns the `code` with which a broker refused the fetch described by `at` into an error for the caller.
pub fn fetch_refusal(at: String, code: Code) -> BrokerError {
    let text = format!("{at}: {code}");
    if code == Code::OFFSET_OUT_OF_RANGE {
        BrokerError::OffsetOutOfRange(text)
    } else {
        BrokerError::Retryable(text)
    }
}

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
    /// Fails with [`BrokerError::Retryable`]. Any of the batches may have been written.
    fn produce(
        &mut self,
        control: &mut Connection,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
        deadline: Instant,
    ) -> Result<PerPartition<Produced>, BrokerError>;

    /// Checks whether each of `partitions` would acknowledge a record now. Writes nothing.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    fn would_acknowledge(
        &mut self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError>;

    /// Reads on from `positions`. Returns at most one result per position: after a batch above the usual
    /// size, the other positions may have to wait for the next call.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    fn fetch(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        reach: Reach,
    ) -> Result<Vec<Fetched>, BrokerError>;
}
