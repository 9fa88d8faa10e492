//! Asks whether partitions would acknowledge a record, in a way that brokers do not count as an error.
//!
//! Before an append looks at the records, it checks permission and in-sync replicas. Both can be queried:
//! Metadata as the leader sees it (version 8, from Kafka 2.3, says what we may do: KIP-430), and the topic's
//! `min.insync.replicas` (DescribeConfigs, from Kafka 1.1). That the broker leads, and has the log, is proven
//! by an offset, because Metadata may say so a moment early.
//!
//! A Produce request cannot replace these queries. From version 3 on, one without a batch is rejected before
//! the leader check (INVALID_RECORD). A wrong checksum counts in `InvalidMessageCrcRecordsPerSec`, and all
//! other flaws of a batch in `FailedProduceRequestsPerSec`, each with an error in the broker's log.

use crate::broker::error::Result;
use crate::broker::protocol::metadata::{self, Metadata, WITH_OPERATIONS};
use crate::broker::protocol::{
    Api, Call, Code, Malformed, PerPartition, Reader, Versions, Writer, control, outcome_of,
};

const DESCRIBE_CONFIGS: Api = Api { name: "DescribeConfigs", key: 32, version: 1 };

/// Bits of operations in Metadata, numbered as in `AclOperation`.
const WRITE: i32 = 1 << 4;
const READ_CONFIGS: i32 = 1 << 10;

const MIN_IN_SYNC: &str = "min.insync.replicas";
const TOPIC: i8 = 2;

/// True for a broker that supports these requests.
pub fn is_served(versions: &Versions) -> bool {
    [WITH_OPERATIONS, DESCRIBE_CONFIGS].iter().all(|api| versions.serves(api.key, api.version))
}

/// A topic as a broker sees it.
pub struct State {
    metadata: Metadata,
    /// For the partitions that the broker leads and whose log it has.
    offsets: PerPartition<i64>,
    /// `None` while we may not read it.
    min_in_sync: Option<usize>,
}

/// A [`State`]'s verdict on a partition.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would acknowledge, or the reason why not.
    Known(Result<(), Code>),
    /// With this many in-sync replicas it may or may not acknowledge: only a Produce request can show.
    Unclear(usize),
}

impl State {
    /// What `host` would do with a record for `partition`.
    pub fn of(&self, partition: i32, host: &str) -> Answer {
        if self.metadata.operations & WRITE == 0 {
            return Answer::Known(Err(Code::TOPIC_AUTHORIZATION_FAILED));
        }
        let Some(found) = self.metadata.partition(partition) else {
            return Answer::Known(Err(Code::UNKNOWN_TOPIC_OR_PARTITION));
        };
        match found.leader.as_deref() {
            None => return Answer::Known(Err(Code::LEADER_NOT_AVAILABLE)),
            Some(leader) if leader != host => return Answer::Known(Err(Code::NOT_LEADER_OR_FOLLOWER)),
            Some(_) => {}
        }
        if let Err(code) = outcome_of(&self.offsets, partition) {
            return Answer::Known(Err(code));
        }
        match self.min_in_sync {
            Some(min) if found.in_sync >= min => Answer::Known(Ok(())),
            Some(_) if found.in_sync < found.replicas => Answer::Known(Err(Code::NOT_ENOUGH_REPLICAS)),
            // Whether a minimum above the number of replicas counts depends on the version (KIP-966).
            _ => Answer::Unclear(found.in_sync),
        }
    }
}

/// Asks about `partitions`.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code for the topic.
pub fn state(on: &mut Call<'_>, partitions: &[i32]) -> Result<Result<State, Code>> {
    let topic = on.topic;
    let metadata = match metadata::load_with_operations(on)? {
        Ok(metadata) => metadata,
        Err(code) => return Ok(Err(code)),
    };
    let may = metadata.operations;
    let mut state = State { metadata, offsets: PerPartition::new(), min_in_sync: None };
    if may & WRITE != 0 {
        state.offsets = control::first_offsets(on, partitions)?;
    }
    // A request that is not allowed would cause an error in the broker's log.
    if may & READ_CONFIGS != 0 {
        let body = Writer::default()
            .array(&[topic], |w, t| w.i8(TOPIC).str(t).array(&[MIN_IN_SYNC], |w, name| w.str(name)))
            .i8(0);
        state.min_in_sync = on.ask(DESCRIBE_CONFIGS, body, read_min_in_sync)?;
    }
    Ok(Ok(state))
}

