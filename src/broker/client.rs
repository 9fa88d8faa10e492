//! What carries records to and from one broker: the part in which the clients differ.
//!
//! Everything else (who leads what, which partition, sizes, retries, offsets, errors) stands once, above this.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::control::{PerPartition, Versions};
use super::{BrokerError, Fetched, Position, Record};

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

    /// Sends `batches`, at most one a partition. Exactly one outcome a batch: the offset of its first record.
    ///
    /// # Errors
    /// Retryable; any batch may have been written.
    fn produce(&mut self, batches: &[Batch<'_>], deadline: Instant)
    -> Result<PerPartition<i64>, BrokerError>;

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

    /// Reads on from `positions`; waits up to `wait` when nothing is there. At most one answer a position.
    ///
    /// # Errors
    /// Retryable.
    fn fetch(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Vec<Fetched>, BrokerError>;
}

/// Opens a [`Client`] to one broker.
pub(super) trait Connector: Send {
    /// Whether a broker that serves `versions` can serve this client.
    ///
    /// # Errors
    /// Unsupported, with what to run instead.
    fn check(&self, host: &str, versions: &Versions) -> Result<(), BrokerError>;

    /// Connects to `host`, which leads partitions of the topic; `control` is a connection to the same broker.
    ///
    /// # Errors
    /// Retryable, or unsupported.
    fn open(
        &self,
        host: &str,
        control: &mut Connection,
        deadline: Instant,
    ) -> Result<Box<dyn Client>, BrokerError>;
}
