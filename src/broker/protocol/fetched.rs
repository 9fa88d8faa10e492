//! Fetch responses, field by field, in each version that is asked for. Does no I/O.

use crate::broker::protocol::code::Code;
use crate::broker::protocol::frame::{Malformed, Reader};

/// The first version with fetch sessions (KIP-227), which we do not use.
pub const SESSIONS: i16 = 7;
/// The first version with the leader's epoch (KIP-320), which `epochs` checks instead.
pub const LEADER_EPOCH: i16 = 9;
/// The first version with the first offset of the log.
pub const LOG_START: i16 = 5;

/// One partition in a response.
pub struct FetchedPart<'a> {
    pub partition: i32,
    pub code: Code,
    pub high_watermark: i64,
    /// Producer id and first offset of each aborted transaction.
    pub aborted: Vec<(i64, i64)>,
    /// Batches as stored; the last one may be incomplete.
    pub stored: &'a [u8],
}

impl<'a> FetchedPart<'a> {
    /// Reads one partition of a response of `version`.
    pub fn read(r: &mut Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let head = Self::head(r, version)?;
        Ok(Self { stored: r.bytes()?, ..head })
    }

    /// Reads the fields before the batches.
    pub fn head(r: &mut Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let (partition, code, high_watermark) = (r.i32()?, Code(r.i16()?), r.i64()?);
        let _stable = r.i64()?;
        if version >= LOG_START {
            let _log_start = r.i64()?;
        }
        let aborted = r.array(|r| Ok((r.i64()?, r.i64()?)))?;
        Ok(Self { partition, code, high_watermark, aborted, stored: &[] })
    }
}

/// Reads the fields before the topics of a response of `version`.
pub fn open(r: &mut Reader<'_>, version: i16) -> Result<(), Malformed> {
    r.throttle()?;
    if version >= SESSIONS {
        // An error of the whole request is also that of each of its partitions.
        let (_code, _session) = (r.i16()?, r.i32()?);
    }
    Ok(())
}
