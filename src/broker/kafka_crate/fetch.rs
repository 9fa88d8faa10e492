//! Reads with the crate: all partitions together if that works, else one by one by their batch headers.
//!
//! The crate silently drops plain records ahead of a compressed batch, and one batch that it cannot decode
//! spoils the response for every partition. Both show up as a gap, as nothing, or as an undecodable response.
//!
//! Longer than most files: each way to read falls back to the next one, and all share the session's state.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka::Error;
use kafka::client::FetchPartition;
use kafka::client::fetch::{Partition, Response};
use kafka::error::KafkaCode;

use crate::broker::error::{BrokerError, Result};
use crate::broker::kafka_crate::next::{Next, next};
use crate::broker::kafka_crate::session::{Session, code_of};
use crate::broker::page::Page;
use crate::broker::protocol::{
    Call, Code, FETCH_BYTES, FetchLimits, FetchedPart, ONE_BATCH, Peek, READ_UNCOMMITTED, Wanted, fetch,
    outcome_of, peek, per_partition, transfer_time,
};
use crate::broker::record::{Fetched, Position};

/// Number of fetches in which a partition is read by its batch headers, after the crate read nothing or too
/// little.
const EXACT_FETCHES: u32 = 16;

/// Bytes that a peek covers; the broker adds the rest of the first batch.
const PEEK_BYTES: i32 = 256 << 10;

/// When to fetch again if a quota is no longer exceeded by the time it is queried.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// First reduction of the fetch size after a quota was exceeded, in powers of two.
const FIRST_SHIFT: u32 = 4;
/// Largest reduction, in powers of two.
const MAX_SHIFT: u32 = 6;
/// Minimum bytes per partition after a reduction.
const MIN_SHARE: usize = 16 << 10;
/// Number of fetches within the quota after which the reduction becomes one less.
const FETCHES_TO_GROW: u32 = 64;

/// Limits of a fetch that only shows whether the broker leaves partitions out.
const AT_ONCE: FetchLimits = FetchLimits { wait: Duration::ZERO, max_bytes: FETCH_BYTES, one_batch: false };

/// The crate's result for one partition.
enum Read {
    Page(Page),
    Refused(Code),
    /// Too little, or nothing decodable: only the batch headers show what is there.
    Doubtful,
}

impl Session {
    /// Reads on from `positions`.
    pub fn read_on(
        &mut self,
        on: &mut Call<'_>,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>> {
        let wait = limits.wait;
        let (led, not_led) = self.led(positions.iter().map(|position| position.partition), on.deadline)?;
        let (positions, others): (Vec<Position>, Vec<Position>) =
            positions.iter().partition(|position| led.contains(&position.partition));
        let mut answers: Vec<Fetched> = others
            .into_iter()
            .filter_map(|position| {
                Some(self.refused(position, outcome_of(&not_led, position.partition).err()?))
            })
            .collect();
        let (exact, together): (Vec<Position>, Vec<Position>) = positions
            .into_iter()
            .partition(|position| limits.one_batch || self.exact.contains_key(&position.partition));
        // Only the last request waits, and only if the ones before it found nothing.
        for (index, position) in exact.iter().enumerate() {
            let is_last = together.is_empty() && index + 1 == exact.len();
            let wait = if is_last && answers.iter().all(is_idle) { wait } else { Duration::ZERO };
            if has_room(&answers, on) {
                answers.push(self.fetch_exactly(on, *position, FetchLimits { wait, ..limits })?);
            }
        }
        if !together.is_empty() {
            let wait = if answers.iter().all(is_idle) { wait } else { Duration::ZERO };
            for (position, read) in self.fetch_together(on, &together, FetchLimits { wait, ..limits })? {
                answers.push(match read {
                    Read::Page(page) => Fetched { partition: position.partition, page: Ok(page) },
                    Read::Refused(code) => self.refused(position, code),
                    Read::Doubtful => {
                        self.exact.insert(position.partition, EXACT_FETCHES);
                        if !has_room(&answers, on) {
                            continue;
                        }
                        self.fetch_exactly(on, position, FetchLimits { wait: Duration::ZERO, ..limits })?
                    }
                });
            }
        }
        Ok(answers)
    }

    fn fetch_together(
        &mut self,
        on: &mut Call<'_>,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<(Position, Read)>> {
        let bytes = (fetch::fetch_share(positions.len()) >> self.size_shift).max(MIN_SHARE);
        let wants: Vec<(Position, usize)> = positions.iter().map(|position| (*position, bytes)).collect();
        match self.fetch_bytes(on, &wants, limits.wait)? {
            Some(responses) => {
                self.fetches_in_quota += 1;
                if self.fetches_in_quota >= FETCHES_TO_GROW {
                    (self.size_shift, self.fetches_in_quota) = (self.size_shift.saturating_sub(1), 0);
                }
                if !positions.iter().any(|at| partition_of(&responses, at.partition).is_some()) {
                    self.throttled(on, &wants)?;
                }
                Ok(positions.iter().map(|position| (*position, read(&responses, *position))).collect())
            }
            None => Ok(positions.iter().map(|position| (*position, Read::Doubtful)).collect()),
        }
    }

