//! Batches as they are encoded, plain and compressed, and read back.

use super::*;
use crate::broker::headers::Headers;
use crate::broker::page::Page;
use crate::broker::wire::compress::tests::{ALL, compressor};
use crate::broker::wire::records::{self, Limit};
use crate::config::Compression;

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(checksum(b"123456789"), 0xe306_9283);
}

#[test]
fn records_are_read_back_as_they_were() {
    let mut headers = Headers::default();
    headers.push("x-request-id", &[b'r'; 100]);
    headers.push("client", b"shop");
    let records = [
        Record::new(None, b"a"),
        Record { headers: headers.as_bytes(), ..Record::new(Some(b""), b"") },
        Record::new(Some(b"key"), &[7; 300]),
        Record { headers: headers.as_bytes(), ..Record::new(None, &[8; 300]) },
    ];
    let encoded = encode(&records, Stamp::NONE, 5);
    assert_eq!(decode(&encoded), Ok(owned(&records)));
    let page = read(&encoded);
    let values: Vec<&[u8]> = page.records().map(|(_, value)| value).collect();
    assert_eq!(values, records.map(|record| record.value), "headers do not disturb a consumer");
    assert!(is_of(&encoded, &records) && !is_of(&encoded, &records.map(|r| Record::new(r.key, r.value))));
    let bound: usize = records.iter().map(|record| record.bytes() + RECORD_OVERHEAD_BYTES).sum();
    assert!(encoded.len() <= HEADER_BYTES + bound, "what is reserved is enough");
}

#[test]
fn an_unacceptable_batch_is_well_formed_but_for_its_checksum() {
    let bytes = unacceptable();
    let stated = u32::from_be_bytes(*bytes[CRC_AT..].first_chunk().expect("4 bytes"));
    assert_ne!(stated, checksum(&bytes[CRC_FROM..]));
    assert_eq!(i32::from_be_bytes(*bytes[8..].first_chunk().expect("4 bytes")) as usize, bytes.len() - 12);
}

fn owned(records: &[Record<'_>]) -> Vec<OwnedRecord> {
    records.iter().map(OwnedRecord::of).collect()
}

/// What a consumer reads of a batch.
fn read(batch: &[u8]) -> Page {
    let limit = Limit { values: usize::MAX, held: usize::MAX, unpacked: 1 << 20 };
    records::page(batch, 0, 100, vec![], limit).expect("readable")
}

#[test]
fn a_compressed_batch_is_smaller_and_has_the_same_records() {
    let value = b"{\"event\": \"purchase\", \"user_id\": 203}";
    let records = vec![Record::new(Some(b"key"), value); 50];
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
    let records = [Record::new(None, b"x")];
    let plain = encode(&records, Stamp::NONE, 5);
    assert_eq!(encode_compressed(&records, Stamp::NONE, 5, &mut compressor(Compression::Zstd)), plain);
    assert!(is_of(&plain, &records) && !is_of(&plain, &[Record::new(None, b"y")]));
}
