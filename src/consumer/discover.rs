//! Takes up partitions that are not read yet: added ones, and those that had no leader before.

use std::time::{Duration, Instant};

use crate::broker::{Bounds, BrokerError, Committed, Source};

use super::Failure;
use super::checkpoint::Offsets;
use super::claim::ClaimError;
use super::reader::{Cursor, Reader, UNREAD_WAIT};
use super::start::decide;
use super::state::partition_name;

impl<S: Source> Reader<S> {
    /// Looks for partitions that are not read yet, and whether those that are read are still ours.
    ///
    /// # Errors
    /// What only an operator can decide.
    pub(super) fn find_new_partitions(&mut self, now: Instant) -> Result<(), Failure> {
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
            // The next commit says it, if it lasts.
            Ok(()) | Err(ClaimError::Kafka(_)) => {}
        }
        let new: Vec<i32> =
            ours.into_iter().filter(|partition| !self.cursors.contains_key(partition)).collect();
        if new.is_empty() { Ok(()) } else { self.begin(&new, now) }
    }

    /// Begins with those of `new` that can be asked for their beginning.
    fn begin(&mut self, new: &[i32], now: Instant) -> Result<(), Failure> {
        let known = self.source.bounds(new).and_then(|bounds| Ok((self.committed(new)?, bounds)));
        let (committed, bounds) = match known {
            Ok(known) => known,
            Err(error) => {
                new.iter().for_each(|&partition| {
                    self.state.problem(&partition_name(partition), &error.to_string())
                });
                self.count(&error);
                self.partitions_due = now + UNREAD_WAIT;
                return Ok(());
            }
        };
        let owned =
            self.claim.decide(&self.topic, &self.config, new, &committed).map_err(Failure::undecided)?;
        let mut next: Offsets = new
            .iter()
            .zip(&committed)
            .filter_map(|(&p, committed)| Some((p, committed.as_ref()?.offset)))
            .collect();
        next.extend(owned.taken_over);
        owned.notes.iter().for_each(|note| log::warn!("{note}"));
        let mut known: Vec<Bounds> = Vec::new();
        for (&partition, bounds) in new.iter().zip(bounds) {
            match bounds {
                Ok(bounds) => known.push(bounds),
                Err(error) => {
                    self.count(&error);
                    self.state.problem(&partition_name(partition), &error.to_string());
                    self.partitions_due = now + UNREAD_WAIT;
                }
            }
        }
        let start = decide(&self.topic, None, &next, (&known, &[]), &[], self.config.offset_reset);
        let offsets = start.map_err(Failure::undecided)?.offsets;
        for (&partition, &offset) in &offsets {
            self.state.solved(&partition_name(partition));
            log::info!("partition {partition} is new; reading it from offset {offset}");
            self.cursors.insert(partition, Cursor::at(offset));
        }
        // The group knows whose they are before they are read.
        self.claim.add(&offsets);
        self.committed.clear();
        self.commit_due = now;
        Ok(())
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError> {
        match self.claim.committed(&mut self.source, partitions) {
            Err(BrokerError::Denied(_)) => Ok(vec![None; partitions.len()]),
            committed => committed,
        }
    }
}
