//! Control requests that every Kafka from 0.11 to 4.x supports in these versions: versions, metadata,
//! offsets.
//!
//! All but ApiVersions, which opens a connection, report whether a quota is exceeded. They use our own
//! bounded connection, whichever client carries the records, because the kafka crate's equivalents block for
//! minutes, retry without end, or hide error codes.

use std::collections::HashMap;
use std::time::Instant;

use crate::broker::error::BrokerError;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::{Api, Connection};
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::broker::record::{Bounds, Committed, Position};

const LIST_OFFSETS: Api = Api { name: "ListOffsets", key: 2, version: 2 };
const METADATA: Api = Api { name: "Metadata", key: 3, version: 4 };
/// The same with each leader's epoch, from Kafka 2.1 on.
const METADATA_WITH_EPOCHS: Api = Api { name: "Metadata", key: 3, version: 7 };
const OFFSET_COMMIT: Api = Api { name: "OffsetCommit", key: 8, version: 3 };
const OFFSET_FETCH: Api = Api { name: "OffsetFetch", key: 9, version: 3 };
const FIND_COORDINATOR: Api = Api { name: "FindCoordinator", key: 10, version: 1 };
const API_VERSIONS: Api = Api { name: "ApiVersions", key: 18, version: 0 };

/// Longest host name that DNS allows.
const MAX_HOST_BYTES: usize = 255;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

const READ_UNCOMMITTED: i8 = 0;
const GROUP: i8 = 0;

/// Partitions and the host:port that leads them all, if any does.
pub type Led = (Option<String>, Vec<i32>);

/// Who leads what, as one broker saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// host:port of every live broker.
    pub brokers: Vec<String>,
    /// Sorted by id.
    pub partitions: Vec<PartitionLeader>,
}

impl Metadata {
    /// Leader epoch of `partition`; -1 if unknown.
    pub fn epoch(&self, partition: i32) -> i32 {
        let at = self.partitions.binary_search_by_key(&partition, |partition| partition.id);
        at.map_or(-1, |at| self.partitions[at].epoch)
    }

    /// host:port of the leader of `partition`, if it has one.
    pub fn leader(&self, partition: i32) -> Option<&str> {
        let at = self.partitions.binary_search_by_key(&partition, |partition| partition.id).ok()?;
        self.partitions[at].leader.as_deref()
    }

    /// Groups `partitions` by their leader; those without one come last, under `None`.
    pub fn by_leader(&self, partitions: impl Iterator<Item = i32>) -> Vec<Led> {
        let mut groups: Vec<Led> = Vec::new();
        for partition in partitions {
            let leader = self.leader(partition);
            match groups.iter_mut().find(|(host, _)| host.as_deref() == leader) {
                Some((_, group)) => group.push(partition),
                None => groups.push((leader.map(str::to_owned), vec![partition])),
            }
        }
        groups.sort_by_key(|(host, _)| host.is_none());
        groups
    }
}

/// A partition and the host:port of its leader, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLeader {
    pub id: i32,
    pub leader: Option<String>,
    /// Number of leaders it has had; -1 if the broker does not say.
    pub epoch: i32,
}

/// Lowest and highest version of each request that a broker supports.
pub struct Versions(pub Vec<(i16, i16, i16)>);

impl Versions {
    /// True if the broker says that it supports `version` of request `key`.
    pub fn serves(&self, key: i16, version: i16) -> bool {
        self.0.iter().any(|&(api, min, max)| api == key && (min..=max).contains(&version))
    }
}

/// The broker's outcome for each requested partition.
pub type PerPartition<T> = Vec<(i32, Result<T, Code>)>;

/// Asks which requests the broker supports.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`].
pub fn versions(on: &mut Connection, deadline: Instant) -> Result<Versions, BrokerError> {
    on.call(API_VERSIONS, Writer::default(), deadline, |r| {
        let _code = r.i16()?;
        r.array(|r| Ok((r.i16()?, r.i16()?, r.i16()?))).map(Versions)
    })
}

/// Returns the leaders of `topic`, and asks the broker to create it if it is missing.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`]. The inner error is the broker's code for the topic.
pub fn metadata(
    on: &mut Connection,
    versions: &Versions,
    topic: &str,
    deadline: Instant,
) -> Result<Result<Metadata, Code>, BrokerError> {
    let with_epochs = versions.serves(METADATA_WITH_EPOCHS.key, METADATA_WITH_EPOCHS.version);
    let api = if with_epochs { METADATA_WITH_EPOCHS } else { METADATA };
    let body = Writer::default().array(&[topic], |w, t| w.str(t)).i8(1);
    on.call(api, body, deadline, |r| read_metadata(r, with_epochs))
}

