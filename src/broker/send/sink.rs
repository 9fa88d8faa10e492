//! Publishes records: splits a call into requests, sends each to its leader, and collects the receipts.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::broker::client::{Batch, BatchInDoubt, Produced};
use crate::broker::cluster::Cluster;
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{Code, PerPartition, ack_timeout, outcome_of};
use crate::broker::record::{Receipt, Record};
use crate::broker::send::dispatch::{Dispatch, Refusal};
use crate::broker::send::partition::{self, Part, Turn};
use crate::broker::send::{doubt, probe};
use crate::broker::topic::Sink;
use crate::transport::left;

/// Time reserved for each further broker while waiting for one.
const RESERVE: Duration = Duration::from_millis(500);

/// How soon the caller may resend records that one broker's quota delays, if another broker has quota left.
const QUOTA_POLL: Duration = Duration::from_millis(100);

/// A [`Sink`] for one topic of a cluster.
pub struct KafkaSink {
    cluster: Cluster,
    turn: Turn,
    /// Some record had a key: then every partition must acknowledge. Otherwise the available ones are enough.
    keyed: bool,
}

impl KafkaSink {
    pub(in crate::broker) fn new(cluster: Cluster) -> Self {
        // A random start, so that several producers do not all begin with the same partition.
        Self { cluster, turn: Turn(fastrand::usize(..1 << 20)), keyed: false }
    }

