//! Our own client, for every Kafka from 0.11 to 4.x: Produce v3, Fetch v4 and InitProducerId v0, which they all serve.
//!
//! It writes nothing twice (see `sequence`), reads every compression, and hides what transactions rolled back.
//! It has no socket of its own: records go over the connection that carries the small requests.

mod answer;
mod batch;
mod codec;
#[cfg(fuzzing)]
mod fuzz;
mod records;
mod sequence;
mod turns;

#[cfg(fuzzing)]
pub use fuzz::fuzzed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{self, Batch, Client};
use super::code::Code;
use super::connection::{Api, Connection, left};
use super::control::{PerPartition, answers_exactly, per_partition};
use super::frame::Writer;
use super::{BrokerError, Fetched, Page, Position, Record};
use records::Trouble;
use sequence::Sequences;
use turns::Turns;

const PRODUCE: Api = Api { name: "Produce", key: 0, version: 3 };
const FETCH: Api = Api { name: "Fetch", key: 1, version: 4 };
const INIT_PRODUCER_ID: Api = Api { name: "InitProducerId", key: 22, version: 0 };

/// Pause between two questions for a producer id.
const ID_POLL: Duration = Duration::from_millis(20);

const NULL: i16 = -1;
const ALL_REPLICAS: i16 = -1;
const READ_COMMITTED: i8 = 1;

/// Opens clients that share the numbers of one producer.
pub(super) struct WireConnector {
    topic: String,
    sequences: Arc<Mutex<Sequences>>,
}

impl WireConnector {
    /// For the clients of one thread.
    pub fn new(topic: String) -> Self {
        Self { topic, sequences: Arc::default() }
    }

    /// True while the batch of `records` for `partition` may be written without our knowing.
    pub fn is_in_doubt(&self, partition: i32, records: &[Record<'_>]) -> bool {
        lock(&self.sequences).is_in_doubt(partition, records)
    }

    /// A client of `host`, which leads partitions of the topic.
    pub fn open(&self, host: &str) -> Box<dyn Client> {
        Box::new(WireClient {
            host: host.to_owned(),
            topic: self.topic.clone(),
            sequences: self.sequences.clone(),
            turns: Turns::default(),
        })
    }
}

fn lock(sequences: &Mutex<Sequences>) -> MutexGuard<'_, Sequences> {
    sequences.lock().unwrap_or_else(PoisonError::into_inner)
}

struct WireClient {
    host: String,
    topic: String,
    sequences: Arc<Mutex<Sequences>>,
    turns: Turns,
}

impl Client for WireClient {
    /// Nothing of its own can be dead.
    fn is_usable(&self) -> bool {
        true
    }

    fn produce(
        &mut self,
        control: &mut Connection,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
        deadline: Instant,
    ) -> Result<PerPartition<i64>, BrokerError> {
        let sequences = self.sequences.clone();
        let mut sequences = lock(&sequences);
        for batch in batches {
            sequences.prepare(batch.partition, &batch.records);
        }
        self.have_id(&mut sequences, control, deadline)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let body = self.produce_body(ack_timeout).i32(batches.len() as i32);
        let body = batches.iter().fold(body, |body, batch| {
            let encoded = sequences.batch(batch.partition, &batch.records, now_ms);
            body.i32(batch.partition).bytes(encoded.expect("an id was asked for above"))
        });
        let asked: Vec<i32> = batches.iter().map(|batch| batch.partition).collect();
        let outcomes = self.produced(control, body, deadline)?;
        let is_absurd = outcomes.iter().any(|(_, outcome)| outcome.is_ok_and(|offset| offset < 0));
        if is_absurd || !answers_exactly(&asked, &outcomes) {
            let host = &self.host;
            return Err(BrokerError::Retryable(format!(
                "broker {host}: produce: an answer to another request"
            )));
        }
        for (partition, outcome) in &outcomes {
            sequences.settle(*partition, *outcome);
        }
        Ok(outcomes)
    }

