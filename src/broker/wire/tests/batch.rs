//! Batches as they are encoded, plain and compressed, and read back.

use super::*;
use crate::broker::page::Page;
use crate::broker::wire::compress::tests::{ALL, compressor};
use crate::broker::wire::records::{self, Limit};
use crate::config::Compression;

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
    let records: [(Option<&[u8]>, &[u8]); 3] = [(None, b"a"), (Some(b""), b""), (Some(b"key"), &[7; 300])];
    let encoded = encode(&records.map(|(key, value)| Record { key, value }), Stamp::NONE, 5);
    let owned = records.map(|(key, value)| (key.map(<[u8]>::to_vec), value.to_vec()));
    assert_eq!(decode(&encoded), Ok(owned.to_vec()));
}

#[test]
fn an_unacceptable_batch_is_well_formed_but_for_its_checksum() {
    let bytes = unacceptable();
    let stated = u32::from_be_bytes(*bytes[CRC_AT..].first_chunk().expect("4 bytes"));
    assert_ne!(stated, checksum(&bytes[CRC_FROM..]));
    assert_eq!(i32::from_be_bytes(*bytes[8..].first_chunk().expect("4 bytes")) as usize, bytes.len() - 12);
}

fn owned(records: &[Record<'_>]) -> Vec<OwnedRecord> {
    records.iter().map(|record| (record.key.map(<[u8]>::to_vec), record.value.to_vec())).collect()
}

/// What a consumer reads of a batch.
fn read(batch: &[u8]) -> Page {
    let limit = Limit { values: usize::MAX, held: usize::MAX, unpacked: 1 << 20 };
    records::page(batch, 0, 100, vec![], limit).expect("readable")
}

#[test]
fn a_compressed_batch_is_smaller_and_has_the_same_records() {
    let value = b"{\"event\": \"purchase\", \"user_id\": 203}";
    let records = vec![Record { key: Some(b"key"), value }; 50];
    let plain = encode(&records, Stamp::NONE, 5);
    for compression in ALL {
        let batch = encode_compressed(&records, Stamp::NONE, 5, &mut compressor(compression));
        assert!(3 * batch.len() < plain.len(), "{compression}: {}", batch.len());
        assert_eq!(decode(&batch), Ok(owned(&records)), "{compression}");
        assert!(is_of(&batch, &records) && !is_of(&batch, &records[1..]), "{compression}");
        let read = read(&batch);
        assert_eq!((read.next_offset, read.records().count()), (50, 50), "{compression}");
        assert!(read.timed_records().all(|(time, _, stored)| time == Some(5) && stored == value));
        let (header, _) = next_batch(&mut &batch[..]).expect("sound").expect("whole");
        assert_eq!((header.codec, header.count), (compressor(compression).codec(), 50));
    }
}

#[test]
fn a_batch_that_would_not_get_smaller_is_the_plain_one() {
    let records = [Record { key: None, value: b"x" }];
    let plain = encode(&records, Stamp::NONE, 5);
    assert_eq!(encode_compressed(&records, Stamp::NONE, 5, &mut compressor(Compression::Zstd)), plain);
    assert!(is_of(&plain, &records) && !is_of(&plain, &[Record { key: None, value: b"y" }]));
}
