//! The client over the `kafka` crate, for brokers that serve version 0 requests: the only file that names it.
//!
//! One `KafkaClient` a broker, so that one broker's failure costs nothing of another's and each has exactly
//! one socket, whose calls can be bounded by shutting it. Any error but a broker's code ends the client: the
//! crate never notices that a connection is dead, and after a lost answer takes the next one for it.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::Error;
use kafka::client::fetch::{Partition, Response};
use kafka::client::{FetchPartition, KafkaClient, ProduceConfirm, ProduceMessage, RequiredAcks};
use kafka::error::KafkaCode;

use super::client::{Batch, Client, Connector};
use super::code::Code;
use super::connection::{CLIENT_ID, Connection, left};
use super::control::{PerPartition, Versions};
use super::frame::Writer;
use super::limit::{CallLimit, Target};
use super::peek::{self, Next};
use super::{BrokerError, Fetched, Page, Position, control, preflight};
use crate::linux;

/// Most bytes of all partitions in one fetch: what a fetch costs in memory, twice over while it is copied.
const FETCH_BYTES: usize = 16 << 20;

/// Bounds of one partition's share. The lower one exceeds the largest batch that brokers take by default.
const FETCH_BYTES_PER_PARTITION: (usize, usize) = (1280 << 10, 4 << 20);

/// Fetches in which a partition is read by its batch headers, after the crate read nothing or too little.
const EXACT_FETCHES: u32 = 16;

const PRODUCE: (i16, i16) = (0, 0);

/// Opens clients over the crate.
pub(super) struct CrateConnector {
    topic: String,
    limit: Arc<CallLimit>,
}

impl CrateConnector {
    /// For the clients of one thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(topic: String) -> io::Result<Self> {
        Ok(Self { topic, limit: Arc::new(CallLimit::start()?) })
    }
}

impl Connector for CrateConnector {
    fn check(&self, host: &str, versions: &Versions) -> Result<(), BrokerError> {
        preflight::serves_the_crate(host, versions)
    }

    fn open(
        &self,
        host: &str,
        control: &mut Connection,
        deadline: Instant,
    ) -> Result<Box<dyn Client>, BrokerError> {
        let mut client = KafkaClient::new(vec![host.to_owned()]);
        client.set_client_id(CLIENT_ID.to_owned());
        // The crate would connect again by itself, without our limit; we look whether the socket is alive.
        client.set_connection_idle_timeout(Duration::from_secs(u32::MAX.into()));
        client.set_fetch_min_bytes(1);
        // The broker computes these sums while it down-converts, so they guard no more than TCP does, and the
        // crate builds its table anew for each message: half of the time that a catch-up takes.
        client.set_fetch_crc_validation(false);
        let target = Target::opening(control.peer()?);
        let mut opened = CrateClient {
            host: host.to_owned(),
            topic: self.topic.clone(),
            client,
            target: target.clone(),
            limit: self.limit.clone(),
            exact: HashMap::new(),
        };
        opened.load_metadata(deadline)?;
        let Some(socket) = target.socket() else {
            return Err(BrokerError::Retryable(format!("broker {host}: the connection was lost at once")));
        };
        let _ = socket.set_nodelay(true);
        opened.target = Target::Socket(socket);
        Ok(Box::new(opened))
    }
}

struct CrateClient {
    host: String,
    topic: String,
    client: KafkaClient,
    target: Target,
    limit: Arc<CallLimit>,
    /// Partitions to be read by their batch headers, and for how many fetches more.
    exact: HashMap<i32, u32>,
}

impl Client for CrateClient {
    fn is_usable(&self) -> bool {
        matches!(&self.target, Target::Socket(socket) if linux::is_quiet(socket))
    }

