//! The entry point of `fuzz/` into the decoders; compiled only there (`--cfg fuzzing`).

use crate::broker::page::Page;
use crate::broker::protocol::metadata::read_metadata;
use crate::broker::protocol::{Metadata, PerPartition, Reader, fetched, next_batch};
use crate::broker::record::Position;
use crate::broker::wire::answer::{MAX_HELD_BYTES, pages};
use crate::broker::wire::batch::{CRC_FROM, checksum};
use crate::broker::wire::codec::decompress;
use crate::broker::wire::records::{Limit, PageError, page};

/// Small, so that the fuzzer finds inputs that exceed it.
const LIMIT_BYTES: usize = 1 << 16;
const UNPACKED_BYTES: usize = 30 << 20;

/// Decodes `bytes` in the way that their first byte selects, and panics if an invariant does not hold.
pub fn fuzzed(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => check_answer(rest),
        codec @ 1..=4 => check_codec(codec, rest),
        7 => check_metadata(rest),
        _ => check_stored(rest),
    }
}

fn check_answer(bytes: &[u8]) {
    let asked = [0, 1, 2].map(|partition| Position { partition, offset: 5 });
    for version in [4, 10] {
        let mut r = Reader::new(bytes);
        let limits = (LIMIT_BYTES, UNPACKED_BYTES);
        let opened = fetched::open(&mut r, version);
        if let Ok(pages) = opened.and_then(|()| pages(&mut r, "t", &asked, limits, version)) {
            check_pages(&pages, bytes.len());
        }
    }
}

fn check_pages(pages: &PerPartition<Result<Page, PageError>>, bytes: usize) {
    let pages: Vec<&Page> = pages.iter().filter_map(|(_, page)| page.as_ref().ok()?.as_ref().ok()).collect();
    pages.iter().for_each(|page| check_page(page, 5));
    let held: usize = pages.iter().map(|page| page.held_bytes()).sum();
    assert!(held <= MAX_HELD_BYTES + bytes.max(UNPACKED_BYTES), "{held}");
}

fn check_metadata(bytes: &[u8]) {
    for version in [4, 7, 8] {
        if let Ok(Ok(metadata)) = read_metadata(&mut Reader::new(bytes), version) {
            check_leaders(&metadata);
        }
    }
}

fn check_leaders(metadata: &Metadata) {
    for (partition, id) in metadata.partitions.iter().zip(0..) {
        assert_eq!(metadata.leader(id), partition.leader.as_deref());
        assert!(metadata.leader(id).is_none_or(|host| metadata.brokers.iter().any(|broker| broker == host)));
    }
}

fn check_codec(codec: u8, bytes: &[u8]) {
    let length = decompress(codec, bytes, LIMIT_BYTES).map_or(0, |decompressed| decompressed.len());
    assert!(length <= LIMIT_BYTES, "{length}");
}

/// Corrects the checksums first; otherwise hardly any input would get past them.
fn check_stored(bytes: &[u8]) {
    let Some((&offset, rest)) = bytes.split_first() else { return };
    let mut sealed = rest.to_vec();
    let mut at = 0;
    loop {
        let mut ahead = &sealed[at..];
        let Ok(Some((header, batch))) = next_batch(&mut ahead) else { break };
        if header.is_current {
            let crc = checksum(&batch[CRC_FROM..]);
            sealed[at + CRC_FROM - 4..at + CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        }
        at += header.bytes;
    }
    let (offset, aborted) = (i64::from(offset), vec![(7, 0), (i64::from(offset), 9)]);
    let unpacked = UNPACKED_BYTES;
    for limit in [
        Limit { values: LIMIT_BYTES, held: MAX_HELD_BYTES, unpacked },
        Limit { values: 64, held: 64, unpacked },
    ] {
        if let Ok(page) = page(&sealed, offset, 1 << 20, aborted.clone(), limit) {
            check_page(&page, offset);
        }
    }
}

/// Checks that offsets increase from `offset` on and that reading continues after them.
fn check_page(page: &Page, offset: i64) {
    assert!(page.next_offset >= offset, "{} after {offset}", page.next_offset);
    let mut next = offset;
    for (time, at, _) in page.timed_records() {
        assert!(at >= next && time.is_none_or(|time| time >= 0), "{at} {time:?} after {next}");
        next = at + 1;
    }
    assert!(page.next_offset >= next, "{} after {next}", page.next_offset);
}
