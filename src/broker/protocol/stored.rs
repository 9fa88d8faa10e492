//! Splits a partition's stored log into record batches and reads their headers. Does no I/O.
//!
//! A broker cuts its response at a byte count, so the last batch may be incomplete. It is left out, which is
//! not an error.

use crate::broker::protocol::frame::{Malformed, Reader};

/// Size of the offset and length fields in front of each batch.
const PREFIX_BYTES: usize = 12;

/// Size of the header in front of each batch's records, in the format used since Kafka 0.11.
pub const HEADER_BYTES: usize = 61;

const CONTROL: i16 = 0x20;
const TRANSACTIONAL: i16 = 0x10;
const APPEND_TIME: i16 = 0x08;

/// The fields of a stored batch's header that decide how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of its first record, even if compaction has removed that record.
    pub base: i64,
    /// Offset of its last record, even if compaction has removed that record.
    pub last: i64,
    /// Size in the log, in bytes.
    pub bytes: usize,
    /// Epoch of the leader that appended it; -1 before Kafka 0.11.
    pub epoch: i32,
    /// False before Kafka 0.11, when each batch was a single message.
    pub is_current: bool,
    /// Compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub codec: u8,
    /// True if it holds a transaction marker instead of records.
    pub is_control: bool,
    /// True if it is part of a transaction, which may have been aborted.
    pub is_transactional: bool,
    /// Id of its producer; -1 without idempotence.
    pub producer_id: i64,
    /// Base of its records' own times, in milliseconds since 1970; -1 for none.
    pub base_time_ms: i64,
    /// When the broker appended it, if the topic uses that as the time of each record.
    pub append_time_ms: Option<i64>,
    /// Checksum of everything after it.
    pub crc: u32,
    /// Number of records; compaction can leave batches with none.
    pub count: i32,
}

/// Takes the next whole batch off `stored`; `None` if none is left.
///
/// # Errors
/// Fails on a length that no batch can have.
pub fn next_batch<'a>(stored: &mut &'a [u8]) -> Result<Option<(BatchHeader, &'a [u8])>, Malformed> {
    if stored.len() < PREFIX_BYTES {
        return Ok(None);
    }
    let mut r = Reader::new(stored);
    let (base, length) = (r.i64()?, usize::try_from(r.i32()?).map_err(|_| Malformed)?);
    let Some((batch, rest)) = stored.split_at_checked(PREFIX_BYTES + length) else { return Ok(None) };
    let header = header(base, batch)?;
    *stored = rest;
    Ok(Some((header, batch)))
}

fn header(base: i64, batch: &[u8]) -> Result<BatchHeader, Malformed> {
    let mut r = Reader::new(&batch[PREFIX_BYTES..]);
    let (epoch_or_crc, magic) = (r.i32()?, r.i8()?);
    let mut header = BatchHeader {
        base,
        last: base,
        bytes: batch.len(),
        epoch: if magic == 2 { epoch_or_crc } else { -1 },
        is_current: magic == 2,
        codec: 0,
        is_control: false,
        is_transactional: false,
        producer_id: -1,
        base_time_ms: -1,
        append_time_ms: None,
        crc: 0,
        count: 1,
    };
    if magic < 2 {
        // A compressed message has the offset of the last message inside it.
        header.codec = r.i8()?.cast_unsigned() & 7;
        return Ok(header);
    }
    header.crc = r.i32()?.cast_unsigned();
    let attributes = r.i16()?;
    header.codec = (attributes & 7).to_be_bytes()[1];
    header.is_control = attributes & CONTROL != 0;
    header.is_transactional = attributes & TRANSACTIONAL != 0;
    header.last = base
        .checked_add(i64::from(r.i32()?))
        .filter(|last| (base..i64::MAX).contains(last))
        .ok_or(Malformed)?;
    header.base_time_ms = r.i64()?;
    let max_time_ms = r.i64()?;
    header.append_time_ms = (attributes & APPEND_TIME != 0).then_some(max_time_ms);
    header.producer_id = r.i64()?;
    let _epoch_and_sequence = (r.i16()?, r.i32()?);
    header.count = r.i32()?;
    Ok(header)
}

#[cfg(test)]
#[path = "tests/stored.rs"]
pub mod tests;
