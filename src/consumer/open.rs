//! The start: waits for Kafka and for a usable disk, recovers the log, and claims its partitions in the group.
//!
//! Blocks only between tries.

use std::path::Path;
use std::time::Duration;

use crate::broker::{Bounds, BrokerError, Committed, Compared, Position, Source, Trail};
use crate::config::ConsumerConfig;
use crate::linux;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

use super::Failure;
use super::checkpoint::{Checkpoint, Offsets};
use super::claim::{Claim, ClaimError};
use super::event_log::EventLog;
use super::lock::LogLock;
use super::ownership::{self, Claimant, Mark, Ownership};
use super::paths::Paths;
use super::recovery::{Recovered, RecoveryError, Topic, read_checkpoint, recover};
use super::state::{State, partition_name};
use super::storage::Disk;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why one try failed.
enum Try {
    Kafka(BrokerError),
    Recovery(RecoveryError),
}

impl From<BrokerError> for Try {
    fn from(error: BrokerError) -> Self {
        Self::Kafka(error)
    }
}

impl From<RecoveryError> for Try {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

/// Opens the log where the last run left it and claims its partitions; `None` if the shutdown began before that was
/// possible.
///
/// # Errors
/// What waiting does not change.
pub fn open_log<S: Source>(
    config: &ConsumerConfig,
    (paths, lock): (&Paths, &mut LogLock),
    source: &mut S,
    state: &State,
    shutdown: &Shutdown,
) -> Result<Option<(EventLog<Disk>, Claim)>, Failure> {
    // A checkpoint that cannot be used is told before Kafka is waited for.
    match read_checkpoint(&Disk, paths) {
        Err(RecoveryError::Refused(reason)) => return Err(Failure::undecided(reason)),
        Ok(Some(Checkpoint { log_id: Some(id), .. })) => lock.set_log_id(&id),
        _ => {}
    }
    state.not_yet("start", "Kafka was not reached yet");
    let opened = until_it_works(state, shutdown, || attempt(config, (paths, lock.log_id()), source, state))?;
    let Some(Opened { log, claim: number, contested }) = opened else { return Ok(None) };
    let mark = Mark::new(lock.log_id(), config.reading.shard, &place(&paths.log), number);
    let mut claim = Claim::new(&config.reading.group, mark, log.offsets().clone());
    let claimed = until_it_works(state, shutdown, || match claim.make(source, contested, shutdown) {
        Ok(()) => Ok(()),
        Err(ClaimError::Kafka(error)) => Err(Try::Kafka(error)),
        Err(ClaimError::Lost(reason)) => {
            // Nothing was read yet, so the others of our partitions are free.
            let _ = claim.stop(source, &Offsets::new(), true);
            Err(Try::Recovery(RecoveryError::Refused(reason)))
        }
    })?;
    if claimed.is_some() {
        state.solved("start");
    }
    Ok(claimed.map(|()| (log, claim)))
}

/// Tries until it works; `None` if the shutdown begins before.
fn until_it_works<T>(
    state: &State,
    shutdown: &Shutdown,
    mut step: impl FnMut() -> Result<T, Try>,
) -> Result<Option<T>, Failure> {
    let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
    while !shutdown.requested() {
        match step() {
            Ok(done) => return Ok(Some(done)),
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

/// A log that is open, and how its partitions are to be claimed.
struct Opened {
    log: EventLog<Disk>,
    claim: u64,
    contested: bool,
}

fn attempt(
    config: &ConsumerConfig,
    (paths, log_id): (&Paths, &str),
    source: &mut impl Source,
    state: &State,
) -> Result<Opened, Try> {
    let reading = &config.reading;
    let all = source.partitions()?;
    let ours: Vec<i32> = all.iter().copied().filter(|&partition| reading.shard.takes(partition)).collect();
    let mut checkpoint = read_checkpoint(&Disk, paths)?;
    let id = source.topic_id()?;
    let committed = committed(source, &reading.group, &all)?;
    let us = Claimant {
        group: &reading.group,
        topic: &config.kafka.topic,
        log: log_id,
        shard: reading.shard,
        take_over: reading.take_over.as_deref(),
    };
    let known = checkpoint.as_ref().map(|checkpoint| &checkpoint.offsets);
    let decided = ownership::decide(&us, &all, &committed, known).map_err(RecoveryError::Refused)?;
    let Ownership { taken_over, claim, contested, notes } = decided;
    let superseded = checkpoint.as_mut().is_some_and(|checkpoint| {
        let before = checkpoint.offsets.len();
        checkpoint.offsets.retain(|partition, _| !taken_over.contains_key(partition));
        checkpoint.trails.retain(|partition, _| !taken_over.contains_key(partition));
        checkpoint.offsets.len() < before
    });
    let mut next: Offsets =
        all.iter().zip(committed).filter_map(|(&p, committed)| Some((p, committed?.offset))).collect();
    next.extend(taken_over);
    let (bounds, unread) = bounds(source, &ours, state)?;
    if let (Some(partition), Some(then)) =
        (unread.first(), checkpoint.as_ref().and_then(|c| c.topic_id.as_ref()))
        && id.as_ref().is_some_and(|id| id != then)
    {
        // Its beginning is needed: what the checkpoint and the group know is of the topic before.
        let problem =
            format!("topic {} was created again and partition {partition} is not there yet", us.topic);
        return Err(Try::Kafka(BrokerError::Retryable(problem)));
    }
    let mut topic = Topic {
        name: &config.kafka.topic,
        id,
        shard: reading.shard.to_string(),
        log_id: log_id.to_owned(),
        bounds,
        unread,
        committed: next,
        taken_over: superseded,
        compared: Vec::new(),
        reset: reading.offset_reset,
    };
    if let Some(checkpoint) = &checkpoint {
        topic.compared = compared(source, checkpoint, &topic);
    }
    let Recovered { log, notes: found } =
        recover(Disk, paths, checkpoint, &topic, config.log.fsync, &linux::boot_id())?;
    notes.iter().chain(&found).for_each(|note| log::warn!("{note}"));
    Ok(Opened { log, claim, contested })
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

/// What the group committed for each partition of the topic.
fn committed(
    source: &mut impl Source,
    group: &str,
    partitions: &[i32],
) -> Result<Vec<Option<Committed>>, BrokerError> {
    match source.committed(group, partitions) {
        Err(BrokerError::Denied(reason)) => {
            log::warn!(
                "{reason}. Going on without: a change of CONSUMER_SHARD is not noticed, and a log without a checkpoint \
                 begins at the earliest offset"
            );
            Ok(vec![None; partitions.len()])
        }
        committed => committed,
    }
}

/// The bounds of those partitions that can be asked, and the others.
fn bounds(
    source: &mut impl Source,
    partitions: &[i32],
    state: &State,
) -> Result<(Vec<Bounds>, Vec<i32>), BrokerError> {
    let (mut known, mut unread) = (Vec::new(), Vec::new());
    for (&partition, bounds) in partitions.iter().zip(source.bounds(partitions)?) {
        match bounds {
            Ok(bounds) => known.push(bounds),
            Err(error) => {
                state.problem(&partition_name(partition), &error.to_string());
                unread.push(partition);
            }
        }
    }
    Ok((known, unread))
}

/// Where the log is, for the operator of another one.
fn place(log: &Path) -> String {
    let path = std::path::absolute(log).unwrap_or_else(|_| log.to_path_buf());
    format!("{}:{}", linux::host_name(), path.display())
}
