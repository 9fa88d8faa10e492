//! Reads and commits a group's offsets through the group's coordinator, the broker that keeps them.

use std::collections::HashMap;

use crate::broker::cluster::Cluster;
use crate::broker::commit::refusal;
use crate::broker::error::Result;
use crate::broker::protocol::{Call, Code, PerPartition, group, outcome_of};
use crate::broker::record::{Committed, Position};

/// The known coordinator (host:port) of each group.
#[derive(Default)]
pub struct Coordinators(HashMap<String, String>);

impl Coordinators {
    /// See [`crate::broker::Source::committed`].
    pub fn committed(
        &mut self,
        cluster: &mut Cluster,
        group: &str,
        partitions: &[i32],
    ) -> Result<Vec<Option<Committed>>> {
        let outcomes = self.call(cluster, group, |on| group::committed(on, group, partitions))?;
        let outcomes = outcomes.map_err(|code| {
            self.0.remove(group);
            refusal::refused(group, "committed offsets", code)
        })?;
        self.all_ok(cluster.topic(), (group, "committed offset"), partitions, &outcomes)
    }

    /// See [`crate::broker::Source::commit`].
    pub fn commit(
        &mut self,
        cluster: &mut Cluster,
        group: &str,
        positions: &[Position],
        note: &str,
    ) -> Result<()> {
        let outcomes = self.call(cluster, group, |on| group::commit(on, group, positions, note))?;
        let partitions: Vec<i32> = positions.iter().map(|position| position.partition).collect();
        self.all_ok(cluster.topic(), (group, "commit"), &partitions, &outcomes).map(drop)
    }

    /// Calls the coordinator of `group`, which any broker can name. After an error it is looked up again.
    fn call<T>(
        &mut self,
        cluster: &mut Cluster,
        group: &str,
        call: impl FnOnce(&mut Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let deadline = cluster.request_deadline();
        let host = match self.0.remove(group) {
            Some(host) => host,
            None => {
                let any = cluster.any_broker(deadline)?;
                let brokers = cluster.metadata(deadline)?.brokers.len();
                cluster
                    .on_control(&any, deadline, |on| group::find_coordinator(on, group))?
                    .map_err(|code| refusal::no_coordinator(group, code, brokers))?
            }
        };
        let answer = cluster.on_control(&host, deadline, call)?;
        self.0.insert(group.to_owned(), host);
        Ok(answer)
    }

    /// Collects `outcomes`, or returns the first code as an error. The coordinator is then looked up again.
    fn all_ok<T: Clone>(
        &mut self,
        topic: &str,
        (group, what): (&str, &str),
        partitions: &[i32],
        outcomes: &PerPartition<T>,
    ) -> Result<Vec<T>> {
        let all: Result<Vec<T>, (i32, Code)> = partitions
            .iter()
            .map(|&partition| outcome_of(outcomes, partition).map_err(|code| (partition, code)))
            .collect();
        all.map_err(|(partition, code)| {
            self.0.remove(group);
            refusal::refused(group, &format!("{what} of {topic}/{partition}"), code)
        })
    }
}
