//! Finds partitions that are not read yet, because they are new or had no leader, and starts reading them.

use std::time::{Duration, Instant};

use crate::broker::{BrokerError, Committed, Source};
use crate::consumer::claim::ClaimError;
use crate::consumer::failure::Failure;
use crate::consumer::offset_reset::in_range;
use crate::consumer::progress::{Offsets, is_another};
use crate::consumer::reader::{Cursor, Reader, UNREAD_WAIT};
use crate::consumer::state::partition_name;

impl<S: Source> Reader<S> {
    /// Looks for partitions that are not read yet, and checks that those being read are still ours.
    ///
    /// # Errors
    /// Anything that only an operator can decide.
    pub fn find_new_partitions(&mut self, now: Instant) -> Result<(), Failure> {
        self.next_partition_check = now + Duration::from_millis(self.config.metadata_max_age_ms);
        let found = self.source.partitions().and_then(|partitions| Ok((partitions, self.source.topic_id()?)));
        let (partitions, id) = match found {
            Ok(found) => found,
            Err(error) => return self.kafka_failed(&error),
        };
        if is_another(self.topic_id.as_deref(), id.as_deref()) {
            return Err(self.recreated());
        }
        let ours: Vec<i32> =
            partitions.into_iter().filter(|partition| self.config.shard.takes(*partition)).collect();
        match self.claim.look(&mut self.source) {
            Err(ClaimError::Lost(reason)) => return Err(Failure::undecided(reason)),
            Ok(false) => {
                self.committed = None;
                self.next_commit = now;
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
        if owned.claim > self.claim.mark.claim + 1 {
            // Our marks would look older than that one, and only a start chooses another number.
            return Err(Failure::failed(format!(
                "{} was read by a consumer that started after this one and has stopped; start this one again, then \
                 it continues there",
                partition_name(new[0])
            )));
        }
        owned.notes.iter().for_each(|note| log::warn!("{note}"));
        let mut offsets = Offsets::new();
        for (&partition, bounds) in new.iter().zip(bounds) {
            let bounds = match bounds {
                Ok(bounds) => bounds,
                Err(error) => {
                    self.cannot_begin(&[partition], &error, now);
                    continue;
                }
            };
            let wanted = owned.committed.get(&partition).copied().unwrap_or(bounds.earliest);
            let found = in_range(&self.topic, wanted, &bounds, self.config.offset_reset);
            let (offset, warning) = found.map_err(Failure::undecided)?;
            warning.iter().for_each(|warning| log::warn!("{warning}"));
            offsets.insert(partition, offset);
        }
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
        self.next_partition_check = now + UNREAD_WAIT;
        if matches!(error, BrokerError::Throttled(..)) {
            return;
        }
        let reason = error.to_string();
        partitions.iter().for_each(|&partition| self.state.problem(&partition_name(partition), &reason));
        self.count(error);
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError> {
        match self.source.committed(&self.config.group, partitions) {
            Err(BrokerError::Denied(_)) => Ok(vec![None; partitions.len()]),
            committed => committed,
        }
    }
}