    /// Handles a response without partitions, which a broker gives when a quota is exceeded. In the crate's
    /// version it does not say for how long, and it does not count what it left out. So the same data is
    /// requested in a version that says it. Later fetches ask for less, because what the broker converts for
    /// the crate may always exceed what it measured before.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Throttled`].
    fn throttled(&mut self, on: &mut Call<'_>, wants: &[(Position, usize)]) -> Result<()> {
        if !on.mutes() {
            return Ok(());
        }
        let sized = |bytes: &usize| i32::try_from(*bytes).unwrap_or(i32::MAX);
        let wanted: Vec<(Position, i32)> = wants.iter().map(|(at, bytes)| (*at, sized(bytes))).collect();
        let wanted = Wanted { partitions: &wanted, max_bytes: i32::MAX, isolation: READ_UNCOMMITTED };
        let topic = self.topic.as_str();
        let found = fetch::fetch(on, &wanted, AT_ONCE, |r, version| {
            per_partition(r, topic, |r| {
                let FetchedPart { partition, code, .. } = FetchedPart::read(r, version)?;
                Ok((partition, code.check()))
            })
        })?;
        self.size_shift = (self.size_shift + 1).clamp(FIRST_SHIFT, MAX_SHIFT);
        self.fetches_in_quota = 0;
        on.connection.check_quota()?;
        // A response that is too large has records, too.
        if found.is_ok_and(|found| !wants.iter().any(|(at, _)| outcome_of(&found, at.partition).is_ok())) {
            return Ok(());
        }
        let text = format!("broker {}: a quota was exceeded a moment ago", self.host);
        Err(BrokerError::Throttled(Instant::now() + LOOK_AGAIN, text))
    }

    /// Returns `None` if the response as a whole cannot be decoded.
    fn fetch_bytes(
        &mut self,
        on: &Call<'_>,
        wants: &[(Position, usize)],
        wait: Duration,
    ) -> Result<Option<Vec<Response>>> {
        let all: usize = wants.iter().map(|(_, bytes)| bytes).sum();
        let deadline = on.deadline + transfer_time(all.saturating_sub(2 * FETCH_BYTES));
        let wants = wants.iter().map(|(position, bytes)| {
            let bytes = i32::try_from(*bytes).unwrap_or(i32::MAX);
            FetchPartition::new(on.topic, position.partition, position.offset).with_max_bytes(bytes)
        });
        let outcome = self.bounded("fetch", deadline, |client| {
            client.set_fetch_max_wait_time(wait)?;
            client.fetch_messages(wants)
        })?;
        match outcome {
            Ok(responses) => Ok(Some(responses)),
            Err(error) if is_undecodable(&error) => Ok(None),
            Err(error) => Err(self.failed("fetch", &error)),
        }
    }

    /// Reads only one kind of batch, as the batch headers indicate.
    fn fetch_exactly(
        &mut self,
        on: &mut Call<'_>,
        position: Position,
        limits: FetchLimits,
    ) -> Result<Fetched> {
        let Position { partition, offset } = position;
        self.count_down(partition);
        let look = if limits.one_batch { ONE_BATCH } else { PEEK_BYTES };
        let page = match peek(on, position, look, limits)? {
            Err(code) => Err(self.refusal(position, code)),
            Ok(Peek { oversize: Some(found), .. }) => Err(found.error(&self.topic, limits.max_bytes)),
            Ok(Peek { headers, high_watermark, .. }) => match next(&headers) {
                Next::Wait => Ok(Page::new(offset, high_watermark)),
                Next::Skip(next) => Ok(Page::new(next, high_watermark)),
                Next::Unreadable(codec) => Err(self
                    .give_way(position, codec)
                    .unwrap_or_else(|| self.unreadable(position, &format!("compressed with {codec}")))),
                Next::Read { bytes, first, last } => match self.read_batch(on, position, bytes)? {
                    Ok(page) if page.is_empty() => self.nothing_left(on, position, (first, last), bytes)?,
                    page => page,
                },
            },
        };
        Ok(Fetched { partition, page })
    }

