//! Kafka as the rest of the crate sees it: records in, receipts out; positions in, pages out.
//!
//! Two clients carry the records: the `kafka` crate (`kafka_crate`) and our own (`wire`). It knows nothing of HTTP,
//! files or events: a value is bytes.
//! `Sink` and `Source` make one attempt a call, bounded in time; who retries, and how long, decides the caller.

#![cfg_attr(not(feature = "wire"), allow(dead_code, reason = "some of what is shared has one user less"))]

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

/// A sink to the topic that `config` names; connects at its first use.
///
/// # Errors
/// When the system has no thread left.
pub fn open_sink(config: &KafkaConfig) -> io::Result<KafkaSink> {
    open(config).map(KafkaSink::new)
}

/// A source of the topic that `config` names; connects at its first use.
///
/// # Errors
/// When the system has no thread left.
pub fn open_source(config: &KafkaConfig) -> io::Result<KafkaSource> {
    open(config).map(KafkaSource::new)
}

fn open(config: &KafkaConfig) -> io::Result<Cluster> {
    Ok(Cluster::new(config.clone(), Connector::new(config)?))
}

/// One value on its way to a topic, with the key that picks its partition, if any.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Picks the partition by Java's murmur2; `None` leaves the choice to the sink.
    pub key: Option<&'a [u8]>,
    /// The bytes that become the record's value, unchanged.
    pub value: &'a [u8],
}

/// Where an acknowledged record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
}

