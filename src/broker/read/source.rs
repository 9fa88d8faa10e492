//! Reads the topic from positions that the caller keeps.

use std::collections::HashMap;
use std::time::Instant;

use crate::broker::cluster::Cluster;
use crate::broker::commit::coordinator::Coordinators;
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{control, outcome_of, share, topic_id};
use crate::broker::read::fetch::{Fetcher, unless_all_failed};
use crate::broker::read::follow;
use crate::broker::read::terms::Terms;
use crate::broker::record::{Bounds, Committed, Compared, Fetched, Position};
use crate::broker::topic::Source;
use crate::broker::trail::Trails;

/// A [`Source`] for one topic of a cluster.
pub struct KafkaSource {
    fetcher: Fetcher,
    terms: Terms,
    coordinators: Coordinators,
}

impl KafkaSource {
    pub(in crate::broker) fn new(cluster: Cluster) -> Self {
        let (fetcher, terms) = (Fetcher::new(cluster), Terms::default());
        Self { fetcher, terms, coordinators: Coordinators::default() }
    }

    /// Sets the largest batch to read, as stored and decompressed; 64 MiB by default.
    pub fn with_fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.fetcher.max_bytes = bytes;
        self
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
    ) -> Result<Vec<Result<Bounds>>> {
        let topic = self.fetcher.cluster.topic().to_owned();
        let Some(host) = leader else {
            self.fetcher.cluster.forget_leaders();
            let no_leader = |id| Err(BrokerError::Retryable(format!("{topic}/{id} has no leader")));
            return Ok(partitions.iter().map(no_leader).collect());
        };
        let outcomes =
            match self.fetcher.cluster.on_control(&host, deadline, |on| control::bounds(on, partitions)) {
                Ok(outcomes) => outcomes,
                Err(error) if error.is_retryable() => return Ok(vec![Err(error); partitions.len()]),
                Err(error) => return Err(error),
            };
        let found = partitions.iter().map(|&partition| {
            outcome_of(&outcomes, partition).map_err(|code| {
                self.fetcher.cluster.forget_leaders();
                BrokerError::Retryable(format!("broker {host}: offsets of {topic}/{partition}: {code}"))
            })
        });
        Ok(found.collect())
    }
}

impl Source for KafkaSource {
    fn partitions(&mut self) -> Result<Vec<i32>> {
        self.fetcher.cluster.forget_leaders();
        let deadline = self.fetcher.cluster.request_deadline();
        let metadata = self.fetcher.cluster.metadata(deadline)?;
        if metadata.partitions.iter().any(|partition| partition.leader.is_none()) {
            self.fetcher.cluster.forget_leaders();
        }
        Ok(metadata.partitions.iter().map(|partition| partition.id).collect())
    }

    fn topic_id(&mut self) -> Result<Option<String>> {
        let deadline = self.fetcher.cluster.request_deadline();
        let any = self.fetcher.cluster.any_broker(deadline)?;
        self.fetcher.cluster.on_control(&any, deadline, topic_id)?.map_err(|code| {
            let topic = self.fetcher.cluster.topic();
            BrokerError::Retryable(format!("broker {any}: id of topic {topic}: {code}"))
        })
    }

    fn bounds(&mut self, partitions: &[i32]) -> Result<Vec<Result<Bounds>>> {
        let deadline = self.fetcher.cluster.request_deadline();
        let mut found = HashMap::new();
        let groups = self.fetcher.cluster.metadata(deadline)?.by_leader(partitions.iter().copied());
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

    fn fetch(&mut self, positions: &[Position]) -> Result<Vec<Fetched>> {
        let chosen = self.fetcher.choose(positions);
        let deadline = self.fetcher.cluster.request_deadline();
        let metadata = self.fetcher.cluster.metadata(deadline)?;
        unless_all_failed(self.fetcher.fetch_led(&metadata, &chosen, positions.len()))
    }

    fn follow(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Fetched>> {
        follow::follow(&mut self.fetcher, &mut self.terms, positions, trails)
    }

    fn compare(&mut self, positions: &[Position], trails: &Trails) -> Result<Vec<Result<Compared>>> {
        follow::compare(&mut self.fetcher, &mut self.terms, positions, trails)
    }

    fn committed(&mut self, group: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>> {
        self.coordinators.committed(&mut self.fetcher.cluster, group, partitions)
    }

    fn commit(&mut self, group: &str, positions: &[Position], note: &str) -> Result<()> {
        self.coordinators.commit(&mut self.fetcher.cluster, group, positions, note)
    }
}
