//! The log as a destination: formats records as lines and decides when they are forced to disk and when the log is
//! closed.

use std::mem::take;
use std::time::{Duration, Instant};

use crate::config::Fsync;
use crate::consumer::destination::{Destination, DestinationError, Record, Staged};
use crate::consumer::log::archiver::Archiver;
use crate::consumer::log::dedup::{Dedup, Verdict};
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::lines::{LINE_OVERHEAD, Lines};
use crate::consumer::log::lock::LogLock;
use crate::consumer::log::metrics::LogMetrics;
use crate::consumer::log::rejects::reject_line;
use crate::consumer::log::rotation::{Begin, Rotation};
use crate::consumer::log::storage::Disk;
use crate::consumer::progress::Progress;
use crate::consumer::state::now_millis;
use crate::event::EventError;

/// The open log.
pub struct LogDestination {
    /// The files.
    pub files: EventLog<Disk>,
    /// Drops repeated events, if that is wanted.
    pub dedup: Option<Dedup>,
    /// When to close the log.
    pub rotation: Rotation,
    /// When lines are forced to disk.
    pub fsync: Fsync,
    /// Compresses and removes closed logs.
    pub archiver: Archiver,
    /// Held as long as the files are open and the archiver works, so it stands behind them.
    pub lock: LogLock,
    /// The metrics.
    pub metrics: LogMetrics,
    /// The lines in memory.
    pub pending: Pending,
}

/// What is added to the log next.
#[derive(Default)]
pub struct Pending {
    lines: Lines,
    rejected: Lines,
    /// When the first line of the log was written.
    begin: Begin,
    /// The log is closed before any other line is added, under a name with this time.
    rotate_at: Option<i64>,
    /// When the oldest lines that are not covered yet were handed to the files.
    waiting_since: Option<Instant>,
    /// Numbers of lines, of their bytes and of rejected records that were not counted yet.
    events: u64,
    bytes: u64,
    rejects: u64,
    last_reject: String,
    /// Repeated events, and others with the id of an event in the log.
    repeated: u64,
    differing: u64,
    last_differing: String,
    said_cut_short: bool,
}

impl Pending {
    /// Nothing yet, for a log that begins with a line of this time.
    pub fn beginning(begin: Begin) -> Self {
        Self { begin, ..Self::default() }
    }
}

impl LogDestination {
    /// Hands the formatted lines to the files.
    fn hand_over(&mut self, read: &Progress) {
        let Pending { lines, rejected, begin, waiting_since, .. } = &mut self.pending;
        if read != self.files.staged() {
            let mut appended = vec![lines.take(), rejected.take()];
            let (entries, window) = self.dedup.as_mut().map(Dedup::take).unzip();
            appended.extend(entries);
            self.files.stage(&mut appended, read, begin.day, window);
            waiting_since.get_or_insert_with(Instant::now);
        }
    }

