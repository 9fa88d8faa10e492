//! Keeps this consumer's marks in the offsets of its group, and notices when another consumer replaces them.
//!
//! This module only reads and writes the marks; `ownership` interprets them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::broker::{BrokerError, Committed, Position, Source};
use crate::config::ReadingConfig;
use crate::consumer::mark::Mark;
use crate::consumer::ownership::{self, Claimant, Known, Ownership};
use crate::consumer::progress::Offsets;
use crate::shutdown::Shutdown;

/// Wait between claiming a partition that was not ours and reading it: a consumer that claims it at the same
/// time has written its mark by then.
const SETTLE: Duration = Duration::from_millis(300);

/// Why a commit was not made.
#[derive(Debug)]
pub enum ClaimError {
    /// A broker error: worth a retry, or an operator has to look at it.
    Kafka(BrokerError),
    /// Another consumer owns a partition now; the text says which one.
    Lost(String),
}

impl ClaimError {
    /// True if the next try may work.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Kafka(BrokerError::Retryable(_) | BrokerError::Throttled(..)))
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka(error) => error.fmt(f),
            Self::Lost(reason) => f.write_str(reason),
        }
    }
}

impl From<BrokerError> for ClaimError {
    fn from(error: BrokerError) -> Self {
        Self::Kafka(error)
    }
}

/// The partitions that we own according to the group.
pub struct Claim {
    group: String,
    /// What it writes beside the offsets.
    pub mark: Mark,
    /// Next offset of each partition that we own.
    offsets: Offsets,
    /// The ones that another consumer has taken over.
    lost: BTreeSet<i32>,
}

impl Claim {
    /// Creates a claim of the partitions in `offsets`, without writing it to the group yet.
    pub fn new(group: &str, mark: Mark, offsets: Offsets) -> Self {
        Self { group: group.to_owned(), mark, offsets, lost: BTreeSet::new() }
    }

    /// Makes the claim that `decided` allows. Where it is contested, waits a moment and looks whether it still stands.
    ///
    /// # Errors
    /// As for [`ClaimError`]. A group that this user has no permission for is an error only if
    /// another log is followed; otherwise it warns.
    pub fn make(
        &mut self,
        source: &mut impl Source,
        decided: &Ownership,
        shutdown: &Shutdown,
    ) -> Result<(), ClaimError> {
        let mut outcome = self.commit(source, &Offsets::new());
        if outcome.is_ok() && decided.contested && !self.offsets.is_empty() {
            let _ = shutdown.closed().recv_timeout(SETTLE);
            outcome = self.look(source).map(|_| ());
        }
        match outcome {
            Err(ClaimError::Kafka(BrokerError::Denied(reason))) if !decided.follows => {
                log::warn!(
                    "{reason}. Continuing without it: lag tools do not see this consumer, and another consumer of the \
                     same partitions is not detected"
                );
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Adds partitions that are read from now on.
    pub fn add(&mut self, offsets: &Offsets) {
        self.offsets.extend(offsets);
    }

    /// Decides whether we may own `partitions`, which we do not read yet.
    ///
    /// # Errors
    /// See [`ownership::decide`].
    pub fn decide(
        &self,
        topic: &str,
        reading: &ReadingConfig,
        partitions: &[i32],
        committed: &[Option<Committed>],
    ) -> Result<Ownership, String> {
        let us = Claimant {
            group: &self.group,
            topic,
            topic_id: self.mark.topic_id.as_deref(),
            log: &self.mark.log,
            predecessor: None,
            place: &self.mark.place,
            shard: reading.shard,
            take_over: reading.take_over.as_deref().unwrap_or_default(),
        };
        // There is a checkpoint, which does not know them.
        let known = Known { offsets: &Offsets::new(), claim: Some(self.mark.claim), may_be_old: false };
        ownership::decide(&us, partitions, committed, Some(known))
    }

    /// Commits `covered`, unless another consumer has taken over one of our partitions.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn commit(&mut self, source: &mut impl Source, covered: &Offsets) -> Result<(), ClaimError> {
        self.offsets.extend(covered);
        self.look(source)?;
        self.write(source)
    }

    fn write(&self, source: &mut impl Source) -> Result<(), ClaimError> {
        let ours = self.offsets.iter().filter(|(partition, _)| !self.lost.contains(partition));
        let positions: Vec<Position> =
            ours.map(|(&partition, &offset)| Position { partition, offset }).collect();
        if positions.is_empty() {
            return Ok(());
        }
        Ok(source.commit(&self.group, &positions, &self.mark.encode())?)
    }

    /// Makes the final commit for all partitions that are still ours. `in_order` says that the log holds
    /// exactly the events before `covered`.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn stop(
        &mut self,
        source: &mut impl Source,
        covered: &Offsets,
        in_order: bool,
    ) -> Result<(), ClaimError> {
        self.mark.stopped = in_order;
        match self.commit(source, covered) {
            Err(ClaimError::Lost(_)) => self.write(source),
            outcome => outcome,
        }
    }

    /// Looks whether the partitions are still ours; false if a mark of ours is gone, because a tool or the broker
    /// removed it.
    ///
    /// # Errors
    /// As for [`ClaimError`].
    pub fn look(&mut self, source: &mut impl Source) -> Result<bool, ClaimError> {
        let partitions: Vec<i32> = self.offsets.keys().copied().collect();
        if partitions.is_empty() {
            return Ok(true);
        }
        let committed = source.committed(&self.group, &partitions)?;
        let (mut first, mut all_ours) = (None, true);
        for (&partition, committed) in partitions.iter().zip(committed) {
            let found = committed.and_then(|committed| Mark::decode(&committed.note));
            all_ours &= found.as_ref().is_some_and(|found| found.start == self.mark.start);
            let reason = found.and_then(|found| self.mark.lost_to(&found, &self.group, partition));
            if let Some(reason) = reason {
                self.lost.insert(partition);
                first.get_or_insert(reason);
            }
        }
        first.map_or(Ok(all_ours), |reason| Err(ClaimError::Lost(reason)))
    }
}