fn read_min_in_sync(r: &mut Reader<'_>) -> Result<Option<usize>, Malformed> {
    r.throttle()?;
    let found = r.array(|r| {
        let _of_what = (r.i16()?, r.str()?, r.i8()?, r.str()?);
        r.array(|r| {
            let (name, value) = (r.str()?, r.str()?);
            let min = (name == MIN_IN_SYNC).then(|| value.parse().ok()).flatten();
            let _is_read_only_source_is_secret = (r.i8()?, r.i8()?, r.i8()?);
            r.array(|r| Ok((r.str()?, r.str()?, r.i8()?)))?;
            Ok(min)
        })
    })?;
    Ok(found.into_iter().flatten().flatten().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::protocol::metadata::Partition;

    const US: &str = "kafka-1:9092";

    fn state(in_sync: usize, min_in_sync: Option<usize>) -> State {
        let led = |id, leader: Option<&str>| Partition {
            id,
            leader: leader.map(str::to_owned),
            epoch: 0,
            replicas: 3,
            in_sync,
        };
        let partitions = vec![led(0, Some(US)), led(1, Some("kafka-2:9092")), led(2, None)];
        let offsets = (0..3).map(|id| (id, Ok(0))).collect();
        let metadata = Metadata { partitions, operations: WRITE, ..Metadata::default() };
        State { metadata, offsets, min_in_sync }
    }

    #[test]
    fn leader_permission_and_replicas_decide() {
        assert_eq!(state(2, Some(2)).of(0, US), Answer::Known(Ok(())));
        assert_eq!(state(1, Some(2)).of(0, US), Answer::Known(Err(Code::NOT_ENOUGH_REPLICAS)));
        assert_eq!(state(3, Some(2)).of(1, US), Answer::Known(Err(Code::NOT_LEADER_OR_FOLLOWER)));
        assert_eq!(state(3, Some(2)).of(2, US), Answer::Known(Err(Code::LEADER_NOT_AVAILABLE)));
        assert_eq!(state(3, Some(2)).of(3, US), Answer::Known(Err(Code::UNKNOWN_TOPIC_OR_PARTITION)));
        let forbidden = State { metadata: Metadata::default(), ..state(3, Some(2)) };
        let early = State { offsets: vec![(0, Err(Code::NOT_LEADER_OR_FOLLOWER))], ..state(3, Some(2)) };
        assert_eq!(early.of(0, US), Answer::Known(Err(Code::NOT_LEADER_OR_FOLLOWER)));
        assert_eq!(forbidden.of(0, US), Answer::Known(Err(Code::TOPIC_AUTHORIZATION_FAILED)));
    }

    #[test]
    fn without_the_minimum_or_with_one_above_the_replicas_the_broker_must_be_asked() {
        assert_eq!(state(2, None).of(0, US), Answer::Unclear(2));
        assert_eq!(state(3, Some(4)).of(0, US), Answer::Unclear(3));
    }

    #[test]
    fn the_minimum_is_read() {
        let bytes = Writer::default()
            .i32(0)
            .array(&["events"], |w, topic| {
                w.i16(0)
                    .i16(-1)
                    .i8(TOPIC)
                    .str(topic)
                    .array(&[MIN_IN_SYNC], |w, name| w.str(name).str("2").i8(0).i8(1).i8(0).i32(0))
            })
            .into_bytes();
        assert_eq!(read_min_in_sync(&mut Reader::new(&bytes)), Ok(Some(2)));
    }
}