    /// A batch that fails its checksum, which the broker compares after it has looked at leader and replicas.
    fn would_acknowledge(
        &mut self,
        control: &mut Connection,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<PerPartition<()>, BrokerError> {
        self.have_id(&mut lock(&self.sequences), control, deadline)?;
        let unacceptable = batch::unacceptable();
        let body = self
            .produce_body(client::ack_timeout(deadline))
            .array(partitions, |w, partition| w.i32(*partition).bytes(&unacceptable));
        let outcomes = self.produced(control, body, deadline)?.into_iter();
        Ok(outcomes
            .map(|(partition, outcome)| match outcome {
                Err(code) if code == Code::CORRUPT_MESSAGE || code.is_too_large() => (partition, Ok(())),
                outcome => (partition, outcome.map(drop)),
            })
            .collect())
    }

    fn fetch(
        &mut self,
        control: &mut Connection,
        positions: &[Position],
        wait: Duration,
        deadline: Instant,
    ) -> Result<Vec<Fetched>, BrokerError> {
        let share = client::fetch_share(positions.len());
        let share_bytes = i32::try_from(share).unwrap_or(i32::MAX);
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let all_bytes = share_bytes.saturating_mul(positions.len() as i32);
        let mut turn = positions.to_vec();
        turn.rotate_left(self.turns.next(positions.iter().map(|at| at.partition)));
        let body = Writer::default().i32(-1).i32(wait_ms).i32(1).i32(all_bytes).i8(READ_COMMITTED);
        let body = body.array(&[self.topic.as_str()], |w, topic| {
            w.str(topic).array(&turn, |w, at| w.i32(at.partition).i64(at.offset).i32(share_bytes))
        });
        let mut pages =
            control.call(FETCH, body, deadline, |r| answer::pages(r, &self.topic, &turn, share))?;
        Ok(positions.iter().map(|at| self.fetched(&mut pages, at.partition)).collect())
    }
}

impl WireClient {
    /// A broker that has just started has no ids to give for a moment.
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
                        "broker {host}: no producer id was given: {code}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// A produce request up to the partitions of the topic.
    fn produce_body(&self, ack_timeout: Duration) -> Writer {
        let ack_timeout = i32::try_from(ack_timeout.as_millis()).unwrap_or(i32::MAX);
        Writer::default().i16(NULL).i16(ALL_REPLICAS).i32(ack_timeout).i32(1).str(&self.topic)
    }

    fn produced(
        &self,
        control: &mut Connection,
        body: Writer,
        deadline: Instant,
    ) -> Result<PerPartition<i64>, BrokerError> {
        control.call(PRODUCE, body, deadline, |r| {
            let outcomes = per_partition(r, &self.topic, |r| {
                let (partition, code, base, _append_time) = (r.i32()?, Code(r.i16()?), r.i64()?, r.i64()?);
                Ok((partition, code.check().map(|()| base)))
            })?;
            let _throttle = r.i32()?;
            Ok(outcomes)
        })
    }

    /// Takes the answer about `partition` out of `pages`.
    fn fetched(&self, pages: &mut PerPartition<Result<Page, Trouble>>, partition: i32) -> Fetched {
        let found = pages.iter().position(|(id, _)| *id == partition).map(|at| pages.swap_remove(at).1);
        let at = || format!("broker {}: fetch of {}/{partition}", self.host, self.topic);
        let page = match found.unwrap_or(Err(Code::UNKNOWN_TOPIC_OR_PARTITION)) {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(Trouble::Damaged(offset))) => Err(BrokerError::Retryable(format!(
                "{}: what the broker sent from offset {offset} on fails its checksum; is its disk in order?",
                at()
            ))),
            Ok(Err(Trouble::Unreadable(offset, what))) => Err(BrokerError::Unreadable(format!(
                "{}/{partition} holds records from offset {offset} on that are {what}, which this client cannot \
                 read; skip or delete these records",
                self.topic
            ))),
            Err(code) => Err(client::fetch_refusal(at(), code)),
        };
        Fetched { partition, page }
    }
}

/// An id for batches outside of transactions.
fn new_producer_id(
    control: &mut Connection,
    deadline: Instant,
) -> Result<Result<sequence::ProducerId, Code>, BrokerError> {
    let no_transaction_timeout = i32::MAX;
    control.call(INIT_PRODUCER_ID, Writer::default().i16(NULL).i32(no_transaction_timeout), deadline, |r| {
        let (_throttle, code) = (r.i32()?, Code(r.i16()?));
        let id = (r.i64()?, r.i16()?);
        Ok(code.check().map(|()| id))
    })
}