pub fn read_metadata(r: &mut Reader<'_>, with_epochs: bool) -> Result<Result<Metadata, Code>, Malformed> {
    r.throttle()?;
    let brokers: HashMap<i32, String> = r
        .array(|r| {
            let (id, host, port) = (r.i32()?, r.str()?, r.i32()?);
            let _rack = r.str()?;
            // It is kept once per partition.
            if host.len() > MAX_HOST_BYTES {
                return Err(Malformed);
            }
            // The kafka crate writes its hosts the same way; clients are looked up by this text.
            Ok((id, format!("{host}:{port}")))
        })?
        .into_iter()
        .collect();
    let _cluster = (r.str()?, r.i32()?);
    let mut topics = r.array(|r| {
        let code = Code(r.i16()?);
        let _topic = (r.str()?, r.i8()?);
        let partitions = r.array(|r| {
            // The partition's own code only repeats that there is no leader (-1).
            let (_code, id, leader) = (r.i16()?, r.i32()?, r.i32()?);
            let epoch = if with_epochs { r.i32()? } else { -1 };
            let _replicas = (r.array(Reader::i32)?, r.array(Reader::i32)?);
            if with_epochs {
                let _offline = r.array(Reader::i32)?;
            }
            Ok(PartitionLeader { id, leader: brokers.get(&leader).cloned(), epoch })
        })?;
        Ok((code, partitions))
    })?;
    let Some((code, mut partitions)) = topics.pop() else { return Err(Malformed) };
    partitions.sort_by_key(|partition| partition.id);
    // Kafka numbers them from 0 without a gap, and the partitioner relies on that.
    if !partitions.iter().zip(0..).all(|(partition, id)| partition.id == id) {
        return Err(Malformed);
    }
    let mut brokers: Vec<(i32, String)> = brokers.into_iter().collect();
    brokers.sort_unstable();
    Ok(code
        .check()
        .map(|()| Metadata { brokers: brokers.into_iter().map(|(_, host)| host).collect(), partitions }))
}

/// Returns the first readable and the next offset of each of `partitions`, all led by the broker behind `on`.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`].
pub fn bounds(
    on: &mut Connection,
    topic: &str,
    partitions: &[i32],
    deadline: Instant,
) -> Result<PerPartition<Bounds>, BrokerError> {
    let earliest = list_offsets(on, topic, partitions, EARLIEST, deadline)?;
    let latest = list_offsets(on, topic, partitions, LATEST, deadline)?;
    Ok(earliest
        .into_iter()
        .map(|(partition, earliest)| {
            let latest = outcome_of(&latest, partition);
            (partition, earliest.and_then(|earliest| Ok(Bounds { partition, earliest, latest: latest? })))
        })
        .collect())
}

/// Returns the first readable offset of each of `partitions`, all led by the broker behind `on`. This is the
/// cheapest query about a log.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`].
#[cfg(feature = "wire")]
pub fn first_offsets(
    on: &mut Connection,
    topic: &str,
    partitions: &[i32],
    deadline: Instant,
) -> Result<PerPartition<i64>, BrokerError> {
    list_offsets(on, topic, partitions, EARLIEST, deadline)
}

fn list_offsets(
    on: &mut Connection,
    topic: &str,
    partitions: &[i32],
    time: i64,
    deadline: Instant,
) -> Result<PerPartition<i64>, BrokerError> {
    let body = Writer::default()
        .i32(-1)
        .i8(READ_UNCOMMITTED)
        .array(&[topic], |w, t| w.str(t).array(partitions, |w, partition| w.i32(*partition).i64(time)));
    on.call(LIST_OFFSETS, body, deadline, |r| {
        r.throttle()?;
        per_partition(r, topic, |r| {
            let (partition, code) = (r.i32()?, Code(r.i16()?));
            let (_time, offset) = (r.i64()?, r.i64()?);
            Ok((partition, code.check().map(|()| offset)))
        })
    })
}

/// Returns the host:port of the broker that keeps the offsets of `group`.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`], also while the broker is electing one.
pub fn find_coordinator(
    on: &mut Connection,
    group: &str,
    deadline: Instant,
) -> Result<Result<String, Code>, BrokerError> {
    on.call(FIND_COORDINATOR, Writer::default().str(group).i8(GROUP), deadline, |r| {
        r.throttle()?;
        let (code, _message) = (Code(r.i16()?), r.str()?);
        let (_id, host, port) = (r.i32()?, r.str()?, r.i32()?);
        Ok(code.check().map(|()| format!("{host}:{port}")))
    })
}

