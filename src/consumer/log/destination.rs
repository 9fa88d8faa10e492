//! The log as a destination: formats records as lines and decides when they are forced to disk and when the log is
//! closed.

use std::mem::take;
use std::time::{Duration, Instant};

use crate::config::Fsync;
use crate::consumer::destination::{Destination, DestinationError, Record};
use crate::consumer::log::archiver::Archiver;
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::lines::{LINE_OVERHEAD, Lines};
use crate::consumer::log::lock::LogLock;
use crate::consumer::log::metrics::LogMetrics;
use crate::consumer::log::rejects::reject_line;
use crate::consumer::log::rotation::{Rotation, day_of};
use crate::consumer::log::storage::Disk;
use crate::consumer::progress::Progress;

/// The open log.
pub struct LogDestination {
    /// The files.
    pub files: EventLog<Disk>,
    /// Held as long as the files are open.
    pub lock: LogLock,
    /// When to close the log.
    pub rotation: Rotation,
    /// When lines are forced to disk.
    pub fsync: Fsync,
    /// Compresses and removes closed logs.
    pub archiver: Archiver,
    /// The metrics.
    pub metrics: LogMetrics,
    /// The lines in memory.
    pub staged: Staged,
}

/// What is added to the log next.
#[derive(Default)]
pub struct Staged {
    lines: Lines,
    rejected: Lines,
    /// UTC day of the first line, if the log is empty.
    first_day: i64,
    /// The log is closed before any other line is added, under a name with this time.
    rotate_at: Option<i64>,
    /// When the oldest lines that are not covered yet were handed to the files.
    waiting_since: Option<Instant>,
    /// Numbers of lines, of their bytes and of rejected records that were not counted yet.
    events: u64,
    bytes: u64,
    rejects: u64,
    last_reject: String,
}

impl LogDestination {
    /// Hands the formatted lines to the files.
    fn hand_over(&mut self, read: &Progress) {
        let Staged { lines, rejected, first_day, waiting_since, .. } = &mut self.staged;
        if read != self.files.staged() {
            self.files.stage(lines.take(), rejected.take(), read, *first_day);
            waiting_since.get_or_insert_with(Instant::now);
        }
    }

    fn waited(&self) -> Duration {
        self.staged.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn rotate(&mut self) -> Result<(), DestinationError> {
        if let Some(now) = self.staged.rotate_at {
            self.files.rotate(now)?;
            self.staged.rotate_at = None;
            self.metrics.rotations.inc();
            self.archiver.log_closed();
        }
        Ok(())
    }

    fn count(&mut self) {
        self.metrics.events.inc_by(take(&mut self.staged.events));
        self.metrics.bytes.inc_by(take(&mut self.staged.bytes));
        let rejects = take(&mut self.staged.rejects);
        if rejects > 0 {
            log::warn!(
                "wrote {rejects} records that are not valid events to the rejected file; the last: {}",
                self.staged.last_reject
            );
        }
    }
}

impl Destination for LogDestination {
    const NAME: &'static str = "log";

    fn covered(&self) -> &Progress {
        self.files.covered()
    }

    fn stage(&mut self, record: &Record<'_>) -> Option<usize> {
        let &Record { partition, offset, value, event, now } = record;
        let staged = &mut self.staged;
        match event {
            Ok(text) => {
                let (in_files, bytes, today) = (self.files.bytes(), text.len() + LINE_OVERHEAD, day_of(now));
                let len = in_files + staged.lines.len() as u64;
                let first_day = if in_files > 0 { self.files.first_day() } else { staged.first_day };
                if self.rotation.closes_before(len, first_day, bytes as u64, today) {
                    staged.rotate_at = Some(now);
                    return None;
                }
                if len == 0 {
                    staged.first_day = today;
                }
                staged.lines.add(now, text);
                staged.events += 1;
                staged.bytes += bytes as u64;
                Some(bytes)
            }
            Err(error) => {
                let line = reject_line(&self.files.covered().topic, partition, offset, error, value);
                staged.rejected.add(now, &line);
                staged.rejects += 1;
                staged.last_reject = format!("partition {partition} offset {offset}: {error}");
                Some(line.len() + LINE_OVERHEAD)
            }
        }
    }

    fn settle(&mut self, read: &Progress, now: bool) -> Result<Option<Duration>, DestinationError> {
        let log_id = self.files.covered().log_id.as_deref();
        self.lock.keep(log_id.unwrap_or_default()).map_err(DestinationError::Retryable)?;
        self.hand_over(read);
        let limit = match self.fsync {
            Fsync::Interval(limit) => limit,
            Fsync::Batch | Fsync::Never => Duration::ZERO,
        };
        self.files.settle(now || self.staged.rotate_at.is_some() || self.waited() >= limit)?;
        self.rotate()?;
        self.count();
        if self.files.is_behind() {
            return Ok(Some(limit.saturating_sub(self.waited())));
        }
        if let (Some(_), Some(time)) = (self.staged.waiting_since.take(), self.files.synced_in()) {
            self.metrics.fsync_seconds.observe(time.as_secs_f64());
        }
        Ok(None)
    }

    fn close(&mut self) -> Result<(), DestinationError> {
        self.files.close()
    }
}
