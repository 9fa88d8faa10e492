//! Decodes a partition's part of a fetch response into a page. Does no I/O.
//!
//! Unlike the crates, it leaves out a batch that is incomplete, continues after a batch by its header
//! whatever compaction left of its records, and skips markers and aborted transactions.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::broker::page::Page;
use crate::broker::protocol::{BatchHeader, HEADER_BYTES, Malformed, Reader, next_batch};
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
pub enum PageError {
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
) -> Result<Page, PageError> {
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
) -> Result<(), PageError> {
    let mut decompressed = 0;
    while page.value_bytes() < limit.values && page.held_bytes().max(decompressed) < limit.held {
        let at = page.next_offset;
        let Some((header, batch)) = next_batch(&mut stored).map_err(|Malformed| PageError::Damaged(at))?
        else {
            break;
        };
        if header.last < at {
            continue;
        }
        if !header.is_current {
            return Err(PageError::Unreadable(at, "in the format from before Kafka 0.11".into()));
        }
        if checksum(&batch[CRC_FROM..]) != header.crc {
            return Err(PageError::Damaged(at));
        }
        if !rolled_back.contains(&header) && !header.is_control {
            let records = &batch[HEADER_BYTES..];
            // Reserves room for the rest of the response at once, instead of copying at each growth.
            page.reserve(records.len() + stored.len());
            let all_read = if header.codec == 0 {
                read_records(records, &header, page, limit.held)
            } else {
                let plain = decompress(header.codec, records, limit.unpacked)
                    .map_err(|Undecodable(why)| PageError::Unreadable(at, why))?;
                decompressed += codec::cost(header.codec, records, plain.len());
                read_records(&plain, &header, page, limit.held)
            };
            if !all_read.map_err(|Malformed| PageError::Unreadable(at, "in a malformed batch".into()))? {
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
#[path = "tests/records.rs"]
mod tests;
