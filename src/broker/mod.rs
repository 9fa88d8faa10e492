//! Kafka access for the rest of the crate: a [`Sink`] publishes records, a [`Source`] reads pages of them.
//!
//! Two clients do the work: the `kafka` crate (`kafka_crate`) and our own (`wire`). A value is plain bytes
//! here. Each `Sink` or `Source` call is a single attempt, bounded in time; the caller decides whether and
//! how long to retry.

#![cfg_attr(not(feature = "wire"), allow(dead_code, reason = "some shared code is used only by `wire`"))]

mod client;
mod cluster;
mod code;
mod connection;
mod connector;
mod control;
mod dispatch;
mod doubt;
mod epochs;
mod error;
mod follow;
mod frame;
mod group;
mod kafka_crate;
mod leader_log;
mod limit;
mod member;
mod oversize;
mod partition;
mod peek;
mod preflight;
mod secure;
mod sink;
mod source;
mod stored;
mod stream;
mod topic_id;
mod trail;
#[cfg(feature = "wire")]
mod wire;

use std::io;
use std::time::Duration;

use cluster::Cluster;
use connector::Connector;

#[cfg(fuzzing)]
pub use wire::fuzzed;

pub use error::BrokerError;
pub use sink::KafkaSink;
pub use source::KafkaSource;
#[cfg(test)]
pub(crate) use trail::{First, LeaderLog};
pub use trail::{Parting, Trail, Trails};

use crate::config::KafkaConfig;

/// Opens a sink for the topic that `config` names. It connects on first use.
///
/// # Errors
/// Fails if the system cannot start another thread.
pub fn open_sink(config: &KafkaConfig) -> io::Result<KafkaSink> {
    open(config).map(KafkaSink::new)
}

/// Opens a source for the topic that `config` names. It connects on first use.
///
/// # Errors
/// Fails if the system cannot start another thread.
pub fn open_source(config: &KafkaConfig) -> io::Result<KafkaSource> {
    open(config).map(KafkaSource::new)
}

fn open(config: &KafkaConfig) -> io::Result<Cluster> {
    Ok(Cluster::new(config.clone(), Connector::new(config)?))
}

/// A value to publish, with an optional key that selects its partition.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Selects the partition by Java's murmur2; with `None` the sink chooses.
    pub key: Option<&'a [u8]>,
    /// Becomes the record's value, byte for byte.
    pub value: &'a [u8],
}

/// Position of an acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
}

/// Writes records to one topic. Owned by one thread.
pub trait Sink: Send {
    /// Sends `records` once, with `acks=all`, and waits at most `limit` for the broker.
    ///
    /// There is one result per record: element `i` is the outcome of record `i`. A record with a retryable
    /// `Err` may still have been written (its acknowledgement was lost), so a retry can produce a duplicate.
    fn send(&mut self, records: &[Record<'_>], limit: Duration) -> Vec<Result<Receipt, BrokerError>>;

    /// Checks that the topic would acknowledge a record now, connecting if necessary. Writes nothing.
    ///
    /// Once any record has had a key, every partition must pass. Before that, only the partitions that
    /// records without a key would go to must pass.
    ///
    /// # Errors
    /// Returns the reason a `send` would fail now.
    fn probe(&mut self, limit: Duration) -> Result<(), BrokerError>;
}

/// Reads one topic from positions that the caller keeps. One owner thread.
pub trait Source: Send {
    /// Returns the topic's partitions in order, including those without a leader. It asks the broker every
    /// time, so partitions added later show up.
    ///
    /// # Errors
    /// Retryable if no broker answers or no partition has a leader.
    fn partitions(&mut self) -> Result<Vec<i32>, BrokerError>;

    /// Returns an id of the topic that changes when it is deleted and recreated; `None` from an old broker.
    ///
    /// # Errors
    /// Retryable if no broker answers.
    fn topic_id(&mut self) -> Result<Option<String>, BrokerError>;

    /// Returns the first readable offset and the offset after the last record for each of `partitions`, in
    /// the same order.
    ///
    /// A partition without a leader, or whose leader does not answer, fails in its own element.
    ///
    /// # Errors
    /// Fails if none of the partitions could be queried.
    fn bounds(&mut self, partitions: &[i32]) -> Result<Vec<Result<Bounds, BrokerError>>, BrokerError>;

    /// Reads on from `positions`, waiting briefly (long poll) if there is nothing to read.
    ///
    /// A partition that fails is reported in its own element and does not affect the records of the others.
    ///
    /// # Errors
    /// Fails if nothing at all could be read.
    fn fetch(&mut self, positions: &[Position]) -> Result<Vec<Fetched>, BrokerError>;

    /// Like [`Source::fetch`], but returns only records of logs that still contain what `trails` say was
    /// read.
    ///
    /// A page ends where it is no longer known which leader wrote the records. Brokers before Kafka 2.3
    /// cannot be queried, so their pages are returned unchecked.
    ///
    /// # Errors
    /// As for [`Source::fetch`]. A single partition can fail with [`BrokerError::Parted`].
    fn follow(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Fetched>, BrokerError>;

    /// Compares the log of each of `positions` with what was read up to there, in their order.
    ///
    /// # Errors
    /// Retryable when one of the leaders does not answer.
    fn compare(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Compared>, BrokerError>;

    /// Returns what `group` has committed for each of `partitions`; `None` where it never committed.
    ///
    /// # Errors
    /// Retryable while the coordinator is loading (never reported as "nothing committed"), or denied.
    fn committed(&mut self, group: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError>;

    /// Commits `positions` (the next offsets to read) for `group`, each with the text `note`.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`] or [`BrokerError::Denied`].
    fn commit(&mut self, group: &str, positions: &[Position], note: &str) -> Result<(), BrokerError>;
}

/// The next offset to read in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Partition of the topic.
    pub partition: i32,
    /// Next offset to read.
    pub offset: i64,
}

/// Result of comparing a partition's log with what was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Partition of the topic.
    pub partition: i32,
    /// How much of it the log has.
    pub found: Found,
    /// It is led in the epoch in which it was read last, or the broker is too old to say: whatever was read in that
    /// epoch is still there.
    pub same_term: bool,
}

/// How much of what was read a log still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing is remembered, or the broker is too old to be asked.
    Unknown,
    /// All of it.
    Same,
    /// It is another one from some offset on.
    Parted(Parting),
}

/// A group's committed position in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Next offset to read.
    pub offset: i64,
    /// The text that was committed with it, called metadata in Kafka; other programs leave it empty.
    pub note: String,
}

/// The offsets that a partition holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Partition of the topic.
    pub partition: i32,
    /// First offset that can still be read.
    pub earliest: i64,
    /// Offset that the next record will get.
    pub latest: i64,
}

