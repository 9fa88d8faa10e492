//! Decodes a partition's part of a fetch response into a page. Does no I/O.
//!
//! Unlike the crates, it leaves out a batch that is incomplete, continues after a batch by its header
//! whatever compaction left of its records, and skips markers and aborted transactions.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::broker::page::Page;
use crate::broker::protocol::frame::{Malformed, Reader};
use crate::broker::protocol::stored::{BatchHeader, HEADER_BYTES, next_batch};
use crate::broker::wire::batch::{CRC_FROM, checksum};
use crate::broker::wire::codec::{self, Undecodable, decompress};

/// Limits on how much is read from a response.
#[derive(Clone, Copy)]
pub struct Limit {
    /// Bytes of values; a page ends with the batch that reaches this limit.
    pub values: usize,
    /// Bytes in memory; a page ends with the record that reaches this limit, and stays empty if there is no
    /// room. The limit also applies to what is decompressed for the page, so that small batches cannot take
    /// long either.
    pub held: usize,
    /// Maximum bytes of one batch after decompression.
    pub unpacked: usize,
}

/// Why a partition's data cannot be read further.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Possibly damaged in transit, so a retry may help.
    Damaged(i64),
    /// From this offset on, the data is of a kind that this client does not read.
    Unreadable(i64, String),
}

/// An aborted transaction: its producer id and its first offset.
pub type Aborted = (i64, i64);

/// Reads the records of `stored` from `offset` on, up to `limit`.
///
/// # Errors
/// Fails if nothing could be read. Records before a problem are returned, and the next fetch meets the
/// problem again.
pub fn page(
    stored: &[u8],
    offset: i64,
    high_watermark: i64,
    aborted: Vec<Aborted>,
    limit: Limit,
) -> Result<Page, Trouble> {
    let mut page = Page::new(offset, high_watermark);
    let mut rolled_back = RolledBack::new(aborted);
    match read_batches(stored, &mut page, &mut rolled_back, limit) {
        Err(trouble) if page.next_offset == offset => Err(trouble),
        _ => Ok(page),
    }
}

fn read_batches(
    mut stored: &[u8],
    page: &mut Page,
    rolled_back: &mut RolledBack,
    limit: Limit,
) -> Result<(), Trouble> {
    let mut decompressed = 0;
    while page.value_bytes() < limit.values && page.held_bytes().max(decompressed) < limit.held {
        let at = page.next_offset;
        let Some((header, batch)) = next_batch(&mut stored).map_err(|Malformed| Trouble::Damaged(at))? else {
            break;
        };
        if header.last < at {
            continue;
        }
        if !header.is_current {
            return Err(Trouble::Unreadable(at, "in the format from before Kafka 0.11".into()));
        }
        if checksum(&batch[CRC_FROM..]) != header.crc {
            return Err(Trouble::Damaged(at));
        }
        if !rolled_back.contains(&header) && !header.is_control {
            let records = &batch[HEADER_BYTES..];
            // Reserves room for the rest of the response at once, instead of copying at each growth.
            page.reserve(records.len() + stored.len());
            let all_read = if header.codec == 0 {
                read_records(records, &header, page, limit.held)
            } else {
                let plain = decompress(header.codec, records, limit.unpacked)
                    .map_err(|Undecodable(why)| Trouble::Unreadable(at, why))?;
                decompressed += codec::cost(header.codec, records, plain.len());
                read_records(&plain, &header, page, limit.held)
            };
            if !all_read.map_err(|Malformed| Trouble::Unreadable(at, "in a malformed batch".into()))? {
                page.mark_epoch(header.epoch, page.next_offset);
                break;
            }
        }
        page.next_offset = header.last + 1;
        page.mark_epoch(header.epoch, page.next_offset);
    }
    Ok(())
}

/// Returns false if the page is full before the batch ends; the next page begins in the middle of it.
fn read_records(
    records: &[u8],
    header: &BatchHeader,
    page: &mut Page,
    held_max: usize,
) -> Result<bool, Malformed> {
    if i64::from(header.count) > header.last - header.base + 1 {
        return Err(Malformed);
    }
    let mut all = Reader::new(records);
    for left in (0..header.count).rev() {
        let length = usize::try_from(all.varint()?).map_err(|_| Malformed)?;
        let mut r = Reader::new(all.slice(length)?);
        let (_attributes, time_delta) = (r.i8()?, r.varint()?);
        let offset = header.base.checked_add(r.varint()?).ok_or(Malformed)?;
        let _key = nullable(&mut r)?;
        let value = nullable(&mut r)?;
        if !(header.base..=header.last).contains(&offset) {
            return Err(Malformed);
        }
        if offset >= page.next_offset {
            page.push(offset, time_of(header, time_delta), value);
            if page.held_bytes() >= held_max && left > 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The record's time in milliseconds since 1970; `None` if the sender gave none.
fn time_of(header: &BatchHeader, delta: i64) -> Option<i64> {
    let time = match header.append_time_ms {
        Some(time) => time,
        None if header.base_time_ms < 0 => return None,
        None => header.base_time_ms.wrapping_add(delta),
    };
    (time >= 0).then_some(time)
}

/// Reads bytes with their length in front; null reads as empty.
fn nullable<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    match r.varint()? {
        -1 => Ok(&[]),
        length => r.slice(usize::try_from(length).map_err(|_| Malformed)?),
    }
}

/// Tracks which batches belong to aborted transactions.
struct RolledBack {
    /// Transactions that begin later in the log, the next one last.
    ahead: Vec<Aborted>,
    /// Producers whose transaction has begun and whose marker has not come yet.
    open: HashSet<i64>,
}

impl RolledBack {
    fn new(mut ahead: Vec<Aborted>) -> Self {
        ahead.sort_unstable_by_key(|(_, first)| Reverse(*first));
        Self { ahead, open: HashSet::new() }
    }

    /// Must be called once for each batch, in order.
    fn contains(&mut self, batch: &BatchHeader) -> bool {
        while let Some((producer, _)) = self.ahead.pop_if(|(_, first)| *first <= batch.last) {
            self.open.insert(producer);
        }
        if batch.is_control {
            // A producer has one transaction at a time, so any of its markers ends that one.
            self.open.remove(&batch.producer_id);
            return false;
        }
        batch.is_transactional && self.open.contains(&batch.producer_id)
    }
}

#[cfg(test)]
mod tests {
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
            values.iter().map(|value| Record { key: Some(b"key"), value: value.as_bytes() }).collect();
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
        let epochs = |offset: i64, limit: Limit| {
            page(&log, offset, 9, vec![], limit).expect("readable").epochs().to_vec()
        };
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
        assert_eq!(page(&log, 1, 2, vec![], ALL).err(), Some(Trouble::Damaged(1)));
    }

    #[test]
    fn kinds_that_are_not_read_say_so() {
        let unknown = stored(3, &["x"], 5, -1);
        let Err(Trouble::Unreadable(3, why)) = page(&unknown, 3, 4, vec![], ALL) else {
            panic!("unreadable")
        };
        assert!(why.contains("codec 5"), "{why}");
        let mut old = stored(3, &["x"], 0, -1);
        old[16] = 1;
        assert!(matches!(page(&old, 3, 4, vec![], ALL), Err(Trouble::Unreadable(3, _))));
        for (at, bytes) in [(57, i32::MAX), (57, 2)] {
            let mut absurd = stored(3, &["x"], 0, -1);
            absurd[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
            seal(&mut absurd);
            assert!(
                matches!(page(&absurd, 3, 4, vec![], ALL), Err(Trouble::Unreadable(3, _))),
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
}
