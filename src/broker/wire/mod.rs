//! Our own client for every Kafka from 0.11 to 4.x, using Produce v3, Fetch v4 and InitProducerId v0.
//!
//! All these Kafka versions support those requests. From Kafka 2.4 on it uses Produce v8, which names the
//! records that a broker rejects (KIP-467). It writes nothing twice (see `sequence`), reads every compression
//! codec, and hides aborted transactions. It has no socket of its own: records go over the connection that
//! carries the control requests.

mod answer;
mod batch;
mod codec;
#[cfg(fuzzing)]
mod fuzz;
mod probe;
mod records;
mod sequence;

#[cfg(test)]
#[path = "tests/leaders.rs"]
mod leaders;

#[cfg(fuzzing)]
pub use fuzz::fuzzed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::client::{Batch, Client, Produced, Verdict};
use crate::broker::error::BrokerError;
use crate::broker::page::Page;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::{Api, Connection};
use crate::broker::protocol::control::{PerPartition, Versions, answers_exactly, per_partition};
use crate::broker::protocol::deadline::{ack_timeout, left};
use crate::broker::protocol::fetch::{self, FetchLimits, ONE_BATCH, READ_COMMITTED};
use crate::broker::protocol::frame::{Malformed, Writer};
use crate::broker::record::{Fetched, Position, Record};
use records::Trouble;
use sequence::Sequences;

const PRODUCE: Api = Api { name: "Produce", key: 0, version: 3 };
const PRODUCE_WITH_REASONS: Api = Api { version: 8, ..PRODUCE };
const INIT_PRODUCER_ID: Api = Api { name: "InitProducerId", key: 22, version: 0 };

/// Pause between two requests for a producer id.
const ID_POLL: Duration = Duration::from_millis(20);

const NULL: i16 = -1;
const ALL_REPLICAS: i16 = -1;

/// Opens clients that share the sequence numbers of one producer.
pub struct WireConnector {
    topic: String,
    sequences: Arc<Mutex<Sequences>>,
}

impl WireConnector {
    /// Creates a connector for the clients of one thread.
    pub fn new(topic: String) -> Self {
        Self { topic, sequences: Arc::default() }
    }

    /// True while the batch of `records` for `partition` may have been written without our knowing.
    pub fn is_in_doubt(&self, partition: i32, records: &[Record<'_>]) -> bool {
        lock(&self.sequences).is_in_doubt(partition, records)
    }

    /// Opens a client for `host`, which supports `versions` and leads partitions of the topic.
    pub fn open(&self, host: &str, versions: &Versions) -> Box<dyn Client> {
        Box::new(WireClient {
            host: host.to_owned(),
            topic: self.topic.clone(),
            sequences: self.sequences.clone(),
            produce: if gives_reasons(versions) { PRODUCE_WITH_REASONS } else { PRODUCE },
            asks_quietly: probe::is_served(versions),
            proven: HashMap::new(),
        })
    }
}

fn lock(sequences: &Mutex<Sequences>) -> MutexGuard<'_, Sequences> {
    sequences.lock().unwrap_or_else(PoisonError::into_inner)
}

struct WireClient {
    host: String,
    topic: String,
    produce: Api,
    /// The broker can be asked whether it would acknowledge, without a Produce request.
    asks_quietly: bool,
    /// Number of in-sync replicas with which a Produce request proved that a partition would acknowledge.
    proven: HashMap<i32, usize>,
    sequences: Arc<Mutex<Sequences>>,
}

impl Client for WireClient {
    /// Always true: the client has no connection of its own that could be dead.
    fn is_usable(&self) -> bool {
        true
    }

    fn produce(
        &mut self,
        control: &mut Connection,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
        deadline: Instant,
    ) -> Result<PerPartition<Produced>, BrokerError> {
        let sequences = self.sequences.clone();
        let mut sequences = lock(&sequences);
        for batch in batches {
            sequences.prepare(batch.partition, &batch.records);
        }
        self.have_id(&mut sequences, control, deadline)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let body = produce_body(&self.topic, ack_timeout).i32(batches.len() as i32);
        let body = batches.iter().fold(body, |body, batch| {
            let encoded = sequences.batch(batch.partition, &batch.records, now_ms);
            body.i32(batch.partition).bytes(encoded.expect("an id was asked for above"))
        });
        let outcomes = produced(control, self.produce, &self.topic, body, deadline)?;
        check_answers(&self.host, batches, &outcomes)?;
        for (partition, outcome) in &outcomes {
            sequences.settle(*partition, offset_in(outcome));
        }
        Ok(outcomes)
    }

