//! The start: waits for Kafka and for a usable disk, then recovers the log. Blocks only between tries.

use std::time::Duration;

use crate::broker::{BrokerError, Compared, Position, Source, Trail};
use crate::config::ConsumerConfig;
use crate::linux;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

use super::Failure;
use super::checkpoint::Checkpoint;
use super::event_log::EventLog;
use super::paths::Paths;
use super::recovery::{Recovered, RecoveryError, Topic, read_checkpoint, recover};
use super::state::State;
use super::storage::Disk;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why one try failed.
enum Try {
    Kafka(BrokerError),
    Recovery(RecoveryError),
}

/// Opens the log where the last run left it; `None` if the shutdown began before that was possible.
///
/// # Errors
/// What waiting cannot mend.
pub fn open_log<S: Source>(
    config: &ConsumerConfig,
    paths: &Paths,
    source: &mut S,
    state: &State,
    shutdown: &Shutdown,
) -> Result<Option<EventLog<Disk>>, Failure> {
    // A checkpoint that cannot be used is told before Kafka is waited for.
    if let Err(RecoveryError::Refused(reason)) = read_checkpoint(&Disk, paths) {
        return Err(Failure::undecided(reason));
    }
    state.not_yet("start", "Kafka was not reached yet");
    let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
    while !shutdown.requested() {
        match attempt(config, paths, source) {
            Ok(Recovered { log, notes }) => {
                notes.iter().for_each(|note| log::warn!("{note}"));
                state.solved("start");
                return Ok(Some(log));
            }
            Err(Try::Kafka(BrokerError::Unsupported(reason) | BrokerError::Refused(reason))) => {
                return Err(Failure::bad_config(reason));
            }
            Err(Try::Recovery(RecoveryError::Refused(reason))) => return Err(Failure::undecided(reason)),
            Err(Try::Kafka(error)) => {
                state.metrics.kafka_errors.with_label_values(&[error.kind()]).inc();
                state.problem("start", &error.to_string());
            }
            Err(Try::Recovery(RecoveryError::Io(error))) => {
                state.metrics.write_errors.inc();
                state.problem("start", &error.to_string());
            }
        }
        let _ = shutdown.closed().recv_timeout(backoff.next_wait(fastrand::f64()));
    }
    Ok(None)
}

fn attempt(config: &ConsumerConfig, paths: &Paths, source: &mut impl Source) -> Result<Recovered<Disk>, Try> {
    let reading = &config.reading;
    let mut partitions = source.partitions().map_err(Try::Kafka)?;
    partitions.retain(|&partition| reading.shard.takes(partition));
    let checkpoint = read_checkpoint(&Disk, paths).map_err(Try::Recovery)?;
    let mut topic = Topic {
        name: &config.kafka.topic,
        id: source.topic_id().map_err(Try::Kafka)?,
        shard: reading.shard.to_string(),
        bounds: source.bounds(&partitions).map_err(Try::Kafka)?,
        committed: committed(source, &reading.group, &partitions, checkpoint.as_ref()).map_err(Try::Kafka)?,
        compared: Vec::new(),
        reset: reading.offset_reset,
    };
    if let Some(checkpoint) = &checkpoint {
        topic.compared = compared(source, checkpoint, &topic);
    }
    recover(Disk, paths, checkpoint, &topic, config.log.fsync, &linux::boot_id()).map_err(Try::Recovery)
}

/// What the topic has of what was read up to `checkpoint`. A leader that does not answer is asked again before
/// anything is read on.
fn compared(source: &mut impl Source, checkpoint: &Checkpoint, topic: &Topic<'_>) -> Vec<Compared> {
    if checkpoint.is_of_another(topic.id.as_deref()) {
        return Vec::new();
    }
    let unread = Trail::default();
    let ours = topic.bounds.iter().map(|bounds| bounds.partition);
    ours.filter_map(|partition| {
        let offset = *checkpoint.offsets.get(&partition)?;
        let trail = checkpoint.trails.get(&partition).unwrap_or(&unread);
        let compared = source.compare(Position { partition, offset }, trail);
        Some(compared.unwrap_or_else(|error| {
            log::warn!("partition {partition} cannot be compared with what was logged yet: {error}");
            Compared { partition, parting: None, proven: false, same_epoch: false }
        }))
    })
    .collect()
}

/// What the group committed; it is not asked when the checkpoint knows every partition.
fn committed(
    source: &mut impl Source,
    group: &str,
    partitions: &[i32],
    checkpoint: Option<&Checkpoint>,
) -> Result<Vec<Option<i64>>, BrokerError> {
    let knows = |checkpoint: &Checkpoint| partitions.iter().all(|p| checkpoint.offsets.contains_key(p));
    if checkpoint.is_some_and(knows) {
        return Ok(vec![None; partitions.len()]);
    }
    source.committed(group, partitions)
}
