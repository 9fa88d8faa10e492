//! Inspects the batch headers stored at an offset, for when the kafka crate reads nothing or too little.
//!
//! The crate drops plain records ahead of a compressed batch, cannot name a codec that it does not know, and
//! shows neither control markers nor the gaps left by compaction. The headers show which of these it is.

use crate::broker::client::Reach;
use crate::broker::error::BrokerError;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::{Api, Connection};
use crate::broker::protocol::control::{outcome_of, per_partition};
use crate::broker::protocol::frame::{Malformed, Writer};
use crate::broker::protocol::stored::{BatchHeader, next_batch};
use crate::broker::read::oversize::{self, Oversize};

pub const FETCH: Api = Api { name: "Fetch", key: 1, version: 4 };

/// Bytes that a peek covers; the broker adds the rest of the first batch.
pub const PEEK_BYTES: i32 = 256 << 10;

/// So small that the response holds one batch, which uses less of a quota.
pub const ONE_BATCH: i32 = 1;

/// What a partition holds at an offset.
#[derive(Clone, Debug)]
pub struct Peek {
    pub high_watermark: i64,
    /// Headers of whole batches; the first one ends at or after the requested offset.
    pub headers: Vec<BatchHeader>,
    /// Set instead of `headers` if the batch at the offset is larger than may be read.
    pub oversize: Option<Oversize>,
}

/// How to continue from an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is stored there yet.
    Wait,
    /// There are no records before this offset.
    Skip(i64),
    /// Reading exactly `bytes` bytes returns only one kind of batch. The first batch goes from `first` to
    /// `last` and holds records.
    Read { bytes: usize, first: i64, last: i64 },
    /// Compressed with a codec that the crate does not read.
    Unreadable(&'static str),
}

/// Looks at `partition` from `offset` on, over `look` bytes and the rest of the first batch.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`], or with [`BrokerError::Throttled`] because a broker whose quota is
/// exceeded leaves the partition out. The inner error is the broker's code for this partition.
pub fn peek(
    on: &mut Connection,
    topic: &str,
    (partition, offset): (i32, i64),
    look: i32,
    reach: Reach,
) -> Result<Result<Peek, Code>, BrokerError> {
    let wait_ms = i32::try_from(reach.wait.as_millis()).unwrap_or(i32::MAX);
    let body = Writer::default().i32(-1).i32(wait_ms).i32(1).i32(look).i8(0).array(&[topic], |w, t| {
        w.str(t).array(&[partition], |w, partition| w.i32(*partition).i64(offset).i32(look))
    });
    let peeked = on.call_up_to(FETCH, body, (reach.answer_bytes(), reach.deadline), |r, is_cut| {
        if is_cut {
            let found = oversize::find(r, topic)?;
            return Ok(Ok(Peek { high_watermark: i64::MAX, headers: Vec::new(), oversize: Some(found) }));
        }
        r.throttle()?;
        let peeks = per_partition(r, topic, |r| {
            let (partition, code, high_watermark) = (r.i32()?, Code(r.i16()?), r.i64()?);
            let _stable = r.i64()?;
            let _aborted = r.array(|r| Ok((r.i64()?, r.i64()?)))?;
            let headers = headers(r.bytes()?, offset)?;
            Ok((partition, code.check().map(|()| Peek { high_watermark, headers, oversize: None })))
        })?;
        Ok(outcome_of(&peeks, partition))
    })?;
    if peeked.is_err() {
        on.check_quota()?;
    }
    Ok(peeked)
}

/// Headers of the whole batches in `stored` that reach `offset`; an incomplete last batch is left out.
fn headers(mut stored: &[u8], offset: i64) -> Result<Vec<BatchHeader>, Malformed> {
    let mut headers = Vec::new();
    while let Some((header, _)) = next_batch(&mut stored)? {
        if header.last >= offset {
            headers.push(header);
        }
    }
    Ok(headers)
}

/// True for a transaction marker or a batch emptied by compaction: neither holds records.
fn is_empty(header: &BatchHeader) -> bool {
    header.is_control || header.count == 0
}

/// How the crate can continue from the first of `headers`.
pub fn next(headers: &[BatchHeader]) -> Next {
    let Some(first) = headers.first() else { return Next::Wait };
    if is_empty(first) {
        let empty = headers.iter().take_while(|header| is_empty(header));
        return Next::Skip(empty.last().map_or(first.last, |header| header.last) + 1);
    }
    let (base, last) = (first.base, first.last);
    match first.codec {
        0 => {
            let plain = headers.iter().take_while(|header| header.codec == 0);
            Next::Read { bytes: plain.map(|header| header.bytes).sum(), first: base, last }
        }
        // The crate reads one compressed batch and drops what follows it.
        1 | 2 => Next::Read { bytes: first.bytes, first: base, last },
        3 => Next::Unreadable("lz4"),
        4 => Next::Unreadable("zstd"),
        _ => Next::Unreadable("an unknown codec"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::protocol::stored::tests::batch;

    fn kinds(batches: &[Vec<u8>], offset: i64) -> Next {
        next(&headers(&batches.concat(), offset).expect("well formed"))
    }

    #[test]
    fn plain_batches_are_read_up_to_the_first_compressed_one() {
        let log = [batch(0, 5, 0, 10), batch(5, 5, 0, 20), batch(10, 5, 1, 30)];
        assert_eq!(kinds(&log, 0), Next::Read { bytes: 61 + 10 + 61 + 20, first: 0, last: 4 });
        assert_eq!(kinds(&log, 7), Next::Read { bytes: 61 + 20, first: 5, last: 9 });
        assert_eq!(kinds(&log, 10), Next::Read { bytes: 61 + 30, first: 10, last: 14 });
        assert_eq!(kinds(&log, 15), Next::Wait);
    }

    #[test]
    fn markers_and_emptied_batches_are_stepped_over() {
        let log = [batch(0, 1, 0x20, 4), batch(1, 0, 0, 0), batch(2, 1, 0, 4)];
        assert_eq!(kinds(&log, 0), Next::Skip(2));
        assert_eq!(kinds(&log, 2), Next::Read { bytes: 65, first: 2, last: 2 });
    }

    #[test]
    fn foreign_codecs_have_names() {
        assert_eq!(kinds(&[batch(0, 1, 3, 4)], 0), Next::Unreadable("lz4"));
        assert_eq!(kinds(&[batch(0, 1, 4, 4)], 0), Next::Unreadable("zstd"));
    }
}
