//! Reads the headers of the batches stored at an offset, without their records.

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::control::{Call, READ_UNCOMMITTED, outcome_of, per_partition};
use crate::broker::protocol::fetch::{self, FetchLimits, Wanted};
use crate::broker::protocol::fetched::FetchedPart;
use crate::broker::protocol::frame::Malformed;
use crate::broker::protocol::oversize::Oversize;
use crate::broker::protocol::stored::{BatchHeader, next_batch};
use crate::broker::record::Position;

/// What a partition holds at an offset.
#[derive(Clone, Debug)]
pub struct Peek {
    pub high_watermark: i64,
    /// Headers of whole batches; the first one ends at or after the requested offset.
    pub headers: Vec<BatchHeader>,
    /// Set instead of `headers` if the batch at the offset is larger than may be read.
    pub oversize: Option<Oversize>,
}

/// Looks at `at` over `look` bytes and the rest of the first batch.
///
/// # Errors
/// Fails with `BrokerError::Retryable`, or with `BrokerError::Throttled` because a broker whose quota is
/// exceeded leaves the partition out. The inner error is the broker's code for this partition.
pub fn peek(on: &mut Call<'_>, at: Position, look: i32, limits: FetchLimits) -> Result<Result<Peek, Code>> {
    let topic = on.topic;
    let wanted = Wanted { partitions: &[(at, look)], max_bytes: look, isolation: READ_UNCOMMITTED };
    let peeked = fetch::fetch(on, &wanted, limits, |r, version| {
        let peeks = per_partition(r, topic, |r| {
            let FetchedPart { partition, code, high_watermark, stored, .. } = FetchedPart::read(r, version)?;
            let headers = headers(stored, at.offset)?;
            Ok((partition, code.check().map(|()| Peek { high_watermark, headers, oversize: None })))
        })?;
        Ok(outcome_of(&peeks, at.partition))
    })?;
    let too_large = |found| Ok(Peek { high_watermark: i64::MAX, headers: Vec::new(), oversize: Some(found) });
    let peeked = peeked.unwrap_or_else(too_large);
    if peeked.is_err() {
        on.connection.check_quota()?;
    }
    Ok(peeked)
}

/// Headers of the whole batches in `stored` that reach `offset`; an incomplete last batch is left out.
pub fn headers(mut stored: &[u8], offset: i64) -> Result<Vec<BatchHeader>, Malformed> {
    let mut headers = Vec::new();
    while let Some((header, _)) = next_batch(&mut stored)? {
        if header.last >= offset {
            headers.push(header);
        }
    }
    Ok(headers)
}
