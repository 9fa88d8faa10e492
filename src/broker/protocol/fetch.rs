//! Fetch requests in the version that both clients use, and the limits that hold for every fetch.

use std::time::Duration;

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::Call;
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::broker::protocol::oversize::{self, Oversize};
use crate::broker::record::Position;

pub const FETCH: Api = Api { name: "Fetch", key: 1, version: 4 };

/// So small that the response holds one batch, which uses less of a quota.
pub const ONE_BATCH: i32 = 1;

/// Maximum bytes of all partitions in one fetch; more is no faster. The consumer holds up to five times as
/// much: the response, its copy, and two more fetches on their way to the file, one of them also as lines. A
/// single batch may be larger, up to [`FetchLimits::max_bytes`].
pub const FETCH_BYTES: usize = 8 << 20;

/// Bounds of one partition's share. The lower one exceeds the largest batch that brokers accept by default.
const FETCH_BYTES_PER_PARTITION: (usize, usize) = (1280 << 10, 4 << 20);

/// Room in a response on top of one batch: its header, and each partition's list of aborted transactions.
const ANSWER_OVERHEAD: usize = 1 << 20;

/// Maximum bytes per partition in a fetch of `partitions` partitions.
pub fn fetch_share(partitions: usize) -> usize {
    let (min, max) = FETCH_BYTES_PER_PARTITION;
    (FETCH_BYTES / partitions.max(1)).clamp(min, max)
}

/// Limits of one fetch.
#[derive(Clone, Copy)]
pub struct FetchLimits {
    /// How long the broker waits if there is nothing to read.
    pub wait: Duration,
    /// Largest batch to read, in bytes, both as stored and decompressed.
    pub max_bytes: usize,
    /// Nothing after the batch of the position is wanted.
    pub one_batch: bool,
}

impl FetchLimits {
    /// Longest response that is read in full. A broker always sends the first batch whole (KIP-74); it sends
    /// more than one only within the requested size.
    pub fn answer_bytes(&self) -> usize {
        self.max_bytes.max(2 * FETCH_BYTES) + ANSWER_OVERHEAD
    }
}

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
    /// Reads one partition of a response.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (partition, code, high_watermark) = (r.i32()?, Code(r.i16()?), r.i64()?);
        let _stable = r.i64()?;
        let aborted = r.array(|r| Ok((r.i64()?, r.i64()?)))?;
        Ok(Self { partition, code, high_watermark, aborted, stored: r.bytes()? })
    }
}

/// A request for `wanted` (each with its maximum bytes), for at most `max_bytes` in total. The broker waits up
/// to `wait` if there is nothing.
pub fn request(
    topic: &str,
    wanted: &[(Position, i32)],
    (max_bytes, isolation): (i32, i8),
    wait: Duration,
) -> Writer<'static> {
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    Writer::default().i32(-1).i32(wait_ms).i32(1).i32(max_bytes).i8(isolation).array(&[topic], |w, topic| {
        w.str(topic).array(wanted, |w, (at, bytes)| w.i32(at.partition).i64(at.offset).i32(*bytes))
    })
}

/// Sends `request` and returns what `read` makes of the response, or the batch that makes it too large.
///
/// # Errors
/// As for [`Call::ask`].
pub fn fetch<T>(
    on: &mut Call<'_>,
    request: Writer<'_>,
    limits: FetchLimits,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Result<T, Oversize>> {
    let topic = on.topic;
    on.connection.call_up_to(FETCH, request, (limits.answer_bytes(), on.deadline), |r, is_cut| {
        if is_cut { oversize::find(r, topic).map(Err) } else { read(r).map(Ok) }
    })
}

/// Turns the `code` with which a broker refused the fetch described by `at` into an error for the caller.
pub fn fetch_refusal(at: String, code: Code) -> BrokerError {
    let text = format!("{at}: {code}");
    if code == Code::OFFSET_OUT_OF_RANGE {
        BrokerError::OffsetOutOfRange(text)
    } else {
        BrokerError::Retryable(text)
    }
}
