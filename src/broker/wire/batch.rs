//! Encodes record batches in the format of Kafka 0.11 and later. Does no I/O.
//!
//! It is written by hand, like the rest of this client. The `kafka-protocol` crate reserves memory for any
//! count that a response claims (2^31 elements, which aborts the process), and cannot read past an incomplete
//! batch.

use crate::broker::client::OwnedRecord;
use crate::broker::protocol::{HEADER_BYTES, Malformed, Reader};
use crate::broker::record::Record;

/// Start of the bytes that the checksum covers.
pub const CRC_FROM: usize = 21;
const CRC_AT: usize = 17;

/// Maximum bytes of a record's lengths and flags, in addition to its key and value.
const RECORD_OVERHEAD_BYTES: usize = 26;

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
    let payload: usize = records
        .iter()
        .map(|record| record.value.len() + record.key.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES)
        .sum();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload);
    bytes.resize(HEADER_BYTES, 0);
    for (index, record) in (0..).zip(records) {
        push_record(&mut bytes, index, record);
    }
    let length = i32::try_from(bytes.len() - 12).expect("a part is at most one event above 900 kB");
    let count = i32::try_from(records.len()).expect("a part is far below 2^31 records");
    let header = [
        &0i64.to_be_bytes()[..],
        &length.to_be_bytes(),
        &(-1i32).to_be_bytes(),
        &[2],
        &[0; 4],
        &0i16.to_be_bytes(),
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
    bytes
}

/// Reads key and value of each record back from a batch that [`encode`] has made.
pub fn decode(batch: &[u8]) -> Result<Vec<OwnedRecord>, Malformed> {
    let mut r = Reader::new(&batch[HEADER_BYTES..]);
    let mut records = Vec::new();
    while !r.is_at_end() {
        let _length_attributes_time_and_index = (r.varint()?, r.i8()?, r.varint()?, r.varint()?);
        let mut nullable = || usize::try_from(r.varint()?).ok().map(|length| r.slice(length)).transpose();
        let (key, value) = (nullable()?, nullable()?.unwrap_or_default());
        let _headers = r.varint()?;
        records.push((key.map(<[u8]>::to_vec), value.to_vec()));
    }
    Ok(records)
}

/// A batch that no broker accepts, because its checksum is wrong. A broker reports that only after checking
/// that it leads the partition and has enough replicas.
pub fn unacceptable() -> Vec<u8> {
    let mut bytes = encode(&[Record { key: None, value: b"" }], Stamp::NONE, 0);
    bytes[CRC_AT] ^= 0xff;
    bytes
}

fn push_record(bytes: &mut Vec<u8>, index: i64, record: &Record<'_>) {
    let key_length = record.key.map_or(-1, |key| key.len() as i64);
    let key = record.key.unwrap_or_default();
    let value_length = record.value.len() as i64;
    // Attributes, a time delta of 0 and a header count of 0 are one byte each.
    let length = 3
        + varint_bytes(index)
        + varint_bytes(key_length)
        + key.len()
        + varint_bytes(value_length)
        + record.value.len();
    push_varint(bytes, length as i64);
    bytes.extend_from_slice(&[0, 0]);
    push_varint(bytes, index);
    push_varint(bytes, key_length);
    bytes.extend_from_slice(key);
    push_varint(bytes, value_length);
    bytes.extend_from_slice(record.value);
    bytes.push(0);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_bytes(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros()).div_ceil(7) as usize
}

fn push_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn varints_are_read_back_and_have_the_length_that_was_reckoned() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!((bytes.len(), Reader::new(&bytes).varint()), (varint_bytes(value), Ok(value)));
        }
    }

    #[test]
    fn records_are_read_back_as_they_were() {
        let records: [(Option<&[u8]>, &[u8]); 3] =
            [(None, b"a"), (Some(b""), b""), (Some(b"key"), &[7; 300])];
        let encoded = encode(&records.map(|(key, value)| Record { key, value }), Stamp::NONE, 5);
        let owned = records.map(|(key, value)| (key.map(<[u8]>::to_vec), value.to_vec()));
        assert_eq!(decode(&encoded), Ok(owned.to_vec()));
    }

    #[test]
    fn an_unacceptable_batch_is_well_formed_but_for_its_checksum() {
        let bytes = unacceptable();
        let stated = u32::from_be_bytes(*bytes[CRC_AT..].first_chunk().expect("4 bytes"));
        assert_ne!(stated, checksum(&bytes[CRC_FROM..]));
        assert_eq!(
            i32::from_be_bytes(*bytes[8..].first_chunk().expect("4 bytes")) as usize,
            bytes.len() - 12
        );
    }
}
