//! Encodes record batches in the format of Kafka 0.11 and later. Does no I/O.
//!
//! It is written by hand, like the rest of this client. The `kafka-protocol` crate reserves memory for any
//! count that a response claims (2^31 elements, which aborts the process), and cannot read past an incomplete
//! batch.

use std::borrow::Cow;

use crate::broker::client::OwnedRecord;
use crate::broker::protocol::{HEADER_BYTES, Malformed, Reader, next_batch, push_varint, varint_bytes};
use crate::broker::record::Record;
use crate::broker::wire::codec::decompress;
use crate::broker::wire::compress::Compressor;

/// Start of the bytes that the checksum covers.
pub const CRC_FROM: usize = 21;
const CRC_AT: usize = 17;

/// Maximum bytes of a record's lengths and flags, in addition to its key, its value and its headers.
const RECORD_OVERHEAD_BYTES: usize = 26;

/// A count of 0.
const NO_HEADERS: &[u8] = &[0];

/// Identifies a batch to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub producer_id: i64,
    pub epoch: i16,
    /// Sequence number of its first record.
    pub sequence: i32,
}

impl Stamp {
    /// For a batch that a broker does not compare with others.
    pub const NONE: Self = Self { producer_id: -1, epoch: -1, sequence: -1 };
}

/// The checksum of `bytes`, as used in batches.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Encodes one uncompressed batch of `records`, all with the time `now_ms` (milliseconds since 1970).
pub fn encode(records: &[Record<'_>], stamp: Stamp, now_ms: i64) -> Vec<u8> {
    let mut bytes = with_records(records);
    fill_header(&mut bytes, records.len(), 0, stamp, now_ms);
    bytes
}

/// Encodes one batch like [`encode`], but compressed if that makes it smaller.
pub fn encode_compressed(
    records: &[Record<'_>],
    stamp: Stamp,
    now_ms: i64,
    compressor: &mut Compressor,
) -> Vec<u8> {
    let plain = with_records(records);
    let mut bytes = Vec::with_capacity(plain.len());
    bytes.resize(HEADER_BYTES, 0);
    let is_smaller = compressor.append(&plain[HEADER_BYTES..], &mut bytes);
    let (mut bytes, codec) = if is_smaller { (bytes, compressor.codec()) } else { (plain, 0) };
    fill_header(&mut bytes, records.len(), codec, stamp, now_ms);
    bytes
}

/// Room for a header, and `records` behind it.
fn with_records(records: &[Record<'_>]) -> Vec<u8> {
    let payload: usize = records.iter().map(|record| record.bytes() + RECORD_OVERHEAD_BYTES).sum();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload);
    bytes.resize(HEADER_BYTES, 0);
    for (index, record) in (0..).zip(records) {
        push_record(&mut bytes, index, record);
    }
    bytes
}

/// Writes the header in front of `count` records, which are compressed with `codec`.
fn fill_header(bytes: &mut [u8], count: usize, codec: u8, stamp: Stamp, now_ms: i64) {
    let length = i32::try_from(bytes.len() - 12).expect("a part is at most one event above 900 kB");
    let count = i32::try_from(count).expect("a part is far below 2^31 records");
    let header = [
        &0i64.to_be_bytes()[..],
        &length.to_be_bytes(),
        &(-1i32).to_be_bytes(),
        &[2],
        &[0; 4],
        &i16::from(codec).to_be_bytes(),
        &(count - 1).to_be_bytes(),
        &now_ms.to_be_bytes(),
        &now_ms.to_be_bytes(),
        &stamp.producer_id.to_be_bytes(),
        &stamp.epoch.to_be_bytes(),
        &stamp.sequence.to_be_bytes(),
        &count.to_be_bytes(),
    ];
    bytes[..HEADER_BYTES].copy_from_slice(&header.concat());
    let crc = checksum(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

/// True if a batch that was encoded here is one of exactly these `records`.
pub fn is_of(batch: &[u8], records: &[Record<'_>]) -> bool {
    // What is compressed again need not become the same bytes.
    plain_records(batch).is_ok_and(|stored| *stored == with_records(records)[HEADER_BYTES..])
}

/// The records of a batch that was encoded here, as they were before they were compressed.
fn plain_records(mut batch: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let (header, batch) = next_batch(&mut batch)?.ok_or(Malformed)?;
    let stored = &batch[HEADER_BYTES..];
    match header.codec {
        0 => Ok(Cow::Borrowed(stored)),
        codec => decompress(codec, stored, usize::MAX).map(Cow::Owned).map_err(|_| Malformed),
    }
}

/// Reads each record back from a batch that was encoded here.
pub fn decode(batch: &[u8]) -> Result<Vec<OwnedRecord>, Malformed> {
    let plain = plain_records(batch)?;
    let mut r = Reader::new(&plain);
    let mut records = Vec::new();
    while !r.is_at_end() {
        let length = usize::try_from(r.varint()?).map_err(|_| Malformed)?;
        let mut r = Reader::new(r.slice(length)?);
        let _attributes_time_and_index = (r.i8()?, r.varint()?, r.varint()?);
        let mut nullable = || usize::try_from(r.varint()?).ok().map(|length| r.slice(length)).transpose();
        let (key, value) = (nullable()?, nullable()?.unwrap_or_default());
        let headers = r.rest();
        let headers = if headers == NO_HEADERS { &[] } else { headers };
        records.push(OwnedRecord::of(&Record { key, value, headers }));
    }
    Ok(records)
}

/// A batch that no broker accepts, because its checksum is wrong. A broker reports that only after checking
/// that it leads the partition and has enough replicas.
pub fn unacceptable() -> Vec<u8> {
    let mut bytes = encode(&[Record::new(None, b"")], Stamp::NONE, 0);
    bytes[CRC_AT] ^= 0xff;
    bytes
}

fn push_record(bytes: &mut Vec<u8>, index: i64, record: &Record<'_>) {
    let key_length = record.key.map_or(-1, |key| key.len() as i64);
    let key = record.key.unwrap_or_default();
    let value_length = record.value.len() as i64;
    let headers = if record.headers.is_empty() { NO_HEADERS } else { record.headers };
    // Attributes and a time delta of 0 are one byte each.
    let length = 2
        + varint_bytes(index)
        + varint_bytes(key_length)
        + key.len()
        + varint_bytes(value_length)
        + record.value.len()
        + headers.len();
    push_varint(bytes, length as i64);
    bytes.extend_from_slice(&[0, 0]);
    push_varint(bytes, index);
    push_varint(bytes, key_length);
    bytes.extend_from_slice(key);
    push_varint(bytes, value_length);
    bytes.extend_from_slice(record.value);
    bytes.extend_from_slice(headers);
}

#[cfg(test)]
#[path = "tests/batch.rs"]
mod tests;