/// Returns what `group` has committed; `None` where it never did. `on` must be connected to its coordinator.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`]. The inner error is the broker's code for the group as a whole.
pub fn committed(
    on: &mut Connection,
    (group, topic): (&str, &str),
    partitions: &[i32],
    deadline: Instant,
) -> Result<Result<PerPartition<Option<Committed>>, Code>, BrokerError> {
    let body = Writer::default()
        .str(group)
        .array(&[topic], |w, t| w.str(t).array(partitions, |w, partition| w.i32(*partition)));
    on.call(OFFSET_FETCH, body, deadline, |r| {
        r.throttle()?;
        let offsets = per_partition(r, topic, |r| {
            let (partition, offset, note, code) = (r.i32()?, r.i64()?, r.str()?.to_owned(), Code(r.i16()?));
            Ok((partition, code.check().map(|()| (offset >= 0).then_some(Committed { offset, note }))))
        })?;
        // Version 2 added this code for the whole group; version 1 reports nothing committed while the
        // coordinator loads.
        Ok(Code(r.i16()?).check().map(|()| offsets))
    })
}

/// Commits `positions` with `note` for `group`, without being a member. `on` must be connected to its
/// coordinator.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`].
pub fn commit(
    on: &mut Connection,
    (group, topic): (&str, &str),
    (positions, note): (&[Position], &str),
    deadline: Instant,
) -> Result<PerPartition<()>, BrokerError> {
    let body = Writer::default().str(group).i32(-1).str("").i64(-1).array(&[topic], |w, t| {
        w.str(t).array(positions, |w, position| w.i32(position.partition).i64(position.offset).str(note))
    });
    on.call(OFFSET_COMMIT, body, deadline, |r| {
        r.throttle()?;
        per_partition(r, topic, |r| Ok((r.i32()?, Code(r.i16()?).check())))
    })
}

/// Reads `[topic, [partition outcome]]`, the shape of most responses. Any topic other than `topic` is
/// malformed.
pub fn per_partition<T>(
    r: &mut Reader<'_>,
    topic: &str,
    mut each: impl FnMut(&mut Reader<'_>) -> Result<(i32, Result<T, Code>), Malformed>,
) -> Result<PerPartition<T>, Malformed> {
    let topics = r.array(|r| {
        // A response about another topic does not belong to our request.
        if r.str()? != topic {
            return Err(Malformed);
        }
        r.array(&mut each)
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// True if there is exactly one outcome for each partition of `asked` and no others. If not, the response
/// does not belong to our request.
pub fn answers_exactly<T>(asked: &[i32], outcomes: &PerPartition<T>) -> bool {
    let once = |partition: &i32| outcomes.iter().filter(|(id, _)| id == partition).count() == 1;
    asked.len() == outcomes.len() && asked.iter().all(once)
}

/// The outcome of `partition`. If the broker left it out, it counts as unknown to the broker.
pub fn outcome_of<T: Clone>(outcomes: &PerPartition<T>, partition: i32) -> Result<T, Code> {
    let found = outcomes.iter().find(|(id, _)| *id == partition);
    found.map_or(Err(Code::UNKNOWN_TOPIC_OR_PARTITION), |(_, outcome)| outcome.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata with one broker, `host`, which leads the partitions `ids`.
    fn metadata_of(host: &str, ids: &[i32]) -> Result<Result<Metadata, Code>, Malformed> {
        let body = Writer::default().i32(0).array(&[host], |w, host| w.i32(1).str(host).i32(9092).i16(-1));
        let body = body.i16(-1).i32(1).array(&["events"], |w, topic| {
            w.i16(0)
                .str(topic)
                .i8(0)
                .array(ids, |w, id| w.i16(0).i32(*id).i32(1).array(&[1], |w, n| w.i32(*n)).i32(0))
        });
        read_metadata(&mut Reader::new(&body.into_bytes()), false)
    }

    #[test]
    fn leaders_are_read_in_the_order_of_partitions() {
        let metadata = metadata_of("kafka-1", &[2, 0, 1]).expect("well formed").expect("no error");
        assert_eq!(metadata.brokers, ["kafka-1:9092"]);
        assert_eq!(metadata.partitions.iter().map(|p| p.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(metadata.leader(2), Some("kafka-1:9092"));
    }

    #[test]
    fn partitions_that_kafka_cannot_have_and_hosts_that_dns_cannot_have_are_malformed() {
        for ids in [&[1][..], &[-1], &[0, 0], &[0, 2]] {
            assert_eq!(metadata_of("kafka-1", ids), Err(Malformed), "{ids:?}");
        }
        assert!(metadata_of(&"h".repeat(255), &[0]).is_ok());
        assert_eq!(metadata_of(&"h".repeat(256), &[0]), Err(Malformed));
    }
}
