//! Opens the log at startup: waits for Kafka and a usable disk, recovers the log, and claims its partitions.
//!
//! Blocks only between attempts.

use std::path::Path;
use std::time::Duration;

use crate::broker::{Bounds, BrokerError, Committed, Compared, Position, Source};
use crate::config::ConsumerConfig;
use crate::consumer::claim::{Claim, ClaimError};
use crate::consumer::failure::Failure;
use crate::consumer::log::checkpoint::{Checkpoint, Offsets};
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::lock::{LogLock, new_id};
use crate::consumer::log::paths::Paths;
use crate::consumer::log::recovery::{Recovered, RecoveryError, Topic, read_checkpoint, recover};
use crate::consumer::log::storage::Disk;
use crate::consumer::mark::Mark;
use crate::consumer::ownership::{self, Claimant, Known, Ownership};
use crate::consumer::state::{State, partition_name};
use crate::linux;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why one attempt failed.
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

/// What the start has made.
pub struct Started {
    /// The open log.
    pub log: EventLog<Disk>,
    /// Our partitions in the eyes of the group.
    pub claim: Claim,
    /// Those of them that could not be asked.
    pub unread: Vec<i32>,
}

/// Opens the log where the last run left it and claims its partitions; `None` if the shutdown began before that was
/// possible.
///
/// # Errors
/// Anything that waiting cannot fix.
pub fn open_log<S: Source>(
    config: &ConsumerConfig,
    (paths, lock): (&Paths, &mut LogLock),
    source: &mut S,
    state: &State,
    shutdown: &Shutdown,
) -> Result<Option<Started>, Failure> {
    // A checkpoint that cannot be used is told before Kafka is waited for.
    let log_id = match read_checkpoint(&Disk, paths) {
        Err(RecoveryError::Refused(reason)) => return Err(Failure::undecided(reason)),
        Ok(Some(Checkpoint { log_id: Some(id), .. })) => id,
        Ok(_) | Err(RecoveryError::Io(_)) => new_id(),
    };
    let place = place(&paths.log);
    let us =
        Us { log: &log_id, predecessor: lock.log_id().filter(|&before| before != log_id), place: &place };
    state.not_yet("start", "Kafka was not reached yet");
    let opened = until_it_works(state, shutdown, || attempt(config, paths, us, source, state))?;
    let Some((log, decided, unread)) = opened else { return Ok(None) };
    let mark = Mark::new(&log_id, config.reading.shard, &place, log.topic_id(), decided.claim);
    let mut claim = Claim::new(&config.reading.group, mark, log.offsets().clone());
    let claimed = until_it_works(state, shutdown, || match claim.make(source, &decided, shutdown) {
        Ok(()) => Ok(()),
        Err(ClaimError::Kafka(error)) => Err(Try::Kafka(error)),
        Err(ClaimError::Lost(reason)) => {
            // Nothing has been read yet, so our other partitions are free.
            let _ = claim.stop(source, &Offsets::new(), true);
            Err(Try::Recovery(RecoveryError::Refused(reason)))
        }
    })?;
    if claimed.is_some() {
        // Until now the log before ours was the one that the group knows.
        lock.set_log_id(&log_id);
        state.solved("start");
    }
    Ok(claimed.map(|()| Started { log, claim, unread }))
}

/// Our log, and the one that was at its place before.
#[derive(Clone, Copy)]
struct Us<'a> {
    log: &'a str,
    predecessor: Option<&'a str>,
    place: &'a str,
}

/// Retries `step` until it succeeds. Returns `None` if the shutdown begins first.
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
            Err(Try::Kafka(BrokerError::Throttled(..))) => {}
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

fn attempt(
    config: &ConsumerConfig,
    paths: &Paths,
    us: Us<'_>,
    source: &mut impl Source,
    state: &State,
) -> Result<(EventLog<Disk>, Ownership, Vec<i32>), Try> {
    let reading = &config.reading;
    let all = source.partitions()?;
    let ours: Vec<i32> = all.iter().copied().filter(|&partition| reading.shard.takes(partition)).collect();
    let mut checkpoint = read_checkpoint(&Disk, paths)?;
    let id = source.topic_id()?;
    let committed = committed(source, &reading.group, &all)?;
    let claimant = Claimant {
        group: &reading.group,
        topic: &config.kafka.topic,
        topic_id: id.as_deref(),
        log: us.log,
        predecessor: us.predecessor,
        place: us.place,
        shard: reading.shard,
        take_over: reading.take_over.as_deref().unwrap_or_default(),
    };
    let boot = linux::boot_id();
    let decided = decide(&claimant, &all, &committed, checkpoint.as_ref(), &boot)?;
    let superseded =
        checkpoint.as_mut().is_some_and(|checkpoint| drop_taken_over(checkpoint, &decided, id.as_ref()));
    let (bounds, unread) = bounds(source, &ours, state)?;
    if let (Some(partition), Some(then)) =
        (unread.first(), checkpoint.as_ref().and_then(|c| c.topic_id.as_ref()))
        && id.as_ref().is_some_and(|id| id != then)
    {
        // We need its first offset: the checkpoint and the group only know the old topic.
        let problem =
            format!("topic {} was created again and partition {partition} is not there yet", claimant.topic);
        return Err(Try::Kafka(BrokerError::Retryable(problem)));
    }
    let mut topic = Topic {
        name: &config.kafka.topic,
        id,
        shard: reading.shard.to_string(),
        log_id: us.log.to_owned(),
        claim: decided.claim,
        bounds,
        unread,
        committed: decided.committed.clone(),
        taken_over: if superseded { decided.taken_over.clone() } else { Offsets::new() },
        compared: Vec::new(),
        reset: reading.offset_reset,
    };
    if let Some(checkpoint) = &checkpoint {
        topic.compared = compared(source, checkpoint, &topic)?;
    }
    let Recovered { log, notes } = recover(Disk, paths, checkpoint, &topic, config.log.fsync, &boot)?;
    decided.notes.iter().chain(&notes).for_each(|note| log::warn!("{note}"));
    Ok((log, decided, topic.unread))
}