    fn produce(
        &mut self,
        batches: &[Batch<'_>],
        deadline: Instant,
    ) -> Result<PerPartition<i64>, BrokerError> {
        let (led, mut outcomes) = self.led(batches.iter().map(|batch| batch.partition), deadline)?;
        if led.is_empty() {
            return Ok(outcomes);
        }
        let topic = self.topic.clone();
        let messages = batches.iter().filter(|batch| led.contains(&batch.partition)).flat_map(|batch| {
            let (topic, partition) = (topic.as_str(), batch.partition);
            batch.records.iter().map(move |r| ProduceMessage::new(topic, partition, r.key, Some(r.value)))
        });
        // The broker gives up waiting for replicas first, so that its answer still reaches us.
        let ack_timeout = left(deadline) * 3 / 4;
        let confirms = self
            .bounded("produce", deadline, |client| {
                client.produce_messages(RequiredAcks::All, ack_timeout, messages)
            })?
            .map_err(|error| self.failed("produce", &error))?;
        outcomes.extend(self.matched(&led, confirms)?);
        Ok(outcomes)
    }

    /// An empty message set: the broker checks leader and replicas before it looks for records.
    fn would_acknowledge(
        &mut self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError> {
        let ack_timeout = i32::try_from(left(deadline).as_millis() * 3 / 4).unwrap_or(i32::MAX);
        let body = Writer::default().i16(-1).i32(ack_timeout).array(&[self.topic.as_str()], |w, topic| {
            w.str(topic).array(partitions, |w, partition| w.i32(*partition).i32(0))
        });
        control.call(PRODUCE, body, deadline, |r| {
            control::per_partition(r, |r| {
                let (partition, code, _offset) = (r.i32()?, Code(r.i16()?), r.i64()?);
                Ok((partition, code.check()))
            })
        })
    }

    fn fetch(
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
        let (mut exact, together): (Vec<Position>, Vec<Position>) =
            positions.partition(|position| self.exact.contains_key(&position.partition));
        let exact_wait = if together.is_empty() && exact.len() == 1 { wait } else { Duration::ZERO };
        if !together.is_empty() {
            let wait = if exact.is_empty() { wait } else { Duration::ZERO };
            for (position, read) in self.fetch_together(&together, wait, deadline)? {
                match read {
                    Read::Page(page) => {
                        answers.push(Fetched { partition: position.partition, page: Ok(page) })
                    }
                    Read::Refused(code) => answers.push(self.refused(position.partition, code)),
                    Read::Doubtful => {
                        self.exact.insert(position.partition, EXACT_FETCHES);
                        exact.push(position);
                    }
                }
            }
        }
        for position in exact {
            let page = self.fetch_exactly(control, position, exact_wait, deadline)?;
            answers.push(Fetched { partition: position.partition, page });
        }
        Ok(answers)
    }
}

/// What the crate made of one partition's answer.
enum Read {
    Page(Page),
    Refused(Code),
    /// Too little, or nothing decodable: the batch headers must tell what is there.
    Doubtful,
}

impl CrateClient {
    /// Runs one call of the crate within `deadline`; a panic in it is an error like any other.
    fn bounded<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        call: impl FnOnce(&mut KafkaClient) -> T,
    ) -> Result<T, BrokerError> {
        let client = &mut self.client;
        let call = || catch_unwind(AssertUnwindSafe(|| call(client)));
        let started = Instant::now();
        let (outcome, expired) = self.limit.run(self.target.clone(), deadline, call);
        let host = &self.host;
        if expired {
            let waited = started.elapsed().as_millis();
            return Err(BrokerError::Retryable(format!(
                "broker {host}: no answer to {what} within {waited} ms"
            )));
        }
        outcome
            .map_err(|_| BrokerError::Retryable(format!("broker {host}: {what}: its answer made no sense")))
    }

    fn load_metadata(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        let topic = self.topic.clone();
        self.bounded("metadata", deadline, |client| client.load_metadata(&[topic]))?
            .map_err(|error| self.failed("metadata", &error))
    }

    /// Those of `partitions` that this broker leads as far as the crate knows, and a code for the others,
    /// for which the crate would connect elsewhere.
    fn led(
        &mut self,
        partitions: impl Iterator<Item = i32> + Clone,
        deadline: Instant,
    ) -> Result<(Vec<i32>, PerPartition<i64>), BrokerError> {
        if !partitions.clone().all(|partition| self.leads(partition)) {
            self.load_metadata(deadline)?;
        }
        let (led, others): (Vec<i32>, Vec<i32>) = partitions.partition(|partition| self.leads(*partition));
        Ok((led, others.into_iter().map(|partition| (partition, Err(Code::NOT_LEADER))).collect()))
    }

    fn leads(&self, partition: i32) -> bool {
        let topics = self.client.topics();
        let leader =
            topics.partitions(&self.topic).and_then(|partitions| partitions.partition(partition)?.leader());
        leader.is_some_and(|broker| broker.host() == self.host)
    }

    /// Exactly one confirm for each partition sent and none besides, or the answer is not to our request.
    fn matched(&self, sent: &[i32], confirms: Vec<ProduceConfirm>) -> Result<PerPartition<i64>, BrokerError> {
        let foreign = confirms.iter().any(|confirm| confirm.topic != self.topic);
        let outcomes: PerPartition<i64> = confirms
            .into_iter()
            .flat_map(|confirm| confirm.partition_confirms)
            .map(|confirm| (confirm.partition, confirm.offset.map_err(code_of)))
            .collect();
        let all = sent.iter().all(|partition| outcomes.iter().filter(|(id, _)| id == partition).count() == 1);
        if foreign || !all || outcomes.len() != sent.len() {
            let host = &self.host;
            return Err(BrokerError::Retryable(format!(
                "broker {host}: produce: an answer to another request"
            )));
        }
        Ok(outcomes)
    }

    fn fetch_together(
        &mut self,
        positions: &[Position],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Vec<(Position, Read)>, BrokerError> {
        let (min, max) = FETCH_BYTES_PER_PARTITION;
        let bytes = (FETCH_BYTES / positions.len()).clamp(min, max);
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
                    Some(Ok(page)) if page.is_empty() => {
                        Ok(Ok(Page::new((first_last + 1).max(offset), page.high_watermark)))
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
}

/// Messages for the caller.
impl CrateClient {
    fn failed(&self, what: &str, error: &Error) -> BrokerError {
        let host = &self.host;
        BrokerError::Retryable(match error {
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("broker {host}: {what}: it closed the connection")
            }
            Error::NoHostReachable => format!("broker {host}: {what}: the connection is lost"),
            error => format!("broker {host}: {what}: {error}"),
        })
    }

    fn refused(&self, partition: i32, code: Code) -> Fetched {
        Fetched { partition, page: Err(self.refusal(partition, code)) }
    }

    fn refusal(&self, partition: i32, code: Code) -> BrokerError {
        let at = format!("broker {}: fetch of {}/{partition}", self.host, self.topic);
        match code {
            Code::OFFSET_OUT_OF_RANGE => BrokerError::OffsetOutOfRange(format!("{at}: {code}")),
            Code::UNSUPPORTED_COMPRESSION => BrokerError::Unreadable(format!(
                "{at}: the topic holds zstd; set compression.type=uncompressed on the topic, or another compression \
                 in its producers"
            )),
            Code::UNSUPPORTED_VERSION => BrokerError::Unreadable(format!(
                "{at}: the broker does not convert records for this client; set message.downconversion.enable=true \
                 on the topic"
            )),
            code => BrokerError::Retryable(format!("{at}: {code}")),
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
        page.push(message.offset, message.value);
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

fn code_of(code: KafkaCode) -> Code {
    Code(code as i16)
}