    /// Reads `bytes` bytes from `position` on.
    fn read_batch(&mut self, on: &mut Call<'_>, position: Position, bytes: usize) -> Result<Result<Page>> {
        let Position { partition, offset } = position;
        let Some(responses) = self.fetch_bytes(on, &[(position, bytes)], Duration::ZERO)? else {
            return Ok(Err(self.unreadable(position, "in a form that cannot be decoded")));
        };
        if partition_of(&responses, partition).is_none() {
            self.throttled(on, &[(position, bytes)])?;
        }
        let data = partition_of(&responses, partition).ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION);
        Ok(data.and_then(|data| page(data, offset)).map_err(|code| self.refusal(position, code)))
    }

    /// Skips the batch from `first` to `last` if compaction has removed all its records from `position` on.
    /// The proof is that the broker returns the other records: it sends nothing of a batch above its own
    /// `fetch.max.bytes`.
    fn nothing_left(
        &mut self,
        on: &mut Call<'_>,
        position: Position,
        (first, last): (i64, i64),
        bytes: usize,
    ) -> Result<Result<Page>> {
        if first < position.offset {
            let from_first = Position { offset: first, ..position };
            match self.read_batch(on, from_first, bytes)? {
                Ok(page) if page.is_empty() => {}
                // The caller skips what is before the position.
                Ok(page) if page.next_offset > position.offset => return Ok(Ok(page)),
                Ok(page) => return Ok(Ok(Page::new(last + 1, page.high_watermark))),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(BrokerError::Unreadable(format!(
            "{}/{}: the broker returns nothing of the batch at offset {first}, which has {bytes} bytes; \
             raise its fetch.max.bytes to more than that, or set KAFKA_CLIENT=wire",
            self.topic, position.partition
        ))))
    }

    fn count_down(&mut self, partition: i32) {
        self.exact.retain(|id, left| {
            *left -= u32::from(*id == partition);
            *left > 0
        });
    }

    fn refused(&self, position: Position, code: Code) -> Fetched {
        Fetched { partition: position.partition, page: Err(self.refusal(position, code)) }
    }

    fn refusal(&self, position: Position, code: Code) -> BrokerError {
        let at = format!("broker {}: fetch of {}/{}", self.host, self.topic, position.partition);
        match code {
            // So does a topic that is only to hold them.
            Code::UNSUPPORTED_COMPRESSION_TYPE => self
                .give_way(position, "zstd")
                .unwrap_or_else(|| self.unreadable(position, "compressed with zstd")),
            Code::UNSUPPORTED_VERSION => BrokerError::Unreadable(format!(
                "{at}: the broker does not convert records for this client; set \
                 message.downconversion.enable=true on the topic"
            )),
            code => fetch::fetch_refusal(at, code),
        }
    }

    /// Lets our own client read on from `position`, if it may take over.
    fn give_way(&self, Position { partition, offset }: Position, codec: &str) -> Option<BrokerError> {
        self.gives_way.as_ref()?.store(true, Ordering::Release);
        Some(BrokerError::Retryable(format!(
            "{}/{partition} holds records from offset {offset} on that are compressed with {codec}, which the kafka \
             crate cannot read; our own client (KAFKA_CLIENT=wire) takes over",
            self.topic
        )))
    }

    fn unreadable(&self, position: Position, what: &str) -> BrokerError {
        let Position { partition, offset } = position;
        BrokerError::Unreadable(format!(
            "{}/{partition} holds records from offset {offset} on that are {what}, which this client cannot \
             read; set compression.type=uncompressed on the topic, or use gzip, snappy or none in its \
             producers, and skip or delete these records",
            self.topic
        ))
    }
}

/// False once a batch above the usual size has come, or a connection was given up over one. Other such
/// batches wait for another fetch.
fn has_room(answers: &[Fetched], on: &Call<'_>) -> bool {
    let held: usize = answers.iter().flat_map(|fetched| &fetched.page).map(Page::value_bytes).sum();
    held <= 2 * FETCH_BYTES && on.connection.is_usable()
}

/// True if there are no records: the partition has nothing, or cannot be read for now.
fn is_idle(fetched: &Fetched) -> bool {
    fetched.page.as_ref().map_or(true, Page::is_empty)
}

fn read(responses: &[Response], Position { partition, offset }: Position) -> Read {
    match partition_of(responses, partition).map(|data| page(data, offset)) {
        None => Read::Refused(Code::UNKNOWN_TOPIC_OR_PARTITION),
        Some(Err(Code::UNKNOWN)) => Read::Doubtful,
        Some(Err(code)) => Read::Refused(code),
        Some(Ok(page)) => {
            // Nothing although something is stored, or a gap before the first record: the crate may have
            // dropped records.
            let first = page.records().next().map_or(page.high_watermark, |(first, _)| first);
            if first > offset { Read::Doubtful } else { Read::Page(page) }
        }
    }
}

fn partition_of<'a>(responses: &'a [Response], partition: i32) -> Option<&'a Partition<'a>> {
    let partitions = responses.iter().flat_map(Response::topics).flat_map(|topic| topic.partitions());
    partitions.into_iter().find(|data| data.partition() == partition)
}

fn page(data: &Partition<'_>, offset: i64) -> Result<Page, Code> {
    let data = data.data().map_err(|error| code_in(&error))?;
    let mut page = Page::new(offset, data.highwatermark_offset());
    for message in data.messages() {
        page.push(message.offset, None, message.value);
    }
    Ok(page)
}

/// True if the response arrived whole but the crate cannot decode its kind of records.
fn is_undecodable(error: &Error) -> bool {
    match error {
        Error::UnsupportedCompression
        | Error::UnsupportedProtocol
        | Error::InvalidSnappy(_)
        | Error::Kafka(KafkaCode::CorruptMessage) => true,
        Error::ArcSelf(inner) => is_undecodable(inner),
        _ => false,
    }
}

fn code_in(error: &Error) -> Code {
    match error {
        Error::Kafka(code) | Error::TopicPartitionError { error_code: code, .. } => code_of(*code),
        Error::ArcSelf(inner) => code_in(inner),
        _ => Code::UNKNOWN,
    }
}