    /// Leaves no trace in the broker's metrics where that is possible (see `probe`).
    fn would_acknowledge(
        &mut self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError> {
        self.have_id(&mut lock(&self.sequences), control, deadline)?;
        if !self.asks_quietly {
            return self.provoke(control, partitions, deadline);
        }
        let state = match probe::state(control, &self.topic, partitions, deadline)? {
            Ok(state) => state,
            Err(code) => return Ok(partitions.iter().map(|partition| (*partition, Err(code))).collect()),
        };
        let (mut outcomes, mut unclear) = (PerPartition::with_capacity(partitions.len()), HashMap::new());
        for &partition in partitions {
            match state.of(partition, &self.host) {
                probe::Answer::Known(outcome) => outcomes.push((partition, outcome)),
                probe::Answer::Unclear(in_sync)
                    if self.proven.get(&partition).is_some_and(|proven| in_sync >= *proven) =>
                {
                    outcomes.push((partition, Ok(())));
                }
                probe::Answer::Unclear(in_sync) => {
                    unclear.insert(partition, in_sync);
                }
            }
        }
        if !unclear.is_empty() {
            let partitions: Vec<i32> = unclear.keys().copied().collect();
            let provoked = self.provoke(control, &partitions, deadline)?;
            let proven = provoked.iter().filter(|(_, outcome)| outcome.is_ok());
            let proven = proven.filter_map(|(partition, _)| Some((*partition, *unclear.get(partition)?)));
            self.proven.extend(proven);
            outcomes.extend(provoked);
        }
        Ok(outcomes)
    }

    fn fetch(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>, BrokerError> {
        let share = fetch::fetch_share(positions.len());
        let share_bytes = if limits.one_batch { ONE_BATCH } else { i32::try_from(share).unwrap_or(i32::MAX) };
        let max_bytes = share_bytes.saturating_mul(positions.len() as i32);
        let wanted: Vec<(Position, i32)> = positions.iter().map(|at| (*at, share_bytes)).collect();
        let request = fetch::request(&self.topic, &wanted, (max_bytes, READ_COMMITTED), limits.wait);
        let answer = fetch::fetch(control, &self.topic, request, limits, |r| {
            answer::pages(r, &self.topic, positions, (share, limits.max_bytes))
        })?;
        let mut pages = match answer {
            Ok(pages) => pages,
            Err(found) => {
                let page = Err(found.error(&self.topic, limits.max_bytes));
                return Ok(vec![Fetched { partition: found.partition, page }]);
            }
        };
        if pages.is_empty() {
            // A broker whose quota is exceeded leaves all partitions out.
            control.check_quota()?;
        }
        Ok(positions.iter().map(|at| self.fetched(&mut pages, at.partition)).collect())
    }
}

impl WireClient {
    /// Sends a batch with a wrong checksum, which the broker verifies after it has checked leader and
    /// replicas. The broker's metrics count it as a corrupt message.
    fn provoke(
        &self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError> {
        let unacceptable = batch::unacceptable();
        let body = produce_body(&self.topic, ack_timeout(deadline))
            .array(partitions, |w, partition| w.i32(*partition).bytes(&unacceptable));
        let outcomes = produced(control, self.produce, &self.topic, body, deadline)?;
        Ok(outcomes
            .into_iter()
            .map(|(partition, outcome)| match offset_in(&outcome) {
                Err(code) if code == Code::CORRUPT_MESSAGE || code.is_too_large() => (partition, Ok(())),
                outcome => (partition, outcome.map(drop)),
            })
            .collect())
    }

    /// Gets a producer id if one is needed. A broker that has just started cannot assign one for a moment.
    fn have_id(
        &self,
        sequences: &mut Sequences,
        control: &mut Connection,
        deadline: Instant,
    ) -> Result<(), BrokerError> {
        while sequences.needs_id() {
            match new_producer_id(control, deadline)? {
                Ok(id) => sequences.begin(id),
                Err(code) if code.is_of_coordinator() && left(deadline) > ID_POLL => thread::sleep(ID_POLL),
                Err(code) => {
                    let host = &self.host;
                    return Err(BrokerError::Retryable(format!(
                        "broker {host}: no producer id was assigned: {code}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes the result for `partition` out of `pages`.
    fn fetched(&self, pages: &mut PerPartition<Result<Page, Trouble>>, partition: i32) -> Fetched {
        let found = pages.iter().position(|(id, _)| *id == partition).map(|at| pages.swap_remove(at).1);
        let at = || format!("broker {}: fetch of {}/{partition}", self.host, self.topic);
        let page = match found.unwrap_or(Err(Code::UNKNOWN_TOPIC_OR_PARTITION)) {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(Trouble::Damaged(offset))) => Err(BrokerError::Retryable(format!(
                "{}: the data sent from offset {offset} on fails its checksum; check the broker's disk",
                at()
            ))),
            Ok(Err(Trouble::Unreadable(offset, what))) => Err(BrokerError::Unreadable(format!(
                "{}/{partition} holds records from offset {offset} on that are {what}, which this client \
                 cannot read; skip or delete these records",
                self.topic
            ))),
            Err(code) => Err(fetch::fetch_refusal(at(), code)),
        };
        Fetched { partition, page }
    }
}

/// True for a broker that says which records it rejects, and why.
pub fn gives_reasons(versions: &Versions) -> bool {
    versions.serves(PRODUCE_WITH_REASONS.key, PRODUCE_WITH_REASONS.version)
}

/// Writes `batches` without sequence numbers and without a time, as the kafka crate does, for a broker that
/// gives reasons.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`]. Any of the batches may have been written.
pub fn produce_plainly(
    control: &mut Connection,
    (host, topic): (&str, &str),
    batches: &[Batch<'_>],
    ack_timeout: Duration,
    deadline: Instant,
) -> Result<PerPartition<Produced>, BrokerError> {
    const NO_TIME: i64 = -1;
    let body = produce_body(topic, ack_timeout).array(batches, |w, batch| {
        w.i32(batch.partition).bytes(&batch::encode(&batch.records, batch::Stamp::NONE, NO_TIME))
    });
    let outcomes = produced(control, PRODUCE_WITH_REASONS, topic, body, deadline)?;
    check_answers(host, batches, &outcomes)?;
    Ok(outcomes)
}

/// The beginning of a produce request, up to the partitions of the topic.
fn produce_body(topic: &str, ack_timeout: Duration) -> Writer {
    let ack_timeout = i32::try_from(ack_timeout.as_millis()).unwrap_or(i32::MAX);
    Writer::default().i16(NULL).i16(ALL_REPLICAS).i32(ack_timeout).i32(1).str(topic)
}

fn produced(
    control: &mut Connection,
    api: Api,
    topic: &str,
    body: Writer,
    deadline: Instant,
) -> Result<PerPartition<Produced>, BrokerError> {
    control.call(api, body, deadline, |r| {
        let outcomes = per_partition(r, topic, |r| {
            let (partition, code, base, _append_time) = (r.i32()?, Code(r.i16()?), r.i64()?, r.i64()?);
            let mut verdict = Verdict::of(code);
            if api.version >= PRODUCE_WITH_REASONS.version {
                let _log_start = r.i64()?;
                let place = |place: i32| usize::try_from(place).map_err(|_| Malformed);
                verdict.records = r.array(|r| Ok((place(r.i32()?)?, r.str()?.to_owned())))?;
                r.str()?.clone_into(&mut verdict.reason);
            }
            let outcome = match code.check() {
                Ok(()) => Ok(Produced::At(base)),
                Err(code) if code.is_of_record() => Ok(Produced::Rejected(verdict)),
                Err(code) => Err(code),
            };
            Ok((partition, outcome))
        })?;
        r.throttle()?;
        Ok(outcomes)
    })
}

fn offset_in(outcome: &Result<Produced, Code>) -> Result<i64, Code> {
    match outcome {
        Ok(Produced::At(offset)) => Ok(*offset),
        Ok(Produced::Rejected(verdict)) => Err(verdict.code),
        Err(code) => Err(*code),
    }
}

/// Requires exactly one outcome per batch. If not, the response does not belong to our request.
fn check_answers(
    host: &str,
    batches: &[Batch<'_>],
    outcomes: &PerPartition<Produced>,
) -> Result<(), BrokerError> {
    let asked: Vec<i32> = batches.iter().map(|batch| batch.partition).collect();
    let is_absurd = outcomes.iter().any(|(_, outcome)| offset_in(outcome).is_ok_and(|offset| offset < 0));
    if is_absurd || !answers_exactly(&asked, outcomes) {
        return Err(BrokerError::Retryable(format!("broker {host}: produce: response to another request")));
    }
    Ok(())
}

/// Requests a producer id for batches outside of transactions.
fn new_producer_id(
    control: &mut Connection,
    deadline: Instant,
) -> Result<Result<sequence::ProducerId, Code>, BrokerError> {
    let no_transaction_timeout = i32::MAX;
    control.call(INIT_PRODUCER_ID, Writer::default().i16(NULL).i32(no_transaction_timeout), deadline, |r| {
        r.throttle()?;
        let code = Code(r.i16()?);
        let id = (r.i64()?, r.i16()?);
        Ok(code.check().map(|()| id))
    })
}
