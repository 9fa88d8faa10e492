//! The client: produces with sequence numbers, probes, and fetches.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};

use crate::broker::client::{Batch, Client, Produced};
use crate::broker::error::{BrokerError, Result};
use crate::broker::page::Page;
use crate::broker::protocol::{
    Call, Code, FetchLimits, ONE_BATCH, PerPartition, READ_COMMITTED, Wanted, ack_timeout, fetch,
};
use crate::broker::record::{Fetched, Position};
use crate::broker::wire::produce::{check_answers, new_producer_id, offset_in, produce_body, produced};
use crate::broker::wire::records::PageError;
use crate::broker::wire::sequence::Sequences;
use crate::broker::wire::{answer, batch, probe};
use crate::config::Compression;
use crate::transport::left;

/// Pause between two requests for a producer id.
const ID_POLL: Duration = Duration::from_millis(20);

/// Opens clients that share the sequence numbers of one producer.
pub struct WireConnector {
    sequences: Arc<Mutex<Sequences>>,
}

impl WireConnector {
    /// Creates a connector whose clients compress what they write.
    pub fn new(compression: Compression) -> Self {
        Self { sequences: Arc::new(Mutex::new(Sequences::new(compression))) }
    }

    /// The sequence numbers in use, and the batches in doubt.
    pub fn sequences(&self) -> MutexGuard<'_, Sequences> {
        self.sequences.lock()
    }

    /// Creates a client for one broker.
    pub fn client(&self) -> Box<dyn Client> {
        Box::new(WireClient { sequences: self.sequences.clone(), proven: HashMap::new() })
    }
}

struct WireClient {
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
        on: &mut Call<'_>,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
    ) -> Result<PerPartition<Produced>> {
        let sequences = self.sequences.clone();
        let mut sequences = sequences.lock();
        for batch in batches {
            sequences.prepare(batch.partition, &batch.records);
        }
        ensure_id(&mut sequences, on)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        for batch in batches {
            sequences.number(batch.partition, &batch.records, now_ms);
        }
        // From here the bytes go to the socket: what is kept in case of doubt is exactly what was sent.
        let in_doubt = &*sequences;
        let body = produce_body(on.topic, ack_timeout).array(batches, |w, batch| {
            let encoded = in_doubt.encoded(batch.partition);
            w.i32(batch.partition).lend(encoded.expect("an id was asked for above"))
        });
        let outcomes = produced(on, body)?;
        check_answers(on.connection.host(), batches, &outcomes)?;
        for (partition, outcome) in &outcomes {
            sequences.settle(*partition, offset_in(outcome));
        }
        Ok(outcomes)
    }

    /// Leaves no trace in the broker's metrics where that is possible (see `probe`).
    fn would_acknowledge(&mut self, on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<()>> {
        ensure_id(&mut self.sequences.lock(), on)?;
        if !probe::is_served(on.versions) {
            return produce_corrupt(on, partitions);
        }
        let state = match probe::state(on, partitions)? {
            Ok(state) => state,
            Err(code) => return Ok(partitions.iter().map(|partition| (*partition, Err(code))).collect()),
        };
        let (mut outcomes, mut unclear) = (PerPartition::with_capacity(partitions.len()), HashMap::new());
        for &partition in partitions {
            match state.of(partition, on.connection.host()) {
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
            let answered = produce_corrupt(on, &partitions)?;
            let proven = answered.iter().filter(|(_, outcome)| outcome.is_ok());
            let proven = proven.filter_map(|(partition, _)| Some((*partition, *unclear.get(partition)?)));
            self.proven.extend(proven);
            outcomes.extend(answered);
        }
        Ok(outcomes)
    }

    fn fetch(
        &mut self,
        on: &mut Call<'_>,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>> {
        let share = fetch::fetch_share(positions.len());
        let share_bytes = if limits.one_batch { ONE_BATCH } else { i32::try_from(share).unwrap_or(i32::MAX) };
        let max_bytes = share_bytes.saturating_mul(positions.len() as i32);
        let wanted: Vec<(Position, i32)> = positions.iter().map(|at| (*at, share_bytes)).collect();
        let wanted = Wanted { partitions: &wanted, max_bytes, isolation: READ_COMMITTED };
        let topic = on.topic;
        let answer = fetch::fetch(on, &wanted, limits, |r, version| {
            answer::pages(r, topic, positions, (share, limits.max_bytes), version)
        })?;
        let mut pages = match answer {
            Ok(pages) => pages,
            Err(found) => {
                let page = Err(found.error(topic, limits.max_bytes));
                return Ok(vec![Fetched { partition: found.partition, page }]);
            }
        };
        if pages.is_empty() {
            // A broker whose quota is exceeded leaves all partitions out.
            on.connection.check_quota()?;
        }
        Ok(positions.iter().map(|at| fetched(on, &mut pages, at.partition)).collect())
    }
}

/// Sends a batch with a wrong checksum, which the broker verifies after it has checked leader and
/// replicas. The broker's metrics count it as a corrupt message.
fn produce_corrupt(on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<()>> {
    let unacceptable = batch::unacceptable();
    let body = produce_body(on.topic, ack_timeout(on.deadline))
        .array(partitions, |w, partition| w.i32(*partition).bytes(&unacceptable));
    let outcomes = produced(on, body)?;
    Ok(outcomes
        .into_iter()
        .map(|(partition, outcome)| match offset_in(&outcome) {
            Err(code) if code == Code::CORRUPT_MESSAGE || code.is_too_large() => (partition, Ok(())),
            outcome => (partition, outcome.map(drop)),
        })
        .collect())
}

/// Gets a producer id if one is needed. A broker that has just started cannot assign one for a moment.
fn ensure_id(sequences: &mut Sequences, on: &mut Call<'_>) -> Result<()> {
    while sequences.needs_id() {
        match new_producer_id(on)? {
            Ok(id) => sequences.begin(id),
            Err(code) if code.is_of_coordinator() && left(on.deadline) > ID_POLL => thread::sleep(ID_POLL),
            Err(code) => {
                let host = on.connection.host();
                return Err(BrokerError::Retryable(format!(
                    "broker {host}: no producer id was assigned: {code}"
                )));
            }
        }
    }
    Ok(())
}

/// Takes the result for `partition` out of `pages`.
fn fetched(on: &Call<'_>, pages: &mut PerPartition<Result<Page, PageError>>, partition: i32) -> Fetched {
    let topic = on.topic;
    let found = pages.iter().position(|(id, _)| *id == partition).map(|at| pages.swap_remove(at).1);
    let at = || format!("broker {}: fetch of {topic}/{partition}", on.connection.host());
    let page = match found.unwrap_or(Err(Code::UNKNOWN_TOPIC_OR_PARTITION)) {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(PageError::Damaged(offset))) => Err(BrokerError::Retryable(format!(
            "{}: the data sent from offset {offset} on fails its checksum; check the broker's disk",
            at()
        ))),
        Ok(Err(PageError::Unreadable(offset, what))) => Err(BrokerError::Unreadable(format!(
            "{topic}/{partition} holds records from offset {offset} on that are {what}, which this client \
                 cannot read; skip or delete these records"
        ))),
        Err(code) => Err(fetch::fetch_refusal(at(), code)),
    };
    Fetched { partition, page }
}
