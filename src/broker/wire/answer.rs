//! Decodes a fetch response into a page for each partition. Does no I/O.

use crate::broker::page::Page;
use crate::broker::protocol::{FetchedPart, Malformed, PerPartition, Reader, per_partition};
use crate::broker::record::Position;
use crate::broker::wire::records::{self, Limit, PageError};

/// Maximum bytes that all pages of a response take in memory, not counting the record that exceeds them.
/// Nothing else bounds what small compressed batches expand to. Partitions left empty by this limit go first
/// in their next turn.
pub const MAX_HELD_BYTES: usize = 32 << 20;

/// Reads the topics of a fetch response of `version` about `topic` into pages, each of about `share` bytes of values; a
/// batch may decompress to `unpacked` bytes.
///
/// # Errors
/// Fails if the response as a whole is malformed.
pub fn pages(
    r: &mut Reader<'_>,
    topic: &str,
    asked: &[Position],
    (share, unpacked): (usize, usize),
    version: i16,
) -> Result<PerPartition<Result<Page, PageError>>, Malformed> {
    let mut open = asked.to_vec();
    let mut held = 0;
    per_partition(r, topic, |r| {
        let FetchedPart { partition, code, high_watermark, aborted, stored } = FetchedPart::read(r, version)?;
        // Each partition once, because a repeated one would be decoded twice.
        let position = open.iter().position(|at| at.partition == partition).ok_or(Malformed)?;
        let position = open.swap_remove(position);
        let limit = Limit { values: share, held: MAX_HELD_BYTES.saturating_sub(held), unpacked };
        let page =
            code.check().map(|()| records::page(stored, position.offset, high_watermark, aborted, limit));
        held += page.as_ref().map_or(0, |page| page.as_ref().map_or(0, Page::held_bytes));
        Ok((partition, page))
    })
}