/// Result of a fetch for one partition.
#[derive(Debug)]
pub struct Fetched {
    /// Partition of the topic.
    pub partition: i32,
    /// Its records, or the reason there are none.
    pub page: Result<Page, BrokerError>,
}

/// Consecutive records of one partition, in one allocation.
#[derive(Debug, Default)]
pub struct Page {
    /// Next offset to read, past the last record of this page.
    pub next_offset: i64,
    /// Offset that the partition's next record will get; used to compute lag.
    pub high_watermark: i64,
    /// Offset that the page was read from.
    begin: i64,
    bytes: Vec<u8>,
    ends: Vec<(i64, usize)>,
    /// Runs of records with the same time: index of the first record, and the time. No time is known before
    /// the first run.
    rows: Vec<(usize, Option<i64>)>,
    /// Leader epochs, each with its end offset (exclusive); empty if unknown.
    epochs: Vec<(i32, i64)>,
    /// Leader epoch of the broker that gave it out, if that is known.
    term: Option<i32>,
}

impl Page {
    /// Creates an empty page that continues at `next_offset`.
    pub fn new(next_offset: i64, high_watermark: i64) -> Self {
        Self { next_offset, high_watermark, begin: next_offset, ..Self::default() }
    }

    /// Reserves room for `bytes` bytes of values.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends the record at `offset` with its time in milliseconds since 1970, if known. Offsets must
    /// increase.
    pub fn push(&mut self, offset: i64, time_ms: Option<i64>, value: &[u8]) {
        if self.rows.last().and_then(|row| row.1) != time_ms {
            self.rows.push((self.ends.len(), time_ms));
        }
        self.bytes.extend_from_slice(value);
        self.ends.push((offset, self.bytes.len()));
        self.next_offset = offset + 1;
    }

    /// Marks everything since the last call, up to `end`, as written under the leader epoch `epoch`.
    pub fn reach(&mut self, epoch: i32, end: i64) {
        match self.epochs.last_mut() {
            Some(last) if last.0 == epoch => last.1 = end,
            _ => self.epochs.push((epoch, end)),
        }
    }

    /// It was given out by the leader of this epoch.
    pub fn led_in(&mut self, term: Option<i32>) {
        self.term = term;
    }

    /// Leader epoch of the broker that gave it out; `None` if that is not known.
    pub fn term(&self) -> Option<i32> {
        self.term
    }

    /// Offset that it was read from.
    pub fn begin(&self) -> i64 {
        self.begin
    }

    /// Drops what stands at `end` and after it.
    fn cut(&mut self, end: i64) {
        let records = self.ends.partition_point(|&(offset, _)| offset < end);
        self.ends.truncate(records);
        self.bytes.truncate(self.ends.last().map_or(0, |&(_, bytes)| bytes));
        self.rows.retain(|row| row.0 < records);
        self.next_offset = self.next_offset.min(end);
    }

    /// Leader epochs in offset order, each with its end offset (exclusive); empty if unknown.
    pub fn epochs(&self) -> &[(i32, i64)] {
        &self.epochs
    }

    /// Returns the first and the last record in `begin..end`.
    fn ends_of(&self, begin: i64, end: i64) -> [Option<(i64, &[u8])>; 2] {
        let from = self.ends.partition_point(|&(offset, _)| offset < begin);
        let to = self.ends.partition_point(|&(offset, _)| offset < end);
        let record = |index: usize| {
            let start = if index == 0 { 0 } else { self.ends[index - 1].1 };
            (self.ends[index].0, &self.bytes[start..self.ends[index].1])
        };
        if from < to { [Some(record(from)), Some(record(to - 1))] } else { [None, None] }
    }

    /// Iterates over the offset and value of each record. A null value reads as empty.
    pub fn records(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.timed_records().map(|(_, offset, value)| (offset, value))
    }

    /// Iterates over the time, offset and value of each record. The time is in milliseconds since 1970 and is
    /// the broker's or the sender's, depending on the topic's `message.timestamp.type`; `None` from a client
    /// that does not know it.
    pub fn timed_records(&self) -> impl Iterator<Item = (Option<i64>, i64, &[u8])> {
        let (mut start, mut time_ms) = (0, None);
        let mut rows = self.rows.iter().peekable();
        self.ends.iter().enumerate().map(move |(index, &(offset, end))| {
            if let Some((_, time)) = rows.next_if(|row| row.0 == index) {
                time_ms = *time;
            }
            let value = &self.bytes[start..end];
            start = end;
            (time_ms, offset, value)
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there are no records.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Total bytes of all values.
    pub fn value_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes held in memory, not counting spare vector capacity.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.epochs[..])
    }
}