    fn waited(&self) -> Duration {
        self.pending.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Closes the log at the end of its period although no line follows.
    fn close_if_over(&mut self) {
        let now = now_millis();
        if self.files.bytes() > 0 && self.rotation.period_is_over(self.pending.begin, now) {
            self.pending.rotate_at.get_or_insert(now);
        }
    }

    fn rotate(&mut self) -> Result<(), DestinationError> {
        if let Some(now) = self.pending.rotate_at {
            self.files.rotate(now)?;
            self.pending.rotate_at = None;
            self.metrics.rotations.inc();
            self.archiver.log_closed();
        }
        Ok(())
    }

    fn stage_event(&mut self, record: &Record<'_>, text: &str) -> Staged {
        let &Record { time, id, now, .. } = record;
        let mut fingerprint = None;
        if let (Some(dedup), Some(id)) = (&mut self.dedup, id) {
            match dedup.judge(id, time, now) {
                Verdict::New(new) => fingerprint = Some(new),
                Verdict::Full => return Staged::Full,
                Verdict::Repeated => {
                    self.pending.repeated += 1;
                    return Staged::Dropped;
                }
                Verdict::Differs => {
                    self.pending.differing += 1;
                    self.pending.last_differing = describe(record);
                    return Staged::Dropped;
                }
            }
        }
        let pending = &mut self.pending;
        let bytes = text.len() + LINE_OVERHEAD;
        let len = self.files.bytes() + pending.lines.len() as u64;
        if len == 0 {
            pending.begin = Begin::at(now);
        }
        if self.rotation.closes_before(len, pending.begin, bytes as u64, now) {
            pending.rotate_at = Some(now);
            return Staged::Full;
        }
        pending.lines.add(now, text);
        pending.events += 1;
        pending.bytes += bytes as u64;
        if let (Some(dedup), Some(fingerprint), Some(id)) = (&mut self.dedup, fingerprint, id) {
            dedup.add(fingerprint, id.checksum);
        }
        Staged::Taken(bytes)
    }

    fn stage_reject(&mut self, record: &Record<'_>, error: &EventError) -> Staged {
        let &Record { partition, offset, value, now, .. } = record;
        let pending = &mut self.pending;
        let line = reject_line(&self.files.covered().topic, partition, offset, error, value);
        pending.rejected.add(now, &line);
        pending.rejects += 1;
        pending.last_reject = format!("partition {partition} offset {offset}: {error}");
        Staged::Taken(line.len() + LINE_OVERHEAD)
    }

    fn count(&mut self) {
        self.metrics.events.inc_by(take(&mut self.pending.events));
        self.metrics.bytes.inc_by(take(&mut self.pending.bytes));
        let rejects = take(&mut self.pending.rejects);
        if rejects > 0 {
            log::warn!(
                "wrote {rejects} records that are not valid events to the rejected file; the last: {}",
                self.pending.last_reject
            );
        }
        if let Some(dedup) = &self.dedup {
            let (repeated, differing) = (take(&mut self.pending.repeated), take(&mut self.pending.differing));
            self.metrics.dropped(repeated, differing, dedup.window());
            if differing > 0 {
                log::warn!(
                    "dropped {differing} events that have the id of another event in the log; the last: {}",
                    self.pending.last_differing
                );
            }
            self.say_if_cut_short();
        }
    }

    /// Says once that the window is shorter than promised, and again when that changes.
    fn say_if_cut_short(&mut self) {
        let Some(window) = self.dedup.as_ref().map(Dedup::window) else { return };
        if window.is_cut_short() != self.pending.said_cut_short {
            self.pending.said_cut_short = window.is_cut_short();
            if window.is_cut_short() {
                log::warn!(
                    "event ids are forgotten after {} s, before DEDUP_WINDOW, because there are more than \
                     DEDUP_MAX_IDS: raise it (up to twice as many are held, at most 60 bytes of memory each)",
                    window.reach() / 1000
                );
            }
        }
    }
}

fn describe(record: &Record<'_>) -> String {
    let id = record.id.map(|id| String::from_utf8_lossy(&id.text).into_owned()).unwrap_or_default();
    format!("id {id:?} at partition {} offset {}", record.partition, record.offset)
}

impl Destination for LogDestination {
    const NAME: &'static str = "log";

    fn covered(&self) -> &Progress {
        self.files.covered()
    }

    fn stage(&mut self, record: &Record<'_>) -> Staged {
        match record.event {
            Ok(text) => self.stage_event(record, text),
            Err(error) => self.stage_reject(record, error),
        }
    }

    fn settle(&mut self, read: &Progress, now: bool) -> Result<Option<Duration>, DestinationError> {
        let log_id = self.files.covered().log_id.as_deref();
        self.lock.keep(log_id.unwrap_or_default()).map_err(DestinationError::Retryable)?;
        self.hand_over(read);
        self.close_if_over();
        let limit = match self.fsync {
            Fsync::Interval(limit) => limit,
            Fsync::Batch | Fsync::Never => Duration::ZERO,
        };
        let makes_room = self.pending.rotate_at.is_some() || self.dedup.as_ref().is_some_and(Dedup::is_due);
        self.files.settle(now || makes_room || self.waited() >= limit)?;
        self.rotate()?;
        if let Some(dedup) = &mut self.dedup {
            dedup.begin_generation(&mut self.files)?;
        }
        self.count();
        if self.files.is_behind() {
            return Ok(Some(limit.saturating_sub(self.waited())));
        }
        if let (Some(_), Some(time)) = (self.pending.waiting_since.take(), self.files.synced_in()) {
            self.metrics.fsync_seconds.observe(time.as_secs_f64());
        }
        Ok(None)
    }

    fn close(&mut self) -> Result<(), DestinationError> {
        self.files.close()
    }
}
