//! Finds partitions that are not read yet, because they are new or had no leader, and starts reading them.

use std::time::{Duration, Instant};

use crate::broker::{Bounds, BrokerError, Committed, Source};
use crate::consumer::claim::ClaimError;
use crate::consumer::failure::Failure;
use crate::consumer::log::checkpoint::Offsets;
use crate::consumer::reader::{Cursor, Reader, UNREAD_WAIT};
use crate::consumer::start::decide;
use crate::consumer::state::partition_name;

impl<S: Source> Reader<S> {
    /// Looks for partitions that are not read yet, and checks that those being read are still ours.
    ///
    /// # Errors
    /// Anything that only an operator can decide.
    pub fn find_new_partitions(&mut self, now: Instant) -> Result<(), Failure> {
        self.partitions_due = now + Duration::from_millis(self.config.metadata_max_age_ms);
        let found = self.source.partitions().and_then(|partitions| Ok((partitions, self.source.topic_id()?)));
        let (partitions, id) = match found {
            Ok(found) => found,
            Err(error) => return self.kafka_failed(&error),
        };
        if self.is_recreated(id.as_deref()) {
            return Err(self.recreated());
        }
        let ours: Vec<i32> =
            partitions.into_iter().filter(|partition| self.config.shard.takes(*partition)).collect();
        match self.claim.look(&mut self.source) {
            Err(ClaimError::Lost(reason)) => return Err(Failure::undecided(reason)),
            Ok(false) => {
                self.committed = None;
                self.commit_due = now;
            }
            // The next commit says it, if it lasts.
            Ok(true) | Err(ClaimError::Kafka(_)) => {}
        }
        let new: Vec<i32> =
            ours.into_iter().filter(|partition| !self.cursors.contains_key(partition)).collect();
        if new.is_empty() { Ok(()) } else { self.begin(&new, now) }
    }

    /// Starts reading those partitions of `new` whose leader answers.
    fn begin(&mut self, new: &[i32], now: Instant) -> Result<(), Failure> {
        let known = self.source.bounds(new).and_then(|bounds| Ok((self.committed(new)?, bounds)));
        let (committed, bounds) = match known {
            Ok(known) => known,
            Err(error) => {
                self.cannot_begin(new, &error, now);
                return Ok(());
            }
        };
        let owned =
            self.claim.decide(&self.topic, &self.config, new, &committed).map_err(Failure::undecided)?;
        if owned.claim > self.claim.number() + 1 {
            // Our marks would look older than that one, and only a start chooses another number.
            return Err(Failure::failed(format!(
                "{} was read by a consumer that started after this one and has stopped; start this one again, then \
                 it continues there",
                partition_name(new[0])
            )));
        }
        owned.notes.iter().for_each(|note| log::warn!("{note}"));
        let mut known: Vec<Bounds> = Vec::new();
        for (&partition, bounds) in new.iter().zip(bounds) {
            match bounds {
                Ok(bounds) => known.push(bounds),
                Err(error) => self.cannot_begin(&[partition], &error, now),
            }
        }
        let start = decide(&self.topic, None, &owned.committed, (&known, &[]), &[], self.config.offset_reset);
        let offsets = start.map_err(Failure::undecided)?.offsets;
        // The group knows whose they are before they are read.
        self.claim.add(&offsets);
        match self.claim.commit(&mut self.source, &Offsets::new()) {
            Err(ClaimError::Lost(reason)) => return Err(Failure::undecided(reason)),
            Err(ClaimError::Kafka(error)) if owned.follows || !matches!(error, BrokerError::Denied(_)) => {
                self.cannot_begin(new, &error, now);
                return Ok(());
            }
            Ok(()) | Err(ClaimError::Kafka(_)) => {}
        }
        for (&partition, &offset) in &offsets {
            self.state.solved(&partition_name(partition));
            log::info!("reading new partition={partition} from offset={offset}");
            self.cursors.insert(partition, Cursor::at(offset));
        }
        Ok(())
    }

    /// These are tried again soon.
    fn cannot_begin(&mut self, partitions: &[i32], error: &BrokerError, now: Instant) {
        self.partitions_due = now + UNREAD_WAIT;
        if matches!(error, BrokerError::Throttled(..)) {
            return;
        }
        let reason = error.to_string();
        partitions.iter().for_each(|&partition| self.state.problem(&partition_name(partition), &reason));
        self.count(error);
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError> {
        match self.claim.committed(&mut self.source, partitions) {
            Err(BrokerError::Denied(_)) => Ok(vec![None; partitions.len()]),
            committed => committed,
        }
    }
}
