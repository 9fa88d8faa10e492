//! What the reader does about a partition whose log lost or replaced what is read next or was read.

use std::time::Instant;

use crate::broker::{BrokerError, Compared, Found, Parting, Position, Source};
use crate::config::OffsetReset;
use crate::consumer::failure::Failure;
use crate::consumer::offset_reset::{RECREATED, in_range, parted};
use crate::consumer::progress::is_another;
use crate::consumer::reader::Reader;
use crate::consumer::state::partition_name;

impl<S: Source> Reader<S> {
    pub fn partition_failed(&mut self, partition: i32, error: &BrokerError) -> Result<(), Failure> {
        self.count(error);
        match error {
            BrokerError::OffsetOutOfRange(_) if self.reset(partition)? => return Ok(()),
            BrokerError::Parted(parting) => self.parted(partition, *parting)?,
            _ => {}
        }
        self.state.problem(&partition_name(partition), &error.to_string());
        if let Some(cursor) = self.cursors.get_mut(&partition) {
            cursor.paused_until = Some(Instant::now() + cursor.backoff.next_wait(fastrand::f64()));
        }
        Ok(())
    }

    /// Ends the reading of a log that is another one before our offset: going back needs another checkpoint first,
    /// which only a start writes. Comes back if the brokers cannot be asked now.
    fn parted(&mut self, partition: i32, parting: Parting) -> Result<(), Failure> {
        if let Ok(id) = self.source.topic_id()
            && is_another(self.topic_id.as_deref(), id.as_deref())
        {
            return Err(self.recreated());
        }
        let (Some(cursor), Ok(bounds)) = (self.cursors.get(&partition), self.source.bounds(&[partition]))
        else {
            return Ok(());
        };
        let Some(Ok(bounds)) = bounds.first() else { return Ok(()) };
        let decided = parted(&self.topic, cursor.offset, bounds, parting, self.config.offset_reset);
        let (_, warning) = decided.map_err(Failure::undecided)?;
        Err(Failure::failed(format!("{warning} as soon as it is started again")))
    }

    /// Moves a partition whose offset the topic does not have, if that is allowed; false if it has it after all, or
    /// cannot be asked now.
    fn reset(&mut self, partition: i32) -> Result<bool, Failure> {
        let Some(cursor) = self.cursors.get(&partition) else { return Ok(true) };
        let position = Position { partition, offset: cursor.offset };
        let Ok(compared) = self.source.compare(&[position], &self.trails) else { return Ok(false) };
        let Some(Ok(Compared { found, .. })) = compared.first().cloned() else { return Ok(false) };
        if let Found::Parted(parting) = found {
            return self.parted(partition, parting).map(|()| false);
        }
        let Ok(bounds) = self.source.bounds(&[partition]) else { return Ok(false) };
        let Some(Ok(bounds)) = bounds.first() else { return Ok(false) };
        let Position { offset, .. } = position;
        if offset > bounds.latest {
            if found == Found::Same {
                // Its log has the records before it. A new leader gives them out a moment later.
                return Ok(false);
            }
            if self.config.offset_reset == OffsetReset::Earliest {
                // Going back needs another checkpoint first, which only a start writes.
                return Err(Failure::failed(format!(
                    "topic {} partition {partition} ends at {}, but offset {offset} is next; start again, then it is \
                     read from its beginning",
                    self.topic, bounds.latest
                )));
            }
        }
        let (offset, warning) =
            in_range(&self.topic, offset, bounds, self.config.offset_reset).map_err(Failure::undecided)?;
        let Some(warning) = warning else { return Ok(false) };
        log::error!("{warning}");
        if let Some(cursor) = self.cursors.get_mut(&partition) {
            cursor.offset = offset;
        }
        Ok(true)
    }

    pub fn recreated(&self) -> Failure {
        let problem = format!("topic {} was deleted and created again", self.topic);
        match self.config.offset_reset {
            OffsetReset::None | OffsetReset::Divergence => {
                Failure::undecided(format!("{problem}. Options: {RECREATED}"))
            }
            // Decided already, and a start carries it out.
            OffsetReset::Earliest => {
                Failure::failed(format!("{problem}; the next start reads the new one from its beginning"))
            }
        }
    }
}