    fn split(&mut self, records: &[Record<'_>], repeated: Vec<Part>, deadline: Instant) -> Result<Vec<Part>> {
        let metadata = self.cluster.metadata(deadline)?;
        let led: Vec<(i32, &str)> =
            metadata.partitions.iter().filter_map(|p| Some((p.id, p.leader.as_deref()?))).collect();
        // Records without a key that cannot be sent to one broker now go to another.
        let (mut free, mut throttled): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for &(_, host) in &led {
            if !free.contains(&host) && !throttled.contains(&host) {
                let is_free = self.cluster.check_quota(host, deadline).is_ok();
                if is_free { &mut free } else { &mut throttled }.push(host);
            }
        }
        let is_awake = |&(_, host): &(i32, &str)| {
            !self.cluster.is_avoided(host) && (free.is_empty() || free.contains(&host))
        };
        // A record behind a part in doubt would have to wait with it.
        let is_clear = |&(id, _): &(i32, &str)| repeated.iter().all(|part| part.partition != id);
        let mut available: Vec<i32> =
            led.iter().filter(|at| is_awake(at) && is_clear(at)).map(|(id, _)| *id).collect();
        if available.is_empty() {
            available = led.iter().filter(|at| is_awake(at)).map(|(id, _)| *id).collect();
        }
        if available.is_empty() {
            available = led.iter().map(|(id, _)| *id).collect();
        }
        Ok(partition::split(records, repeated, metadata.partitions.len(), &available, &mut self.turn))
    }

    /// Sends repeated parts last, and with a short limit, if there is anything else to send. Their leader may
    /// wait for replicas until the cluster gives one up, and the other parts must not wait for that.
    fn send_round(
        &mut self,
        round: Vec<Part>,
        records: &[Record<'_>],
        dispatch: &mut Dispatch,
        deadline: Instant,
    ) {
        let repeated = round.iter().filter(|part| part.is_repeated).count();
        if repeated == 0 || repeated == round.len() {
            return self.send_parts(round, records, dispatch, deadline);
        }
        let (repeated, new): (Vec<Part>, Vec<Part>) = round.into_iter().partition(|part| part.is_repeated);
        self.send_parts(new, records, dispatch, reserve(deadline, 1));
        // Its response may be late, and it may have to connect first: giving up early costs more.
        let limit = self.cluster.connect_timeout().max(2 * RESERVE);
        self.send_parts(repeated, records, dispatch, deadline.min(Instant::now() + limit));
    }

    fn send_parts(
        &mut self,
        round: Vec<Part>,
        records: &[Record<'_>],
        dispatch: &mut Dispatch,
        deadline: Instant,
    ) {
        let partitions = round.iter().map(|part| part.partition);
        let groups = match self.cluster.metadata(deadline) {
            Ok(metadata) => metadata.by_leader(partitions),
            Err(error) => {
                for part in round {
                    dispatch.settle(part, Err(Refusal::Failed(error.clone())));
                }
                return;
            }
        };
        let mut round = round;
        let brokers = groups.len();
        for (done, (leader, partitions)) in groups.into_iter().enumerate() {
            let (parts, rest): (Vec<Part>, Vec<Part>) =
                round.into_iter().partition(|part| partitions.contains(&part.partition));
            round = rest;
            let answers = match &leader {
                // A silent broker must leave time for the others.
                Some(host) => {
                    let deadline = reserve(deadline, brokers - done - 1);
                    self.send_to(host, &parts, records, deadline)
                }
                None => Err(BrokerError::Retryable("the partition has no leader at the moment".into())),
            };
            for part in parts {
                let answer = self.answer(&answers, &part, records);
                dispatch.settle(part, answer);
            }
        }
    }

    fn send_to(
        &mut self,
        host: &str,
        parts: &[Part],
        records: &[Record<'_>],
        deadline: Instant,
    ) -> Result<PerPartition<Produced>> {
        if left(deadline).is_zero() {
            return Err(BrokerError::Retryable("no time was left to send it".into()));
        }
        self.cluster.check_not_avoided(host)?;
        self.cluster.check_quota(host, deadline)?;
        let batches: Vec<Batch<'_>> = parts
            .iter()
            .map(|part| Batch { partition: part.partition, records: of_part(part, records) })
            .collect();
        self.cluster.on_client(host, deadline, |client, on| {
            let is_repeated = parts.iter().all(|part| part.is_repeated);
            let limit = if is_repeated { RESERVE } else { Duration::MAX };
            let ack_timeout = ack_timeout(deadline).min(limit);
            client.produce(on, &batches, ack_timeout)
        })
    }

    fn answer(
        &mut self,
        answers: &Result<PerPartition<Produced>>,
        part: &Part,
        records: &[Record<'_>],
    ) -> Result<i64, Refusal> {
        let (topic, partition) = (self.cluster.topic(), part.partition);
        let code = match answers {
            Err(error) => return Err(Refusal::Failed(error.clone())),
            Ok(answers) => match outcome_of(answers, partition) {
                Ok(Produced::At(offset)) => return Ok(offset),
                Ok(Produced::Rejected(verdict)) => {
                    return Err(Refusal::Rejected(format!("{topic}/{partition}"), verdict));
                }
                Err(code) => code,
            },
        };
        if code.is_too_large() {
            return Err(Refusal::TooLarge(format!(
                "{topic}/{partition}: a record of {} bytes exceeds the topic's limit ({code}); \
                 raise max.message.bytes on the topic or send smaller events",
                part.records.iter().map(|&index| size(&records[index])).max().unwrap_or(0)
            )));
        }
        let text =
            format!("{topic}/{partition}: the broker did not accept {} records: {code}", part.records.len());
        self.cluster.forget_leaders();
        let is_waiting = part.is_repeated && code == Code::REQUEST_TIMED_OUT;
        let error = if is_waiting { BrokerError::Waiting(text) } else { BrokerError::Retryable(text) };
        Err(Refusal::Failed(error))
    }

    /// The caller accepts new events while a batch is waiting, so the other partitions must be working. If no
    /// response of this call shows that, asks them.
    fn check_waiting(&mut self, outcomes: &mut [Result<Receipt>], deadline: Instant) {
        if !outcomes.iter().all(|outcome| matches!(outcome, Err(BrokerError::Waiting(_)))) {
            return;
        }
        let others = if self.keyed { Ok(false) } else { self.others_would_acknowledge(deadline) };
        let why_not = match others {
            Ok(true) => return,
            Ok(false) => String::new(),
            Err(error) => format!("; the other partitions: {error}"),
        };
        for outcome in outcomes {
            if let Err(BrokerError::Waiting(text)) = outcome {
                *outcome = Err(BrokerError::Retryable(format!("{text}{why_not}")));
            }
        }
    }

    /// While another broker would accept records, the caller must not wait for this broker's quota.
    fn check_throttled(&mut self, outcomes: &mut [Result<Receipt>], deadline: Instant) {
        let is_throttled = |outcome: &Result<_, _>| matches!(outcome, Err(BrokerError::Throttled(..)));
        if !outcomes.iter().any(is_throttled) || !self.is_any_free(deadline) {
            return;
        }
        for outcome in outcomes {
            if let Err(BrokerError::Throttled(until, _)) = outcome {
                *until = (*until).min(Instant::now() + QUOTA_POLL);
            }
        }
    }

    fn is_any_free(&mut self, deadline: Instant) -> bool {
        let Ok(metadata) = self.cluster.metadata(deadline) else { return false };
        let mut hosts = metadata.partitions.iter().filter_map(|partition| partition.leader.as_deref());
        hosts.any(|host| self.cluster.check_quota(host, deadline).is_ok())
    }

    /// False if there is no partition without a batch in doubt.
    fn others_would_acknowledge(&mut self, deadline: Instant) -> Result<bool> {
        let metadata = self.cluster.metadata(deadline)?;
        let in_doubt = self.cluster.connector.in_doubt();
        let is_other = |id: &i32| in_doubt.iter().all(|batch| batch.partition != *id);
        let others: Vec<i32> = metadata.partitions.iter().map(|p| p.id).filter(is_other).collect();
        probe::would_acknowledge(&mut self.cluster, self.keyed, &others, deadline)?;
        Ok(!others.is_empty())
    }
}

/// Bytes of a record's value and headers.
fn size(record: &Record<'_>) -> usize {
    record.value.len() + record.headers.len()
}

fn of_part<'a>(part: &Part, records: &[Record<'a>]) -> Vec<Record<'a>> {
    part.records.iter().map(|&index| records[index]).collect()
}

/// Returns `deadline` minus the time that `later` brokers need if all is well with them. A slow broker may
/// use the rest, because giving it up early means writing twice.
fn reserve(deadline: Instant, later: usize) -> Instant {
    let later = u32::try_from(later).unwrap_or(u32::MAX);
    let left = left(deadline);
    Instant::now() + left - (RESERVE * later).min(left / later.saturating_add(1) * later)
}

impl Sink for KafkaSink {
    fn send(&mut self, records: &[Record<'_>], limit: Duration) -> Vec<Result<Receipt>> {
        let deadline = Instant::now() + limit;
        self.keyed = self.keyed || records.iter().any(|record| record.key.is_some());
        let in_doubt = self.cluster.connector.in_doubt();
        let repeated = doubt::repeated(&in_doubt, records);
        let parts = match self.split(records, repeated.parts, deadline) {
            Ok(parts) => parts,
            Err(error) => return vec![Err(error); records.len()],
        };
        for BatchInDoubt { partition, .. } in &in_doubt {
            if !parts.iter().any(|part| part.is_repeated && part.partition == *partition) {
                self.cluster.connector.abandon(*partition);
            }
        }
        let all = if repeated.given_up.is_empty() {
            Cow::Borrowed(records)
        } else {
            Cow::Owned([records, &repeated.given_up].concat())
        };
        let mut dispatch = Dispatch::new(all.len(), parts);
        loop {
            let round = dispatch.next_round();
            if round.is_empty() {
                let mut outcomes = dispatch.finish();
                outcomes.truncate(records.len());
                self.check_waiting(&mut outcomes, deadline);
                self.check_throttled(&mut outcomes, deadline);
                return outcomes;
            }
            self.send_round(round, &all, &mut dispatch, deadline);
        }
    }

    fn probe(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let all: Vec<i32> = self.cluster.metadata(deadline)?.partitions.iter().map(|p| p.id).collect();
        probe::would_acknowledge(&mut self.cluster, self.keyed, &all, deadline)
    }
}
