//! Fetches from the brokers that lead the partitions: who is asked, in which order, and how long each may
//! wait.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::cluster::Cluster;
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{FETCH_BYTES, FetchLimits, Metadata, PerPartition, Question, epoch_ends};
use crate::broker::read::turns::Turns;
use crate::broker::record::{Fetched, Position};

/// How long a fetch waits if there is nothing to read.
const LONG_POLL: Duration = Duration::from_millis(200);

/// Maximum number of partitions in one fetch, which bounds its memory; with more, they take turns.
const MAX_PARTITIONS_PER_FETCH: usize = 12;

/// Largest batch to read, unless the caller says otherwise.
const FETCH_MAX_BYTES: usize = 64 << 20;

/// Reads the topic's partitions.
pub struct Fetcher {
    pub cluster: Cluster,
    /// Largest batch to read, as stored and decompressed.
    pub max_bytes: usize,
    turns: Turns,
    /// Partitions that could not be read at these offsets. They are fetched alone, because an oversized batch
    /// of one partition displaces all others in a response.
    alone: HashMap<i32, i64>,
}

impl Fetcher {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, max_bytes: FETCH_MAX_BYTES, turns: Turns::default(), alone: HashMap::new() }
    }

    /// Chooses the positions to fetch now, if there are more than a fetch may hold, and their order.
    pub fn choose(&mut self, positions: &[Position]) -> Vec<Position> {
        self.turns.choose(positions, MAX_PARTITIONS_PER_FETCH)
    }

    /// Limits of a fetch.
    pub fn limits(&self, wait: Duration) -> FetchLimits {
        FetchLimits { wait, max_bytes: self.max_bytes, one_batch: false }
    }

    /// Fetches `positions`, chosen from `all`, from the brokers that lead them by `metadata`.
    pub fn fetch_led(&mut self, metadata: &Metadata, positions: &[Position], all: usize) -> Vec<Fetched> {
        let groups = metadata.by_leader(positions.iter().map(|position| position.partition));
        // Brokers are asked one after another, and partitions may take turns: each must wait only briefly.
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
            let fetched = match leader {
                Some(host) => self.fetch_from(&host, &wanted, wait),
                None => Err(BrokerError::Retryable(format!("{} has no leader for it", self.cluster.topic()))),
            };
            let fetched = fetched.unwrap_or_else(|error| {
                let failed = |at: &Position| Fetched { partition: at.partition, page: Err(error.clone()) };
                wanted.iter().map(failed).collect()
            });
            let is_stale = |fetched: &Fetched| match &fetched.page {
                Err(BrokerError::Throttled(..)) | Ok(_) => false,
                Err(error) => error.is_retryable(),
            };
            if fetched.iter().any(is_stale) {
                self.cluster.forget_leaders();
            }
            answers.extend(fetched);
        }
        answers
    }

    /// Fetches from `host`. Partitions that must be asked alone get a request of their own.
    fn fetch_from(&mut self, host: &str, positions: &[Position], wait: Duration) -> Result<Vec<Fetched>> {
        self.cluster.check_not_avoided(host)?;
        let (alone, together): (Vec<Position>, Vec<Position>) =
            positions.iter().copied().partition(|at| self.alone.get(&at.partition) == Some(&at.offset));
        let mut fetched = Vec::with_capacity(positions.len());
        if let Some(first) = together.first() {
            self.turns.is_first(first.partition);
            fetched.extend(self.fetch_at_once(host, &together, self.limits(wait))?);
        }
        for position in alone {
            if !is_large(&fetched) {
                self.turns.is_first(position.partition);
                fetched.extend(self.fetch_at_once(host, &[position], self.limits(Duration::ZERO))?);
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

    /// Fetches `positions` from `host` in one request.
    pub fn fetch_at_once(
        &mut self,
        host: &str,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>> {
        let deadline = self.cluster.request_deadline() + limits.wait;
        self.cluster.check_quota(host, deadline)?;
        self.cluster.on_client(host, deadline, |client, on| client.fetch(on, positions, limits))
    }

    /// Asks `host` how far leader epochs reach in its log.
    pub fn epoch_ends(&mut self, host: &str, questions: &[Question]) -> Result<PerPartition<(i32, i64)>> {
        let deadline = self.cluster.request_deadline();
        self.cluster.on_control(host, deadline, |on| epoch_ends(on, questions))
    }
}

/// True if `answers` hold a batch above the usual size.
fn is_large(answers: &[Fetched]) -> bool {
    answers.iter().flat_map(|fetched| &fetched.page).any(|page| page.value_bytes() > FETCH_BYTES)
}

/// Returns `answers`, or the first error if every partition failed for lack of a broker.
pub fn unless_all_failed(answers: Vec<Fetched>) -> Result<Vec<Fetched>> {
    let lacks_broker = |fetched: &Fetched| {
        use BrokerError::{Refused, Retryable, Unsupported};
        matches!(fetched.page, Err(Retryable(_) | Refused(_) | Unsupported(_)))
    };
    match answers.first().map(|first| &first.page) {
        Some(Err(error)) if answers.iter().all(lacks_broker) => Err(error.clone()),
        _ => Ok(answers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::page::Page;

    #[test]
    fn a_fetch_fails_as_a_whole_only_when_every_partition_did() {
        let fails = |pages: Vec<Result<Page, BrokerError>>| {
            unless_all_failed(pages.into_iter().map(|page| Fetched { partition: 0, page }).collect()).err()
        };
        let down = || Err(BrokerError::Retryable("down".into()));
        let unreadable = || Err(BrokerError::Unreadable("lz4".into()));
        assert_eq!(fails(vec![]), None);
        assert_eq!(fails(vec![down(), Ok(Page::default())]), None);
        assert_eq!(fails(vec![down(), unreadable()]), None);
        assert_eq!(fails(vec![down(), down()]), Some(BrokerError::Retryable("down".into())));
    }
}
