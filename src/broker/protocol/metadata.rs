//! Who leads what: the Metadata request.

use std::collections::HashMap;

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::Call;
use crate::broker::protocol::frame::{Malformed, Reader, Writer};

const METADATA: Api = Api { name: "Metadata", key: 3, version: 4 };
/// The same with each leader's epoch, from Kafka 2.1 on.
const METADATA_WITH_EPOCHS: Api = Api { version: 7, ..METADATA };

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLeader {
    pub id: i32,
    pub leader: Option<String>,
    /// Number of leaders it has had; -1 if the broker does not say.
    pub epoch: i32,
}

/// Returns the leaders of the topic, and asks the broker to create it if it is missing.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code for the topic.
pub fn load(on: &mut Call<'_>) -> Result<Result<Metadata, Code>> {
    let with_epochs = on.versions.serves(METADATA_WITH_EPOCHS.key, METADATA_WITH_EPOCHS.version);
    let api = if with_epochs { METADATA_WITH_EPOCHS } else { METADATA };
    let body = Writer::default().array(&[on.topic], |w, t| w.str(t)).i8(1);
    on.ask(api, body, |r| read_metadata(r, with_epochs))
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