fn decide(
    us: &Claimant<'_>,
    partitions: &[i32],
    committed: &[Option<Committed>],
    checkpoint: Option<&Checkpoint>,
    boot: &str,
) -> Result<Ownership, RecoveryError> {
    let nothing = Offsets::new();
    let known = checkpoint.map(|checkpoint| Known {
        offsets: if checkpoint.is_of_another(us.topic_id) { &nothing } else { &checkpoint.offsets },
        claim: checkpoint.claim,
        power_was_lost: checkpoint.lost_power(boot),
    });
    ownership::decide(us, partitions, committed, known).map_err(RecoveryError::Refused)
}

/// Removes from the checkpoint what other logs went on with; true if there was something.
fn drop_taken_over(checkpoint: &mut Checkpoint, decided: &Ownership, topic_id: Option<&String>) -> bool {
    let before = checkpoint.offsets.len();
    checkpoint.offsets.retain(|partition, _| !decided.taken_over.contains_key(partition));
    checkpoint.trails.retain(|partition, _| !decided.taken_over.contains_key(partition));
    if checkpoint.offsets.is_empty() && topic_id.is_some() {
        // Nothing in it speaks of the topic that it was of.
        checkpoint.topic_id = topic_id.cloned();
    }
    checkpoint.offsets.len() < before
}

/// What the topic has of what was read up to `checkpoint`.
fn compared(
    source: &mut impl Source,
    checkpoint: &Checkpoint,
    topic: &Topic<'_>,
) -> Result<Vec<Compared>, BrokerError> {
    if checkpoint.is_of_another(topic.id.as_deref()) {
        return Ok(Vec::new());
    }
    let ours = topic.bounds.iter().map(|bounds| bounds.partition);
    let positions: Vec<Position> = ours
        .filter_map(|partition| Some(Position { partition, offset: *checkpoint.offsets.get(&partition)? }))
        .collect();
    source.compare(&positions, &checkpoint.trails)
}

/// Returns what the group has committed for each partition of the topic.
fn committed(
    source: &mut impl Source,
    group: &str,
    partitions: &[i32],
) -> Result<Vec<Option<Committed>>, BrokerError> {
    match source.committed(group, partitions) {
        Err(BrokerError::Denied(reason)) => {
            log::warn!(
                "{reason}. Continuing without it: a change of CONSUMER_SHARD is not detected, and a log without a \
                 checkpoint begins at the earliest offset"
            );
            Ok(vec![None; partitions.len()])
        }
        committed => committed,
    }
}

/// Returns the bounds of every partition whose leader answers, and a list of the other partitions.
fn bounds(
    source: &mut impl Source,
    partitions: &[i32],
    state: &State,
) -> Result<(Vec<Bounds>, Vec<i32>), BrokerError> {
    let (mut known, mut unread) = (Vec::new(), Vec::new());
    for (&partition, bounds) in partitions.iter().zip(source.bounds(partitions)?) {
        match bounds {
            Ok(bounds) => {
                state.solved(&partition_name(partition));
                known.push(bounds);
            }
            Err(throttled @ BrokerError::Throttled(..)) => return Err(throttled),
            Err(error) => {
                state.problem(&partition_name(partition), &error.to_string());
                unread.push(partition);
            }
        }
    }
    Ok((known, unread))
}

/// Host and path of the log, shown to the operator of another log.
fn place(log: &Path) -> String {
    let path = std::path::absolute(log).unwrap_or_else(|_| log.to_path_buf());
    format!("{}:{}", linux::host_name(), path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::log::checkpoint::FileMark;

    #[test]
    fn a_checkpoint_of_a_topic_that_is_gone_counts_as_one_of_the_next_only_when_none_of_its_offsets_is_left()
    {
        let offsets = Offsets::from([(0, 5), (1, 6)]);
        let (log, rejected) = (FileMark::default(), FileMark::default());
        let mut of_before = Checkpoint::new("t", "0/1", offsets, log, rejected);
        of_before.topic_id = Some("before".into());
        for (taken_over, id) in [(vec![(0, 1), (1, 2)], "now"), (vec![(0, 1)], "before"), (vec![], "before")]
        {
            let mut checkpoint = of_before.clone();
            let decided = Ownership { taken_over: taken_over.into_iter().collect(), ..Ownership::default() };
            let superseded = drop_taken_over(&mut checkpoint, &decided, Some(&"now".into()));
            assert_eq!(superseded, !decided.taken_over.is_empty());
            assert_eq!(checkpoint.topic_id.as_deref(), Some(id));
        }
    }
}
