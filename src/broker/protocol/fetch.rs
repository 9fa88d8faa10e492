//! Fetch requests in the versions that both clients use, and the limits that hold for every fetch.

use std::time::Duration;

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::{Call, Versions};
use crate::broker::protocol::fetched::{self, LEADER_EPOCH, LOG_START, SESSIONS};
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::broker::protocol::oversize::{self, Oversize};
use crate::broker::record::Position;

/// From Kafka 2.1 on. For a topic with `compression.type=zstd`, brokers refuse every older version (KIP-110).
const FETCH: Api = Api { name: "Fetch", key: 1, version: 10 };

/// For older brokers.
const FETCH_BEFORE_ZSTD: Api = Api { name: "Fetch", key: 1, version: 4 };

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

/// The newest version that the broker and we support.
fn api(versions: &Versions) -> Api {
    if versions.serves(FETCH.key, FETCH.version) { FETCH } else { FETCH_BEFORE_ZSTD }
}

/// Partitions to read from, each with its maximum bytes, and the maximum bytes of all of them.
pub struct Wanted<'a> {
    pub partitions: &'a [(Position, i32)],
    pub max_bytes: i32,
    pub isolation: i8,
}

fn request(topic: &str, wanted: &Wanted<'_>, wait: Duration, version: i16) -> Writer<'static> {
    const CONSUMER: i32 = -1;
    const NONE: i32 = -1;
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let mut w =
        Writer::default().i32(CONSUMER).i32(wait_ms).i32(1).i32(wanted.max_bytes).i8(wanted.isolation);
    if version >= SESSIONS {
        let (session, epoch) = (0, NONE);
        w = w.i32(session).i32(epoch);
    }
    w = w.array(&[topic], |w, topic| {
        w.str(topic).array(wanted.partitions, |mut w, (at, bytes)| {
            w = w.i32(at.partition);
            if version >= LEADER_EPOCH {
                w = w.i32(NONE);
            }
            w = w.i64(at.offset);
            if version >= LOG_START {
                // Only followers have a log of their own.
                w = w.i64(-1);
            }
            w.i32(*bytes)
        })
    });
    let no_longer_wanted: [&str; 0] = [];
    if version >= SESSIONS { w.array(&no_longer_wanted, |w, topic| w.str(topic)) } else { w }
}

/// Asks for `wanted` and returns what `read` makes of the response, behind its head, or the batch that makes it too
/// large. The broker waits up to `limits.wait` if there is nothing.
///
/// # Errors
/// As for [`Call::ask`].
pub fn fetch<T>(
    on: &mut Call<'_>,
    wanted: &Wanted<'_>,
    limits: FetchLimits,
    read: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, Malformed>,
) -> Result<Result<T, Oversize>> {
    let (topic, api) = (on.topic, api(on.versions));
    let request = request(topic, wanted, limits.wait, api.version);
    on.connection.call_up_to(api, request, (limits.answer_bytes(), on.deadline), |r, is_cut| {
        fetched::open(r, api.version)?;
        if is_cut { oversize::find(r, topic, api.version).map(Err) } else { read(r, api.version).map(Ok) }
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
