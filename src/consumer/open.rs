//! Opens the destination at startup: waits for Kafka and for the destination, decides where to continue, and claims
//! the partitions.
//!
//! Blocks only between attempts.

use std::time::Duration;

use crate::broker::{Bounds, BrokerError, Committed, Compared, Position, Source};
use crate::config::ConsumerConfig;
use crate::consumer::claim::{Claim, ClaimError};
use crate::consumer::destination::{DestinationError, Opener, Stored};
use crate::consumer::failure::Failure;
use crate::consumer::mark::{Mark, new_id};
use crate::consumer::ownership::{self, Claimant, Known, Ownership};
use crate::consumer::progress::{Offsets, Progress};
use crate::consumer::recall::recall;
use crate::consumer::start::{Topic, resume};
use crate::consumer::state::{State, partition_name};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why one attempt failed.
enum AttemptError {
    Kafka(BrokerError),
    Destination(DestinationError),
}

impl From<BrokerError> for AttemptError {
    fn from(error: BrokerError) -> Self {
        Self::Kafka(error)
    }
}

impl From<DestinationError> for AttemptError {
    fn from(error: DestinationError) -> Self {
        Self::Destination(error)
    }
}

impl AttemptError {
    fn refused(reason: String) -> Self {
        Self::Destination(DestinationError::Refused(reason))
    }
}

/// The result of a successful start.
pub struct Opened<D> {
    /// The open destination.
    pub destination: D,
    /// Our partitions in the eyes of the group.
    pub claim: Claim,
    /// Those of them whose leaders did not answer.
    pub unread: Vec<i32>,
}

