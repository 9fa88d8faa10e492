//! Reads the answer to a fetch: which partitions, and the page of each. Pure.

use super::super::Position;
use super::super::code::Code;
use super::super::control::{PerPartition, per_partition};
use super::super::frame::{Malformed, Reader};
use super::records::{self, Limit, Trouble};
use crate::broker::Page;

/// Most bytes that all pages of an answer take in memory, besides the record that exceeds them. What small compressed
/// batches become has no other bound; partitions left empty by it are first in their turn.
pub(super) const MAX_HELD_BYTES: usize = 32 << 20;

/// The pages in a fetch answer of version 4 about `topic`, each of about `share` bytes of values; a batch may become
/// `unpacked` bytes.
///
/// # Errors
/// The answer as a whole makes no sense.
pub(super) fn pages(
    r: &mut Reader<'_>,
    topic: &str,
    asked: &[Position],
    (share, unpacked): (usize, usize),
) -> Result<PerPartition<Result<Page, Trouble>>, Malformed> {
    r.throttle()?;
    let mut open = asked.to_vec();
    let mut held = 0;
    per_partition(r, topic, |r| {
        let (partition, code, high_watermark) = (r.i32()?, Code(r.i16()?), r.i64()?);
        let _stable = r.i64()?;
        let aborted = r.array(|r| Ok((r.i64()?, r.i64()?)))?;
        let stored = r.bytes()?;
        // Each once: what is told twice would be taken apart twice.
        let position = open.iter().position(|at| at.partition == partition).ok_or(Malformed)?;
        let position = open.swap_remove(position);
        let limit = Limit { values: share, held: MAX_HELD_BYTES.saturating_sub(held), unpacked };
        let page =
            code.check().map(|()| records::page(stored, position.offset, high_watermark, aborted, limit));
        held += page.as_ref().map_or(0, |page| page.as_ref().map_or(0, Page::held_bytes));
        Ok((partition, page))
    })
}
