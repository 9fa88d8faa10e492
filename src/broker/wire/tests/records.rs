//! Decoding a partition's part of a fetch response.

use proptest::prelude::*;

use super::*;
use crate::broker::record::Record;
use crate::broker::wire::batch::{Stamp, encode};

const ALL: Limit = Limit { values: usize::MAX, held: usize::MAX, unpacked: usize::MAX };

fn seal(batch: &mut [u8]) {
    let crc = checksum(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A batch as a broker stores it from `base` on, with `attributes`, of `producer`.
fn stored(base: i64, values: &[&str], attributes: i16, producer: i64) -> Vec<u8> {
    let records: Vec<Record<'_>> =
        values.iter().map(|value| Record::new(Some(b"key"), value.as_bytes())).collect();
    let mut batch = encode(&records, Stamp { producer_id: producer, epoch: 0, sequence: 0 }, 5);
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    seal(&mut batch);
    batch
}

fn read(bytes: &[u8], offset: i64, aborted: &[Aborted]) -> (Vec<(i64, String)>, i64) {
    let page = page(bytes, offset, 99, aborted.to_vec(), ALL).expect("readable");
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("UTF-8");
    (page.records().map(|(offset, value)| (offset, text(value))).collect(), page.next_offset)
}

fn at(records: &[(i64, &str)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[test]
fn reading_begins_anywhere_and_ends_ahead_of_what_is_cut_off() {
    let log = [stored(4, &["a", "b"], 0, -1), stored(6, &["c", ""], 0, -1)].concat();
    assert_eq!(read(&log, 4, &[]), (at(&[(4, "a"), (5, "b"), (6, "c"), (7, "")]), 8));
    assert_eq!(read(&log, 5, &[]), (at(&[(5, "b"), (6, "c"), (7, "")]), 8));
    assert_eq!(read(&log[..log.len() - 1], 5, &[]), (at(&[(5, "b")]), 6));
    assert_eq!(read(&[], 5, &[]), (vec![], 5));
}

#[test]
fn the_next_offset_is_the_headers_also_when_compaction_took_the_last_records() {
    let mut batch = stored(10, &["a", "b"], 0, -1);
    batch[23..27].copy_from_slice(&9i32.to_be_bytes());
    seal(&mut batch);
    assert_eq!(read(&batch, 10, &[]), (at(&[(10, "a"), (11, "b")]), 20));
    assert_eq!(read(&batch, 15, &[]), (vec![], 20));
}

#[test]
fn leader_epochs_are_the_batches() {
    let led = |epoch: i32, mut batch: Vec<u8>| {
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        batch
    };
    let log = [
        led(1, stored(0, &["a", "b"], 0, -1)),
        led(1, stored(2, &["c"], 0, -1)),
        led(4, stored(3, &["abort"], 0x30, 7)),
        led(6, stored(4, &["d", "e"], 0, -1)),
    ]
    .concat();
    let epochs =
        |offset: i64, limit: Limit| page(&log, offset, 9, vec![], limit).expect("readable").epochs().to_vec();
    assert_eq!(epochs(0, ALL), [(1, 3), (4, 4), (6, 6)]);
    assert_eq!(epochs(3, ALL), [(4, 4), (6, 6)]);
    assert_eq!(epochs(4, Limit { held: 1, ..ALL }), [(6, 5)], "in the middle of a batch");
}

#[test]
fn markers_and_what_was_rolled_back_are_stepped_over() {
    let log = [
        stored(0, &["plain"], 0, -1),
        stored(1, &["gone"], 0x10, 7),
        stored(2, &["kept"], 0x10, 8),
        stored(3, &["gone too"], 0x10, 7),
        stored(4, &["abort"], 0x30, 7),
        stored(5, &["again"], 0x10, 7),
        stored(6, &["commit"], 0x30, 7),
        stored(7, &["commit"], 0x30, 8),
    ]
    .concat();
    assert_eq!(read(&log, 0, &[(7, 1)]), (at(&[(0, "plain"), (2, "kept"), (5, "again")]), 8));
}

#[test]
fn a_page_ends_with_the_batch_that_fills_it() {
    let log =
        [stored(0, &["aaaa"], 0, -1), stored(1, &["bbbb"], 0, -1), stored(2, &["cccc"], 0, -1)].concat();
    let page = page(&log, 0, 3, vec![], Limit { values: 5, ..ALL }).expect("readable");
    assert_eq!((page.len(), page.next_offset), (2, 2));
}

#[test]
fn a_page_that_is_full_ends_in_the_middle_of_a_batch_and_goes_on_there() {
    let log = [stored(0, &["aaaa", "bbbb", "cccc"], 0, -1), stored(3, &["dddd"], 0, -1)].concat();
    let limit = |held: usize| Limit { held, ..ALL };
    let mut offset = 0;
    for expected in 1..=4 {
        let page = page(&log, offset, 4, vec![], limit(20)).expect("readable");
        assert_eq!((page.len(), page.next_offset), (1, expected));
        offset = page.next_offset;
    }
    let none = page(&log, 0, 4, vec![], limit(0)).expect("readable");
    assert_eq!((none.len(), none.next_offset), (0, 0));
}

#[test]
fn times_are_the_brokers_or_the_senders_or_unknown() {
    let times = |attributes: i16, base_ms: i64, max_ms: i64| -> Vec<Option<i64>> {
        let mut batch = stored(0, &["a", "b"], attributes, -1);
        batch[27..35].copy_from_slice(&base_ms.to_be_bytes());
        batch[35..43].copy_from_slice(&max_ms.to_be_bytes());
        // The time delta of the first record, after its length and attributes.
        batch[HEADER_BYTES + 2] = 8;
        seal(&mut batch);
        let page = page(&batch, 0, 2, vec![], ALL).expect("readable");
        page.timed_records().map(|(time, ..)| time).collect()
    };
    assert_eq!(times(0, 1000, 1004), [Some(1004), Some(1000)]);
    assert_eq!(times(8, 1000, 5000), [Some(5000), Some(5000)]);
    assert_eq!(times(0, -1, -1), [None, None]);
    assert_eq!(times(8, -1, -1), [None, None]);
}

#[test]
fn a_damaged_batch_is_an_error_once_what_precedes_it_is_read() {
    let mut log = [stored(0, &["good"], 0, -1), stored(1, &["damaged"], 0, -1)].concat();
    let last = log.len() - 1;
    log[last] ^= 1;
    assert_eq!(read(&log, 0, &[]), (at(&[(0, "good")]), 1));
    assert_eq!(page(&log, 1, 2, vec![], ALL).err(), Some(PageError::Damaged(1)));
}

#[test]
fn kinds_that_are_not_read_say_so() {
    let unknown = stored(3, &["x"], 5, -1);
    let Err(PageError::Unreadable(3, why)) = page(&unknown, 3, 4, vec![], ALL) else { panic!("unreadable") };
    assert!(why.contains("codec 5"), "{why}");
    let mut old = stored(3, &["x"], 0, -1);
    old[16] = 1;
    assert!(matches!(page(&old, 3, 4, vec![], ALL), Err(PageError::Unreadable(3, _))));
    for (at, bytes) in [(57, i32::MAX), (57, 2)] {
        let mut absurd = stored(3, &["x"], 0, -1);
        absurd[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
        seal(&mut absurd);
        assert!(
            matches!(page(&absurd, 3, 4, vec![], ALL), Err(PageError::Unreadable(3, _))),
            "more records than there are"
        );
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(values in prop::collection::vec(".{0,300}", 1..50), base in 0i64..1 << 40) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let (records, next) = read(&stored(base, &values, 0, -1), base, &[]);
        let read: Vec<&str> = records.iter().map(|(_, value)| value.as_str()).collect();
        prop_assert_eq!(&read, &values);
        prop_assert_eq!(next, base + values.len() as i64);
        prop_assert!(records.iter().zip(base..).all(|((offset, _), expected)| *offset == expected));
    }

    #[test]
    fn whatever_arrives_is_no_panic(
        flips in prop::collection::vec((0usize..400, any::<u8>()), 0..8),
        cut in 0usize..400,
        sealed in any::<bool>(),
    ) {
        let mut log = [stored(0, &["one", "two"], 0, -1), stored(2, &["three"], 0, -1)].concat();
        for (at, byte) in flips {
            let at = at % log.len();
            log[at] = byte;
        }
        if sealed {
            // So that the bytes after the checksum are decoded.
            let end = 12 + 49 + 20;
            seal(&mut log[..end]);
        }
        log.truncate(cut);
        let _ = page(&log, 0, 9, vec![(0, 0)], ALL);
    }
}
