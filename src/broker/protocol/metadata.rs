//! Who leads what: the Metadata request.

use std::collections::HashMap;

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::Call;
use crate::broker::protocol::frame::{Malformed, Reader, Writer};

const METADATA: Api = Api { name: "Metadata", key: 3, version: 4 };
/// The same with each leader's epoch, from Kafka 2.1 on.
const WITH_EPOCHS: Api = Api { version: 7, ..METADATA };
/// The same with what we may do, from Kafka 2.3 on (KIP-430).
pub const WITH_OPERATIONS: Api = Api { version: 8, ..METADATA };

/// Longest host name that DNS allows.
const MAX_HOST_BYTES: usize = 255;

/// Partitions and the host:port that leads them all, if any does.
pub type LeaderGroup = (Option<String>, Vec<i32>);

/// Who leads what, as one broker saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// host:port of every live broker.
    pub brokers: Vec<String>,
    /// Sorted by id.
    pub partitions: Vec<Partition>,
    /// What we may do with the topic: one bit for each number of `AclOperation`; 0 if that was not asked for.
    pub operations: i32,
}

impl Metadata {
    /// The partition with the number `id`, if there is one.
    pub fn partition(&self, id: i32) -> Option<&Partition> {
        let at = self.partitions.binary_search_by_key(&id, |partition| partition.id).ok()?;
        Some(&self.partitions[at])
    }

    /// Leader epoch of `partition`; -1 if unknown.
    pub fn epoch(&self, partition: i32) -> i32 {
        self.partition(partition).map_or(-1, |partition| partition.epoch)
    }

    /// host:port of the leader of `partition`, if it has one.
    pub fn leader(&self, partition: i32) -> Option<&str> {
        self.partition(partition)?.leader.as_deref()
    }

    /// Groups `partitions` by their leader; those without one come last, under `None`.
    pub fn by_leader(&self, partitions: impl Iterator<Item = i32>) -> Vec<LeaderGroup> {
        let mut groups: Vec<LeaderGroup> = Vec::new();
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    pub id: i32,
    pub leader: Option<String>,
    /// Number of leaders it has had; -1 if the broker does not say.
    pub epoch: i32,
    /// Numbers of replicas, and of those that are in sync.
    pub replicas: usize,
    pub in_sync: usize,
}

/// Returns the leaders of the topic, and asks the broker to create it if it is missing.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code for the topic.
pub fn load(on: &mut Call<'_>) -> Result<Result<Metadata, Code>> {
    let with_epochs = on.versions.serves(WITH_EPOCHS.key, WITH_EPOCHS.version);
    let api = if with_epochs { WITH_EPOCHS } else { METADATA };
    let create = 1;
    let body = Writer::default().array(&[on.topic], |w, t| w.str(t)).i8(create);
    on.ask(api, body, |r| read_metadata(r, api.version))
}

/// Returns the leaders of the topic and what we may do with it, from a broker that supports [`WITH_OPERATIONS`].
///
/// # Errors
/// As for [`load`].
pub fn load_with_operations(on: &mut Call<'_>) -> Result<Result<Metadata, Code>> {
    let (create, of_cluster, of_topic) = (0, 0, 1);
    let body = Writer::default().array(&[on.topic], |w, t| w.str(t)).i8(create).i8(of_cluster).i8(of_topic);
    on.ask(WITH_OPERATIONS, body, |r| read_metadata(r, WITH_OPERATIONS.version))
}

pub fn read_metadata(r: &mut Reader<'_>, version: i16) -> Result<Result<Metadata, Code>, Malformed> {
    let with_epochs = version >= WITH_EPOCHS.version;
    let with_operations = version >= WITH_OPERATIONS.version;
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
            let (replicas, in_sync) = (r.array(Reader::i32)?.len(), r.array(Reader::i32)?.len());
            if with_epochs {
                let _offline = r.array(Reader::i32)?;
            }
            Ok(Partition { id, leader: brokers.get(&leader).cloned(), epoch, replicas, in_sync })
        })?;
        Ok((code, partitions, if with_operations { r.i32()? } else { 0 }))
    })?;
    if with_operations {
        let _of_cluster = r.i32()?;
    }
    let Some((code, mut partitions, operations)) = topics.pop() else { return Err(Malformed) };
    partitions.sort_by_key(|partition| partition.id);
    // Kafka numbers them from 0 without a gap, and the partitioner relies on that.
    if !partitions.iter().zip(0..).all(|(partition, id)| partition.id == id) {
        return Err(Malformed);
    }
    let mut brokers: Vec<(i32, String)> = brokers.into_iter().collect();
    brokers.sort_unstable();
    let brokers = brokers.into_iter().map(|(_, host)| host).collect();
    Ok(code.check().map(|()| Metadata { brokers, partitions, operations }))
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
        read_metadata(&mut Reader::new(&body.into_bytes()), METADATA.version)
    }

    #[test]
    fn leaders_are_read_in_the_order_of_partitions() {
        let metadata = metadata_of("kafka-1", &[2, 0, 1]).expect("well formed").expect("no error");
        assert_eq!(metadata.brokers, ["kafka-1:9092"]);
        assert_eq!(metadata.partitions.iter().map(|p| p.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(metadata.leader(2), Some("kafka-1:9092"));
    }

    #[test]
    fn replicas_and_operations_are_read() {
        let body =
            Writer::default().i32(0).array(&["kafka-1"], |w, host| w.i32(1).str(host).i32(9092).i16(-1));
        let body = body.i16(-1).i32(1).array(&["events"], |w, topic| {
            let w = w.i16(0).str(topic).i8(0);
            w.array(&[0], |w, id| {
                w.i16(0)
                    .i32(*id)
                    .i32(1)
                    .i32(5)
                    .array(&[1, 2, 3], |w, n| w.i32(*n))
                    .array(&[1], |w, n| w.i32(*n))
                    .i32(0)
            })
            .i32(1 << 4)
        });
        let bytes = body.i32(i32::MIN).into_bytes();
        let read = read_metadata(&mut Reader::new(&bytes), WITH_OPERATIONS.version);
        let leader = Some("kafka-1:9092".to_owned());
        let partitions = vec![Partition { id: 0, leader, epoch: 5, replicas: 3, in_sync: 1 }];
        let brokers = vec!["kafka-1:9092".into()];
        assert_eq!(read, Ok(Ok(Metadata { brokers, partitions, operations: 1 << 4 })));
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