/// Writes records to one topic. One owner thread.
pub trait Sink: Send {
    /// Sends `records` once, with `acks=all`, and waits for the broker at most `limit`.
    ///
    /// Element `i` of the answer is the outcome of record `i`; the answer is as long as `records`.
    /// An `Err` that is retryable may still have been written (a lost answer): a retry can duplicate.
    fn send(&mut self, records: &[Record<'_>], limit: Duration) -> Vec<Result<Receipt, BrokerError>>;

    /// Connects if need be and proves that the topic would acknowledge now; writes nothing. Once records had
    /// keys, every partition must; before that, those that records without a key would go to.
    ///
    /// # Errors
    /// Why a `send` would fail now.
    fn probe(&mut self, limit: Duration) -> Result<(), BrokerError>;
}

/// Reads one topic from positions that the caller keeps. One owner thread.
pub trait Source: Send {
    /// The topic's partitions, sorted, with those that have no leader; asks the broker each time, so it shows
    /// partitions added later.
    ///
    /// # Errors
    /// Retryable when no broker answers or no partition has a leader.
    fn partitions(&mut self) -> Result<Vec<i32>, BrokerError>;

    /// An identity of the topic that changes when it is deleted and created again; `None` from an old broker.
    ///
    /// # Errors
    /// Retryable when no broker answers.
    fn topic_id(&mut self) -> Result<Option<String>, BrokerError>;

    /// First readable offset and the one after the last record, for each of `partitions` in their order.
    ///
    /// A partition without a leader, or whose leader does not answer, fails in its own element.
    ///
    /// # Errors
    /// When none of them could be asked.
    fn bounds(&mut self, partitions: &[i32]) -> Result<Vec<Result<Bounds, BrokerError>>, BrokerError>;

    /// Reads on from `positions`; waits a little (the long poll) when nothing is there.
    ///
    /// One partition's failure stands in its own element and leaves the others' records untouched.
    ///
    /// # Errors
    /// When nothing at all could be read.
    fn fetch(&mut self, positions: &[Position]) -> Result<Vec<Fetched>, BrokerError>;

    /// As [`Source::fetch`], but gives out only records of logs that still have what `trails` say was read.
    ///
    /// A page ends where it cannot be told any more which leader wrote the records. Brokers before Kafka 2.3 cannot
    /// be asked; their pages are given out unchecked.
    ///
    /// # Errors
    /// As for [`Source::fetch`]; parted, of one partition.
    fn follow(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Fetched>, BrokerError>;

    /// Compares the log of each of `positions` with what was read up to there, in their order.
    ///
    /// # Errors
    /// Retryable when one of the leaders does not answer.
    fn compare(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Compared>, BrokerError>;

    /// What `group` has committed for each of `partitions`; `None` where it never did.
    ///
    /// # Errors
    /// Retryable while the coordinator is loading, which is never reported as "nothing committed"; denied.
    fn committed(&mut self, group: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError>;

    /// Stores `positions` (the next offset to read) for `group`, each with the text `note`.
    ///
    /// # Errors
    /// Retryable, or denied.
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

/// What a partition's log has of what was read of it.
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

/// What a group has committed for one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Next offset to read.
    pub offset: i64,
    /// The text that was committed with it, which Kafka calls metadata; other programs leave it empty.
    pub note: String,
}

/// What a partition holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Partition of the topic.
    pub partition: i32,
    /// First offset that can still be read.
    pub earliest: i64,
    /// Offset that the next record will get.
    pub latest: i64,
}

/// The answer of one partition to a fetch.
#[derive(Debug)]
pub struct Fetched {
    /// Partition of the topic.
    pub partition: i32,
    /// Its records, or why there are none.
    pub page: Result<Page, BrokerError>,
}

/// Consecutive records of one partition, in one allocation.
#[derive(Debug, Default)]
pub struct Page {
    /// Offset to read from next: past the last record of this page.
    pub next_offset: i64,
    /// Offset that the partition's next record will get, for lag.
    pub high_watermark: i64,
    /// Offset that it was read from.
    begin: i64,
    bytes: Vec<u8>,
    ends: Vec<(i64, usize)>,
    /// Index of the first record of each row that has the same time; before the first row none is known.
    rows: Vec<(usize, Option<i64>)>,
    /// Leader epochs, each with the offset that it ends before; empty if they are not known.
    epochs: Vec<(i32, i64)>,
    /// Leader epoch of the broker that gave it out, if that is known.
    term: Option<i32>,
}

impl Page {
    /// An empty page that reads on from `next_offset`.
    pub fn new(next_offset: i64, high_watermark: i64) -> Self {
        Self { next_offset, high_watermark, begin: next_offset, ..Self::default() }
    }

    /// Makes room for `bytes` of values.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends the record at `offset`, of `time_ms` since 1970 if that is known; offsets rise.
    pub fn push(&mut self, offset: i64, time_ms: Option<i64>, value: &[u8]) {
        if self.rows.last().and_then(|row| row.1) != time_ms {
            self.rows.push((self.ends.len(), time_ms));
        }
        self.bytes.extend_from_slice(value);
        self.ends.push((offset, self.bytes.len()));
        self.next_offset = offset + 1;
    }

    /// Everything since the last call, up to `end`, was written under the leader epoch `epoch`.
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

    /// Leader epochs in the order of offsets, each with the offset that it ends before; empty if they are not known.
    pub fn epochs(&self) -> &[(i32, i64)] {
        &self.epochs
    }

    /// The first and the last record from `begin` on and before `end`.
    fn ends_of(&self, begin: i64, end: i64) -> [Option<(i64, &[u8])>; 2] {
        let from = self.ends.partition_point(|&(offset, _)| offset < begin);
        let to = self.ends.partition_point(|&(offset, _)| offset < end);
        let record = |index: usize| {
            let start = if index == 0 { 0 } else { self.ends[index - 1].1 };
            (self.ends[index].0, &self.bytes[start..self.ends[index].1])
        };
        if from < to { [Some(record(from)), Some(record(to - 1))] } else { [None, None] }
    }

    /// Offset and value of each record. A null value reads as empty.
    pub fn records(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.timed_records().map(|(_, offset, value)| (offset, value))
    }

    /// Time, offset and value of each record. The time is in milliseconds since 1970: the broker's or the sender's,
    /// as the topic's `message.timestamp.type` says; `None` from a client that does not know it.
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

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all values.
    pub fn value_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that it takes in memory, without what its vectors keep in reserve.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.epochs[..])
    }
}
