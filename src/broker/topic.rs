//! The seam to the rest of the crate: a [`Sink`] writes records to a topic, a [`Source`] reads pages of it.

use std::time::Duration;

use crate::broker::error::Result;
use crate::broker::record::{Bounds, Committed, Compared, Fetched, Position, Receipt, Record};
use crate::broker::trail::Trails;

/// Writes records to one topic. Owned by one thread.
pub trait Sink: Send {
    /// Sends `records` once, with `acks=all`, and waits at most `limit` for the broker.
    ///
    /// There is one result per record: element `i` is the outcome of record `i`. A record with a retryable
    /// `Err` may still have been written (its acknowledgement was lost), so a retry can produce a duplicate.
    fn send(&mut self, records: &[Record<'_>], limit: Duration) -> Vec<Result<Receipt>>;

    /// Checks that the topic would acknowledge a record now, connecting if necessary. Writes nothing.
    ///
    /// Once any record has had a key, every partition must pass. Before that, only the partitions that
    /// records without a key would go to must pass.
    ///
    /// # Errors
    /// Returns the reason a `send` would fail now.
    fn probe(&mut self, limit: Duration) -> Result<()>;
}

/// Reads one topic from positions that the caller keeps. One owner thread.
pub trait Source: Send {
    /// Returns the topic's partitions in order, including those without a leader. It asks the broker every
    /// time, so partitions added later show up.
    ///
    /// # Errors
    /// Retryable if no broker answers or no partition has a leader.
    fn partitions(&mut self) -> Result<Vec<i32>>;

    /// Returns an id of the topic that changes when it is deleted and recreated; `None` from an old broker.
    ///
    /// # Errors
    /// Retryable if no broker answers.
    fn topic_id(&mut self) -> Result<Option<String>>;

    /// Returns the first readable offset and the offset after the last record for each of `partitions`, in
    /// the same order.
    ///
    /// A partition without a leader, or whose leader does not answer, fails in its own element.
    ///
    /// # Errors
    /// Fails if none of the partitions could be queried.
    fn bounds(&mut self, partitions: &[i32]) -> Result<Vec<Result<Bounds>>>;

    /// Reads on from `positions`, waiting briefly (long poll) if there is nothing to read.
    ///
    /// A partition that fails is reported in its own element and does not affect the records of the others.
    ///
    /// # Errors
    /// Fails if nothing at all could be read.
    fn fetch(&mut self, positions: &[Position]) -> Result<Vec<Fetched>>;

    /// Like [`Source::fetch`], but returns only records of logs that still contain what `trails` say was
    /// read.
    ///
    /// A page ends where it is no longer known which leader wrote the records. Brokers before Kafka 2.3
    /// cannot be queried, so their pages are returned unchecked.
    ///
    /// # Errors
    /// As for [`Source::fetch`]. A single partition can fail with `BrokerError::Parted`.
    fn follow(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Fetched>>;

    /// Compares the log of each of `positions` with what was read up to there, in their order.
    ///
    /// A partition whose leader does not answer now fails in its own element.
    ///
    /// # Errors
    /// Fails if no leader is known, if a quota delays the comparison, or with an error that no later call would
    /// change.
    fn compare(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Result<Compared>>>;

    /// Returns what `group` has committed for each of `partitions`; `None` where it never committed.
    ///
    /// # Errors
    /// Retryable while the coordinator is loading (never reported as "nothing committed"), or denied.
    fn committed(&mut self, group: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>>;

    /// Commits `positions` (the next offsets to read) for `group`, each with the text `note`.
    ///
    /// # Errors
    /// Fails with `BrokerError::Retryable` or `BrokerError::Denied`.
    fn commit(&mut self, group: &str, positions: &[Position], note: &str) -> Result<()>;
}