/// Opens the destination where the last run left it and claims its partitions. Returns `None` if the shutdown began
/// before that was possible.
///
/// # Errors
/// Anything that waiting cannot fix.
pub fn open<S: Source, O: Opener>(
    config: &ConsumerConfig,
    opener: &mut O,
    source: &mut S,
    state: &State,
    shutdown: &Shutdown,
) -> Result<Option<Opened<O::Destination>>, Failure> {
    // Progress that cannot be used is reported before Kafka is waited for.
    match opener.stored() {
        Ok(_) | Err(DestinationError::Retryable(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let new_id = new_id();
    let opened =
        until_it_works(state, shutdown, || attempt(config, opener, &new_id, source, (state, shutdown)))?;
    let Some((mut opened, decided)) = opened else { return Ok(None) };
    let claim = &mut opened.claim;
    let claimed = until_it_works(state, shutdown, || match claim.make(source, &decided, shutdown) {
        Ok(()) => Ok(()),
        Err(ClaimError::Kafka(error)) => Err(AttemptError::Kafka(error)),
        Err(ClaimError::Lost(reason)) => {
            // Nothing has been read yet, so our other partitions are free.
            let _ = claim.stop(source, &Offsets::new(), true);
            Err(AttemptError::refused(reason))
        }
    })?;
    if claimed.is_some() {
        state.solved("start");
    }
    Ok(claimed.map(|()| opened))
}

/// Retries `step` until it succeeds. Returns `None` if the shutdown begins first.
fn until_it_works<T>(
    state: &State,
    shutdown: &Shutdown,
    mut step: impl FnMut() -> Result<T, AttemptError>,
) -> Result<Option<T>, Failure> {
    let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
    while !shutdown.requested() {
        match step() {
            Ok(done) => return Ok(Some(done)),
            Err(AttemptError::Kafka(BrokerError::Unsupported(reason) | BrokerError::Refused(reason))) => {
                return Err(Failure::bad_config(reason));
            }
            Err(AttemptError::Kafka(BrokerError::Throttled(..))) => {}
            Err(AttemptError::Kafka(error)) => {
                state.metrics.kafka_errors.with_label_values(&[error.kind()]).inc();
                state.problem("start", &error.to_string());
            }
            Err(AttemptError::Destination(DestinationError::Retryable(reason))) => {
                state.metrics.write_errors.inc();
                state.problem("start", &reason);
            }
            Err(AttemptError::Destination(error)) => return Err(error.into()),
        }
        let _ = shutdown.closed().recv_timeout(backoff.next_wait(fastrand::f64()));
    }
    Ok(None)
}

fn attempt<O: Opener>(
    config: &ConsumerConfig,
    opener: &mut O,
    new_id: &str,
    source: &mut impl Source,
    (state, shutdown): (&State, &Shutdown),
) -> Result<(Opened<O::Destination>, Ownership), AttemptError> {
    let reading = &config.reading;
    let all = source.partitions()?;
    let ours: Vec<i32> = all.iter().copied().filter(|&partition| reading.shard.takes(partition)).collect();
    let mut stored = opener.stored()?;
    let log_id = stored.as_ref().and_then(|stored| stored.progress.log_id.clone());
    let log_id = log_id.unwrap_or_else(|| new_id.to_owned());
    let id = source.topic_id()?;
    let committed = committed(source, &reading.group, &all)?;
    let claimant = Claimant {
        group: &reading.group,
        topic: &config.kafka.topic,
        topic_id: id.as_deref(),
        log: &log_id,
        predecessor: opener.predecessor().filter(|&before| before != log_id),
        place: opener.place(),
        shard: reading.shard,
        take_over: reading.take_over.as_deref().unwrap_or_default(),
    };
    let nothing = Offsets::new();
    let known = stored.as_ref().map(|Stored { progress, may_be_old }| Known {
        offsets: if progress.is_of_another(id.as_deref()) { &nothing } else { &progress.offsets },
        claim: progress.claim,
        may_be_old: *may_be_old,
    });
    let mut decided = ownership::decide(&claimant, &all, &committed, known).map_err(AttemptError::refused)?;
    decided.notes.extend(needless_takeover(&claimant, &all, &committed, known));
    let mark = Mark::new(&log_id, reading.shard, opener.place(), id.as_deref(), decided.claim);
    let superseded =
        stored.as_mut().is_some_and(|stored| drop_taken_over(&mut stored.progress, &decided, id.as_ref()));
    let stored = stored.map(|stored| stored.progress);
    let (mut bounds, mut unread) = bounds(source, &ours, state)?;
    if let (Some(partition), Some(stored)) = (unread.first(), &stored)
        && stored.is_of_another(id.as_deref())
    {
        // We need its first offset: our progress and the group only know the old topic.
        let problem = format!(
            "topic {} was created again and partition {partition} is not there yet",
            config.kafka.topic
        );
        return Err(AttemptError::Kafka(BrokerError::Retryable(problem)));
    }
    let topic = Topic {
        name: &config.kafka.topic,
        compared: compared(source, stored.as_ref(), (&mut bounds, &mut unread), id.as_deref(), state)?,
        id,
        shard: reading.shard.to_string(),
        log_id,
        claim: decided.claim,
        bounds,
        unread,
        committed: decided.committed.clone(),
        taken_over: if superseded { decided.taken_over.clone() } else { Offsets::new() },
        reset: reading.offset_reset,
    };
    let (progress, start) = resume(stored, &topic).map_err(AttemptError::refused)?;
    let destination = opener.open(progress, &recall(opener, source, &decided, shutdown)?)?;
    decided.notes.iter().chain(&start.warnings).for_each(|note| log::warn!("{note}"));
    let claim = Claim::new(&reading.group, mark, start.offsets);
    Ok((Opened { destination, claim, unread: topic.unread }, decided))
}

/// Says that `CONSUMER_TAKE_OVER` is set although the decision is the same without it.
fn needless_takeover(
    us: &Claimant<'_>,
    partitions: &[i32],
    committed: &[Option<Committed>],
    known: Option<Known<'_>>,
) -> Option<String> {
    let unnamed = Claimant { take_over: &[], ..*us };
    let is_needless =
        !us.take_over.is_empty() && ownership::decide(&unnamed, partitions, committed, known).is_ok();
    is_needless.then(|| {
        "CONSUMER_TAKE_OVER is set but not needed: remove it, or it will allow a takeover later".into()
    })
}

/// Removes from the progress what other logs continued. Returns true if there was something.
fn drop_taken_over(progress: &mut Progress, decided: &Ownership, topic_id: Option<&String>) -> bool {
    let before = progress.offsets.len();
    progress.offsets.retain(|partition, _| !decided.taken_over.contains_key(partition));
    progress.trails.retain(|partition, _| !decided.taken_over.contains_key(partition));
    if progress.offsets.is_empty() && topic_id.is_some() {
        // Nothing in it is about the topic that it was of.
        progress.topic_id = topic_id.cloned();
    }
    progress.offsets.len() < before
}

/// Returns what the topic still has of what was read up to `stored`. Partitions whose leader does not say so now
/// become unread.
fn compared(
    source: &mut impl Source,
    stored: Option<&Progress>,
    (bounds, unread): (&mut Vec<Bounds>, &mut Vec<i32>),
    topic_id: Option<&str>,
    state: &State,
) -> Result<Vec<Compared>, BrokerError> {
    let Some(stored) = stored.filter(|stored| !stored.is_of_another(topic_id)) else { return Ok(Vec::new()) };
    let (mut compared, mut failed) = (Vec::new(), None);
    let stored_at = |bounds: &Bounds| {
        let partition = bounds.partition;
        stored.offsets.get(&partition).map(|&offset| Position { partition, offset })
    };
    let positions: Vec<Position> = bounds.iter().filter_map(stored_at).collect();
    for (Position { partition, .. }, found) in
        positions.iter().copied().zip(source.compare(&positions, &stored.trails)?)
    {
        match found {
            Ok(found) => compared.push(found),
            Err(error) => {
                state.problem(&partition_name(partition), &error.to_string());
                unread.push(partition);
                failed = Some(error);
            }
        }
    }
    bounds.retain(|bounds| !unread.contains(&bounds.partition));
    match failed {
        Some(error) if bounds.is_empty() => Err(error),
        _ => Ok(compared),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_a_topic_that_is_gone_counts_as_one_of_the_next_only_when_none_of_its_offsets_is_left() {
        let of_before = Progress {
            topic_id: Some("before".into()),
            offsets: [(0, 5), (1, 6)].into(),
            ..Progress::default()
        };
        for (taken_over, id) in [(vec![(0, 1), (1, 2)], "now"), (vec![(0, 1)], "before"), (vec![], "before")]
        {
            let mut progress = of_before.clone();
            let decided = Ownership { taken_over: taken_over.into_iter().collect(), ..Ownership::default() };
            let superseded = drop_taken_over(&mut progress, &decided, Some(&"now".into()));
            assert_eq!(superseded, !decided.taken_over.is_empty());
            assert_eq!(progress.topic_id.as_deref(), Some(id));
        }
    }
}
