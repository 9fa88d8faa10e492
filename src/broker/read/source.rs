//! Reads the topic from positions that the caller keeps.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::broker::cluster::Cluster;
use crate::broker::commit::group;
use crate::broker::error::BrokerError;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Connection;
use crate::broker::protocol::control::{self, PerPartition, outcome_of};
use crate::broker::protocol::deadline::share;
use crate::broker::protocol::fetch::{FETCH_BYTES, FetchLimits};
use crate::broker::protocol::group as requests;
use crate::broker::protocol::metadata::Metadata;
use crate::broker::protocol::topic_id::topic_id;
use crate::broker::read::follow::Term;
use crate::broker::read::leader_log::Seen;
use crate::broker::record::{Bounds, Committed, Compared, Fetched, Position};
use crate::broker::topic::Source;
use crate::broker::trail::Trails;

/// How long a fetch waits if there is nothing to read.
const LONG_POLL: Duration = Duration::from_millis(200);

/// Maximum number of partitions in one fetch, which bounds its memory; with more, they take turns.
const MAX_PARTITIONS_PER_FETCH: usize = 12;

/// Largest batch to read, unless the caller says otherwise.
const FETCH_MAX_BYTES: usize = 64 << 20;

/// A [`Source`] for one topic of a cluster.
pub struct KafkaSource {
    pub(in crate::broker) cluster: Cluster,
    /// The term in which each partition was found to contain what was read from it.
    pub(in crate::broker) terms: HashMap<i32, Term>,
    /// What was read for a comparison that is not finished.
    pub(in crate::broker) seen: HashMap<i32, Seen>,
    pub(in crate::broker) told_unchecked: bool,
    /// The broker that keeps the offsets of each group.
    coordinators: HashMap<String, String>,
    fetches: usize,
    pub(in crate::broker) max_bytes: usize,
    /// Partitions that could not be read at these offsets. They are fetched alone, because an oversized batch
    /// of one partition displaces all others in a response.
    alone: HashMap<i32, i64>,
}

