//! What is written to and read from a topic: records, positions, and what is known about a partition.

use crate::broker::error::{Parting, Result};
use crate::broker::page::Page;

/// A value to publish, with an optional key that selects its partition, and headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record<'a> {
    /// Selects the partition by Java's murmur2; with `None` the sink chooses.
    pub key: Option<&'a [u8]>,
    /// Becomes the record's value, byte for byte.
    pub value: &'a [u8],
    /// What `Headers::as_bytes` returns. The kafka crate does not send them.
    pub headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record without headers.
    pub const fn new(key: Option<&'a [u8]>, value: &'a [u8]) -> Self {
        Self { key, value, headers: &[] }
    }

    /// Bytes of its key, its value and its headers.
    pub fn bytes(&self) -> usize {
        self.value.len() + self.key.map_or(0, <[u8]>::len) + self.headers.len()
    }
}

/// Position of an acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
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
    pub page: Result<Page>,
}
