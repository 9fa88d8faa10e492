//! What carries records to and from one broker: the part in which the clients differ.
//!
//! Everything else (who leads what, which partition, sizes, retries, offsets, errors) stands once, above this.

use std::time::{Duration, Instant};

use super::code::Code;
use super::connection::{Connection, left};
use super::control::PerPartition;
use super::{BrokerError, Fetched, Position, Record};

/// Most bytes of all partitions in one fetch. The consumer holds up to five times as much: the answer, its copy, and
/// two more fetches that are on their way to the file, one of them also as lines. More is no faster. A single batch may
/// be larger, up to [`Reach::max_bytes`].
pub(super) const FETCH_BYTES: usize = 8 << 20;

/// Bounds of one partition's share. The lower one exceeds the largest batch that brokers take by default.
const FETCH_BYTES_PER_PARTITION: (usize, usize) = (1280 << 10, 4 << 20);

/// What an answer holds besides one batch: its header, and for each partition the transactions that were rolled back.
const ANSWER_OVERHEAD: usize = 1 << 20;

/// How fast a broker must send what takes longer than the deadline of its request, in bytes a second.
const SLOWEST: usize = 1 << 20;

/// What a broker's answer may take after it has given up waiting for replicas.
const ANSWER_TIME: Duration = Duration::from_millis(250);

/// Most bytes of one of `partitions` partitions in one fetch.
pub(super) fn fetch_share(partitions: usize) -> usize {
    let (min, max) = FETCH_BYTES_PER_PARTITION;
    (FETCH_BYTES / partitions.max(1)).clamp(min, max)
}

/// How far one fetch goes.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// How long the broker waits when nothing is there.
    pub wait: Duration,
    /// Largest batch that is read, in bytes, as stored and decompressed.
    pub max_bytes: usize,
    /// Nothing after the batch of the position is wanted.
    pub one_batch: bool,
    pub deadline: Instant,
}

impl Reach {
    /// Longest answer that is read whole. A broker sends the first batch whole, whatever was asked for (KIP-74), and
    /// more than one only within what was asked for.
    pub fn answer_bytes(&self) -> usize {
        self.max_bytes.max(2 * FETCH_BYTES) + ANSWER_OVERHEAD
    }
}

/// How much longer than a request of usual size one may take that transfers `bytes`.
pub(super) fn transfer_time(bytes: usize) -> Duration {
    Duration::from_millis((bytes / (SLOWEST / 1000)) as u64)
}

/// How long a broker may wait for its replicas, so that its answer still reaches us before `deadline`.
pub(super) fn ack_timeout(deadline: Instant) -> Duration {
    let left = left(deadline);
    left - (left / 4).min(ANSWER_TIME)
}

/// What it means to the caller that the broker refused the fetch named by `at` with `code`.
pub(super) fn fetch_refusal(at: String, code: Code) -> BrokerError {
    let text = format!("{at}: {code}");
    if code == Code::OFFSET_OUT_OF_RANGE {
        BrokerError::OffsetOutOfRange(text)
    } else {
        BrokerError::Retryable(text)
    }
}

/// What became of a batch that reached its partition's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Produced {
    /// Written; the offset of its first record.
    At(i64),
    /// Not written, because of some of its records.
    Rejected(Verdict),
}

/// Which records of a batch a broker rejects, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub code: Code,
    /// Places in the batch of the records that it names, with its words about each. Brokers before 2.4 name none, and
    /// no broker does when it must reject the batch as a whole.
    pub records: Vec<(usize, String)>,
    /// Its words about the batch, empty from brokers before 2.4.
    pub reason: String,
}

impl Verdict {
    /// A verdict without any words.
    pub fn of(code: Code) -> Self {
        Self { code, records: Vec::new(), reason: String::new() }
    }
}

/// Records for one partition in one request, in order.
pub(super) struct Batch<'a> {
    pub partition: i32,
    pub records: Vec<Record<'a>>,
}

/// Carries records of one topic to and from one broker, with `acks=all`.
///
/// After an `Err` the client is of no further use and is dropped, unless the error is of one partition's data.
pub(super) trait Client: Send {
    /// False once the broker has closed the connection, so that no record is entrusted to a dead one.
    fn is_usable(&self) -> bool;

    /// Sends `batches`, at most one a partition, and lets the broker wait up to `ack_timeout` for its replicas.
    /// Exactly one outcome a batch.
    ///
    /// # Errors
    /// Retryable; any batch may have been written.
    fn produce(
        &mut self,
        control: &mut Connection,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
        deadline: Instant,
    ) -> Result<PerPartition<Produced>, BrokerError>;

    /// Whether each of `partitions` would acknowledge a record now; writes nothing.
    ///
    /// # Errors
    /// Retryable.
    fn would_acknowledge(
        &mut self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError>;

    /// Reads on from `positions`. At most one answer a position: after a batch above the usual size the other
    /// positions may have to wait for the next call.
    ///
    /// # Errors
    /// Retryable.
    fn fetch(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        reach: Reach,
    ) -> Result<Vec<Fetched>, BrokerError>;
}