impl KafkaSource {
    pub(in crate::broker) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            terms: HashMap::new(),
            seen: HashMap::new(),
            told_unchecked: false,
            coordinators: HashMap::new(),
            fetches: 0,
            max_bytes: FETCH_MAX_BYTES,
            alone: HashMap::new(),
        }
    }

    /// Sets the largest batch to read, as stored and decompressed; 64 MiB by default.
    pub fn with_fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Calls the coordinator of `group`, which any broker can name.
    fn on_coordinator<T>(
        &mut self,
        group: &str,
        deadline: Instant,
        call: impl FnOnce(&mut Connection, &str) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let host = match self.coordinators.remove(group) {
            Some(host) => host,
            None => {
                let any = self.cluster.any_broker(deadline)?;
                let brokers = self.cluster.metadata(deadline)?.brokers.len();
                self.cluster
                    .on_control(&any, deadline, |on| requests::find_coordinator(on, group, deadline))?
                    .map_err(|code| group::no_coordinator(group, code, brokers))?
            }
        };
        let topic = self.cluster.topic().to_owned();
        let answer = self.cluster.on_control(&host, deadline, |on| call(on, &topic))?;
        self.coordinators.insert(group.to_owned(), host);
        Ok(answer)
    }

    /// Collects `outcomes`, or returns the first code as an error. The coordinator is then looked up again.
    fn all_ok<T: Clone>(
        &mut self,
        group: &str,
        what: &str,
        partitions: &[i32],
        outcomes: &PerPartition<T>,
    ) -> Result<Vec<T>, BrokerError> {
        let all: Result<Vec<T>, (i32, Code)> = partitions
            .iter()
            .map(|&partition| outcome_of(outcomes, partition).map_err(|code| (partition, code)))
            .collect();
        all.map_err(|(partition, code)| {
            self.coordinators.remove(group);
            group::refused(group, &format!("{what} of {}/{partition}", self.cluster.topic()), code)
        })
    }

    /// The positions whose turn it is when there are more than one fetch may hold. The first one changes in any case:
    /// what is large may leave no room for the others.
    pub fn in_turn(&mut self, positions: &[Position]) -> Vec<Position> {
        let mut chosen = positions.to_vec();
        let step = if positions.len() > MAX_PARTITIONS_PER_FETCH { MAX_PARTITIONS_PER_FETCH } else { 1 };
        chosen.rotate_left(self.fetches.wrapping_mul(step) % positions.len().max(1));
        chosen.truncate(MAX_PARTITIONS_PER_FETCH);
        self.fetches = self.fetches.wrapping_add(1);
        chosen
    }

    /// Fetches from `host`. Partitions that must be asked alone get a request of their own.
    pub fn fetch_from(
        &mut self,
        host: &str,
        positions: &[Position],
        wait: Duration,
    ) -> Result<Vec<Fetched>, BrokerError> {
        self.cluster.refuse_resting(host)?;
        let (alone, together): (Vec<Position>, Vec<Position>) =
            positions.iter().copied().partition(|at| self.alone.get(&at.partition) == Some(&at.offset));
        let mut fetched = Vec::with_capacity(positions.len());
        if !together.is_empty() {
            let limits = self.limits(wait);
            fetched.extend(self.fetch_at_once(host, &together, limits)?);
        }
        for position in alone {
            if !is_large(&fetched) {
                let limits = self.limits(Duration::ZERO);
                fetched.extend(self.fetch_at_once(host, &[position], limits)?);
            }
        }
        for Fetched { partition, page } in &fetched {
            let Some(at) = positions.iter().find(|at| at.partition == *partition) else { continue };
            match page {
                Err(BrokerError::Unreadable(_)) => drop(self.alone.insert(*partition, at.offset)),
                // A fetch elsewhere in the partition, for a comparison, says nothing about this offset.
                Ok(_) if self.alone.get(partition) == Some(&at.offset) => drop(self.alone.remove(partition)),
                _ => {}
            }
        }
        Ok(fetched)
    }

    pub(in crate::broker) fn limits(&self, wait: Duration) -> FetchLimits {
        let deadline = self.cluster.request_deadline() + wait;
        FetchLimits { wait, max_bytes: self.max_bytes, one_batch: false, deadline }
    }

    pub(in crate::broker) fn fetch_at_once(
        &mut self,
        host: &str,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>, BrokerError> {
        self.cluster.check_quota(host, limits.deadline)?;
        self.cluster
            .on_client(host, limits.deadline, |client, control| client.fetch(control, positions, limits))
    }

    /// Fetches `positions`, out of `all` whose turn comes, from those who lead them by `metadata`.
    pub fn fetch_led(&mut self, metadata: &Metadata, positions: &[Position], all: usize) -> Vec<Fetched> {
        let groups = metadata.by_leader(positions.iter().map(|position| position.partition));
        // Brokers are asked one after another, and partitions may take turns: one that waits must not wait long.
        let turns = groups.len().max(1) * all.div_ceil(MAX_PARTITIONS_PER_FETCH).max(1);
        let wait = LONG_POLL / u32::try_from(turns).unwrap_or(u32::MAX);
        let mut answers = Vec::with_capacity(positions.len());
        for (leader, group) in groups {
            // One batch above the usual size is enough to hold; the other brokers are asked in the next fetch.
            if is_large(&answers) {
                break;
            }
            let wanted: Vec<Position> =
                positions.iter().filter(|position| group.contains(&position.partition)).copied().collect();
            let answer = match leader {
                Some(host) => self.fetch_from(&host, &wanted, wait),
                None => Err(BrokerError::Retryable(format!("{} has no leader for it", self.cluster.topic()))),
            };
            let stale = |fetched: &Fetched| fetched.page.as_ref().is_err_and(BrokerError::is_retryable);
            match answer {
                Ok(fetched) => {
                    if fetched.iter().any(stale) {
                        self.cluster.forget_leaders();
                    }
                    answers.extend(fetched);
                }
                Err(error) => {
                    if !matches!(error, BrokerError::Throttled(..)) {
                        self.cluster.forget_leaders();
                    }
                    answers.extend(
                        wanted.iter().map(|p| Fetched { partition: p.partition, page: Err(error.clone()) }),
                    );
                }
            }
        }
        answers
    }

    /// Returns the bounds of `partitions`, all led by `leader`, in the same order.
    ///
    /// # Errors
    /// Only errors that no later call would change: refused or unsupported.
    fn bounds_from(
        &mut self,
        leader: Option<String>,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<Vec<Result<Bounds, BrokerError>>, BrokerError> {
        let topic = self.cluster.topic().to_owned();
        let Some(host) = leader else {
            self.cluster.forget_leaders();
            let no_leader = |id| Err(BrokerError::Retryable(format!("{topic}/{id} has no leader")));
            return Ok(partitions.iter().map(no_leader).collect());
        };
        let asked = |on: &mut Connection| control::bounds(on, &topic, partitions, deadline);
        let outcomes = match self.cluster.on_control(&host, deadline, asked) {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_retryable() => return Ok(vec![Err(error); partitions.len()]),
            Err(error) => return Err(error),
        };
        let found = partitions.iter().map(|&partition| {
            outcome_of(&outcomes, partition).map_err(|code| {
                self.cluster.forget_leaders();
                BrokerError::Retryable(format!("broker {host}: offsets of {topic}/{partition}: {code}"))
            })
        });
        Ok(found.collect())
    }
}

impl Source for KafkaSource {
    fn partitions(&mut self) -> Result<Vec<i32>, BrokerError> {
        self.cluster.forget_leaders();
        let deadline = self.cluster.request_deadline();
        let metadata = self.cluster.metadata(deadline)?;
        if metadata.partitions.iter().any(|partition| partition.leader.is_none()) {
            self.cluster.forget_leaders();
        }
        Ok(metadata.partitions.iter().map(|partition| partition.id).collect())
    }

    fn topic_id(&mut self) -> Result<Option<String>, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let topic = self.cluster.topic().to_owned();
        let any = self.cluster.any_broker(deadline)?;
        self.cluster
            .on_control(&any, deadline, |on| topic_id(on, &topic, deadline))?
            .map_err(|code| BrokerError::Retryable(format!("broker {any}: id of topic {topic}: {code}")))
    }

    fn bounds(&mut self, partitions: &[i32]) -> Result<Vec<Result<Bounds, BrokerError>>, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let mut found = HashMap::new();
        let groups = self.cluster.metadata(deadline)?.by_leader(partitions.iter().copied());
        let mut waiting = groups.len();
        for (leader, group) in groups {
            // A leader that does not answer must leave time for the next one.
            let outcomes = self.bounds_from(leader, &group, share(deadline, waiting))?;
            found.extend(group.into_iter().zip(outcomes));
            waiting -= 1;
        }
        let found: Vec<_> = partitions.iter().map(|partition| found[partition].clone()).collect();
        match found.first() {
            Some(Err(error)) if found.iter().all(Result::is_err) => Err(error.clone()),
            _ => Ok(found),
        }
    }

    fn fetch(&mut self, positions: &[Position]) -> Result<Vec<Fetched>, BrokerError> {
        let chosen = self.in_turn(positions);
        let deadline = self.cluster.request_deadline();
        let metadata = self.cluster.metadata(deadline)?;
        let answers = self.fetch_led(&metadata, &chosen, positions.len());
        nothing_at_all(&answers).map_or(Ok(answers), Err)
    }

    fn follow(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Fetched>, BrokerError> {
        self.follow_on(positions, trails)
    }

    fn compare(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Compared>, BrokerError> {
        self.compare_now(positions, trails)
    }

    fn committed(&mut self, group: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let outcomes = self.on_coordinator(group, deadline, |on, topic| {
            requests::committed(on, (group, topic), partitions, deadline)
        })?;
        let outcomes = outcomes.map_err(|code| {
            self.coordinators.remove(group);
            group::refused(group, "committed offsets", code)
        })?;
        self.all_ok(group, "committed offset", partitions, &outcomes)
    }

    fn commit(&mut self, group: &str, positions: &[Position], note: &str) -> Result<(), BrokerError> {
        let deadline = self.cluster.request_deadline();
        let outcomes = self.on_coordinator(group, deadline, |on, topic| {
            requests::commit(on, (group, topic), (positions, note), deadline)
        })?;
        let partitions: Vec<i32> = positions.iter().map(|position| position.partition).collect();
        self.all_ok(group, "commit", &partitions, &outcomes).map(drop)
    }
}

/// True if `answers` hold a batch above the usual size.
fn is_large(answers: &[Fetched]) -> bool {
    answers.iter().flat_map(|fetched| &fetched.page).any(|page| page.value_bytes() > FETCH_BYTES)
}

/// The error to return if every partition failed for lack of a broker.
pub fn nothing_at_all(answers: &[Fetched]) -> Option<BrokerError> {
    let mut errors = answers.iter().map(|fetched| match &fetched.page {
        Err(error @ (BrokerError::Retryable(_) | BrokerError::Refused(_) | BrokerError::Unsupported(_))) => {
            Some(error)
        }
        _ => None,
    });
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then(|| first.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::page::Page;

    fn fetched(page: Result<Page, BrokerError>) -> Fetched {
        Fetched { partition: 0, page }
    }

    #[test]
    fn a_fetch_fails_as_a_whole_only_when_every_partition_did() {
        let down = || fetched(Err(BrokerError::Retryable("down".into())));
        let unreadable = || fetched(Err(BrokerError::Unreadable("lz4".into())));
        assert!(nothing_at_all(&[]).is_none());
        assert!(nothing_at_all(&[down(), fetched(Ok(Page::default()))]).is_none());
        assert!(nothing_at_all(&[down(), unreadable()]).is_none());
        assert_eq!(nothing_at_all(&[down(), down()]), Some(BrokerError::Retryable("down".into())));
    }
}
