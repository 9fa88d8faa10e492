//! Reading with the crate: together while it reads right, exactly by batch headers where it does not.
//!
//! The crate drops the plain records ahead of a compressed batch without a word, and one batch that it cannot
//! decode spoils the answer of every partition. Both show as a gap, as nothing, or as an undecodable answer.

use std::time::{Duration, Instant};

use kafka::Error;
use kafka::client::FetchPartition;
use kafka::client::fetch::{Partition, Response};
use kafka::error::KafkaCode;

use super::super::client;
use super::super::code::Code;
use super::super::connection::Connection;
use super::super::peek::{self, Next};
use super::super::{BrokerError, Fetched, Page, Position};
use super::{CrateClient, code_of};

/// Fetches in which a partition is read by its batch headers, after the crate read nothing or too little.
const EXACT_FETCHES: u32 = 16;

/// What the crate made of one partition's answer.
enum Read {
    Page(Page),
    Refused(Code),
    /// Too little, or nothing decodable: the batch headers must tell what is there.
    Doubtful,
}

impl CrateClient {
    /// Reads on from `positions`.
    pub(super) fn read_on(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Vec<Fetched>, BrokerError> {
        let (led, not_led) = self.led(positions.iter().map(|position| position.partition), deadline)?;
        let mut answers: Vec<Fetched> = not_led
            .into_iter()
            .filter_map(|(partition, code)| Some(self.refused(partition, code.err()?)))
            .collect();
        let positions = positions.iter().filter(|position| led.contains(&position.partition)).copied();
        let (exact, together): (Vec<Position>, Vec<Position>) =
            positions.partition(|position| self.exact.contains_key(&position.partition));
        // Only the last request waits, and only if the ones before it found nothing.
        for (index, position) in exact.iter().enumerate() {
            let is_last = together.is_empty() && index + 1 == exact.len();
            let wait = if is_last && answers.iter().all(is_idle) { wait } else { Duration::ZERO };
            answers.push(self.fetch_exactly(control, *position, wait, deadline)?);
        }
        if !together.is_empty() {
            let wait = if answers.iter().all(is_idle) { wait } else { Duration::ZERO };
            for (position, read) in self.fetch_together(&together, wait, deadline)? {
                answers.push(match read {
                    Read::Page(page) => Fetched { partition: position.partition, page: Ok(page) },
                    Read::Refused(code) => self.refused(position.partition, code),
                    Read::Doubtful => {
                        self.exact.insert(position.partition, EXACT_FETCHES);
                        self.fetch_exactly(control, position, Duration::ZERO, deadline)?
                    }
                });
            }
        }
        Ok(answers)
    }

    fn fetch_together(
        &mut self,
        positions: &[Position],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Vec<(Position, Read)>, BrokerError> {
        let bytes = client::fetch_share(positions.len());
        let wants: Vec<(Position, usize)> = positions.iter().map(|position| (*position, bytes)).collect();
        match self.fetch_bytes(&wants, wait, deadline)? {
            Some(responses) => {
                Ok(positions.iter().map(|position| (*position, read(&responses, *position))).collect())
            }
            None => Ok(positions.iter().map(|position| (*position, Read::Doubtful)).collect()),
        }
    }

    /// `None` when the answer as a whole does not decode.
    fn fetch_bytes(
        &mut self,
        wants: &[(Position, usize)],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Option<Vec<Response>>, BrokerError> {
        let topic = self.topic.clone();
        let wants = wants.iter().map(|(position, bytes)| {
            let bytes = i32::try_from(*bytes).unwrap_or(i32::MAX);
            FetchPartition::new(&topic, position.partition, position.offset).with_max_bytes(bytes)
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

    /// Reads one kind of batches only, as their headers say.
    fn fetch_exactly(
        &mut self,
        control: &mut Connection,
        position: Position,
        wait: Duration,
        deadline: Instant,
    ) -> Result<Fetched, BrokerError> {
        let page = self.exact_page(control, position, wait, deadline)?;
        Ok(Fetched { partition: position.partition, page })
    }

    fn exact_page(
        &mut self,
        control: &mut Connection,
        position: Position,
        wait: Duration,
        deadline: Instant,
    ) -> Result<Result<Page, BrokerError>, BrokerError> {
        let Position { partition, offset } = position;
        self.count_down(partition);
        let peek = match peek::peek(control, &self.topic, (partition, offset), wait, deadline)? {
            Ok(peek) => peek,
            Err(code) => return Ok(Err(self.refusal(partition, code))),
        };
        match peek::next(&peek.headers) {
            Next::Wait => Ok(Ok(Page::new(offset, peek.high_watermark))),
            Next::Skip(next) => Ok(Ok(Page::new(next, peek.high_watermark))),
            Next::Unreadable(codec) => {
                Ok(Err(self.unreadable(position, &format!("compressed with {codec}"))))
            }
            Next::Read { bytes, first_last } => {
                let Some(responses) = self.fetch_bytes(&[(position, bytes)], Duration::ZERO, deadline)?
                else {
                    return Ok(Err(self.unreadable(position, "in a form that does not decode")));
                };
                match partition_of(&responses, partition).map(|data| page(data, offset)) {
                    // The broker always sends the first batch whole, so without records it has none left.
                    Some(Ok(page)) if page.is_empty() && page.high_watermark > first_last => {
                        Ok(Ok(Page::new(first_last + 1, page.high_watermark)))
                    }
                    Some(Ok(page)) => Ok(Ok(page)),
                    Some(Err(code)) => Ok(Err(self.refusal(partition, code))),
                    None => Ok(Err(self.refusal(partition, Code::UNKNOWN_TOPIC_OR_PARTITION))),
                }
            }
        }
    }

    fn count_down(&mut self, partition: i32) {
        let left = self.exact.get(&partition).map_or(0, |left| left.saturating_sub(1));
        if left == 0 {
            self.exact.remove(&partition);
        } else {
            self.exact.insert(partition, left);
        }
    }

    fn refused(&self, partition: i32, code: Code) -> Fetched {
        Fetched { partition, page: Err(self.refusal(partition, code)) }
    }

    fn refusal(&self, partition: i32, code: Code) -> BrokerError {
        let at = format!("broker {}: fetch of {}/{partition}", self.host, self.topic);
        match code {
            Code::UNSUPPORTED_COMPRESSION => BrokerError::Unreadable(format!(
                "{at}: the topic holds zstd; set compression.type=uncompressed on the topic, or another compression \
                 in its producers"
            )),
            Code::UNSUPPORTED_VERSION => BrokerError::Unreadable(format!(
                "{at}: the broker does not convert records for this client; set message.downconversion.enable=true \
                 on the topic"
            )),
            code => client::fetch_refusal(at, code),
        }
    }

    fn unreadable(&self, position: Position, what: &str) -> BrokerError {
        let Position { partition, offset } = position;
        BrokerError::Unreadable(format!(
            "{}/{partition} holds records from offset {offset} on that are {what}, which this client cannot read; \
             set compression.type=uncompressed on the topic, or gzip, snappy or none in its producers, and skip or \
             delete these records",
            self.topic
        ))
    }
}

/// No records: a partition that has nothing, or cannot be read for now.
fn is_idle(fetched: &Fetched) -> bool {
    fetched.page.as_ref().map_or(true, Page::is_empty)
}

fn read(responses: &[Response], Position { partition, offset }: Position) -> Read {
    match partition_of(responses, partition).map(|data| page(data, offset)) {
        None => Read::Refused(Code::UNKNOWN_TOPIC_OR_PARTITION),
        Some(Err(Code::UNKNOWN)) => Read::Doubtful,
        Some(Err(code)) => Read::Refused(code),
        Some(Ok(page)) => {
            // Nothing although something is stored, or a gap ahead of the first record: perhaps dropped by the crate.
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

/// The answer arrived whole, but its records are of a kind that the crate does not decode.
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
