//! Asks the leaders of partitions whether they would acknowledge a record now.

use std::time::Instant;

use crate::broker::cluster::Cluster;
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{Code, PerPartition, outcome_of, share};

/// Asks the leaders of `partitions`. A leader that is unreachable or missing matters only if keys decide
/// where records go, or if there is no other leader, because `split` passes it over.
pub fn would_acknowledge(
    cluster: &mut Cluster,
    keyed: bool,
    partitions: &[i32],
    deadline: Instant,
) -> Result<()> {
    let groups = cluster.metadata(deadline)?.by_leader(partitions.iter().copied());
    let brokers = groups.len();
    let (mut proven, mut passed_over) = (false, None);
    for (done, (leader, partitions)) in groups.into_iter().enumerate() {
        let deadline = share(deadline, brokers - done);
        match leader_would_acknowledge(cluster, keyed, leader.as_deref(), &partitions, deadline) {
            Ok(outcomes) => {
                for partition in partitions {
                    if let Err(code) = outcome_of(&outcomes, partition) {
                        cluster.forget_leaders();
                        return Err(not_acknowledging(cluster.topic(), partition, code));
                    }
                }
                proven = true;
            }
            Err(unsupported @ BrokerError::Unsupported(_)) => return Err(unsupported),
            // It is alive, and will accept records after the time that it named.
            Err(BrokerError::Throttled(..)) => proven = true,
            Err(error) if keyed => return Err(error),
            Err(error) => passed_over = Some(error),
        }
    }
    match passed_over {
        Some(error) if !proven => Err(error),
        _ => Ok(()),
    }
}

fn leader_would_acknowledge(
    cluster: &mut Cluster,
    keyed: bool,
    leader: Option<&str>,
    partitions: &[i32],
    deadline: Instant,
) -> Result<PerPartition<()>> {
    let Some(host) = leader else {
        cluster.forget_leaders();
        let topic = cluster.topic();
        return Err(BrokerError::Retryable(format!("{topic}/{} has no leader", partitions[0])));
    };
    if !keyed {
        // It did not answer a moment ago, and the others must not wait for it at each probe.
        cluster.check_not_avoided(host)?;
    }
    cluster.check_quota(host, deadline)?;
    cluster.on_client(host, deadline, |client, on| client.would_acknowledge(on, partitions))
}

fn not_acknowledging(topic: &str, partition: i32, code: Code) -> BrokerError {
    BrokerError::Retryable(format!("{topic}/{partition}: the broker would not acknowledge a record: {code}"))
}
