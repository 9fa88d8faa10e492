//! Writes the pages from the reader to the log in a thread of its own, and keeps the checkpoint up to date.
//!
//! This thread owns the files and the lock. If a write fails, it is retried until it succeeds; meanwhile the
//! full channel stops the reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, after, select};

use crate::broker::{Page, Trails};
use crate::config::Fsync;
use crate::consumer::ages::Ages;
use crate::consumer::log::checkpoint::Offsets;
use crate::consumer::log::event_log::{EventLog, cover_within};
use crate::consumer::log::lines::{LINE_OVERHEAD, Lines};
use crate::consumer::log::lock::LogLock;
use crate::consumer::log::rejects::reject_line;
use crate::consumer::log::rotation::{Rotation, day_of};
use crate::consumer::log::storage::Storage;
use crate::consumer::reader::Batch;
use crate::consumer::state::{State, now_millis};
use crate::echo::Echo;
use crate::event::one_line;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// Most bytes of lines that are written and forced to disk in one go.
const SEGMENT_MAX_BYTES: usize = 8 << 20;
/// First and longest wait after a failed write.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Interval at which the files are checked while no pages arrive.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Number of records formatted per reading of the clock.
const RECORDS_A_CLOCK: usize = 64;

/// Everything that wakes up the thread.
enum Input {
    Pages(Batch),
    /// SIGHUP: the log may have been moved.
    Look,
    /// Nothing arrived; lines may be due for fsync.
    Idle,
    /// The reader has ended.
    Ended,
}

/// Returned when the shutdown begins while the files cannot be written.
struct GivenUp;

/// Everything a writer needs.
pub struct Parts<S: Storage> {
    /// The files.
    pub log: EventLog<S>,
    /// Held as long as the files are open.
    pub lock: LogLock,
    /// When to close the log.
    pub rotation: Rotation,
    /// When lines are forced to disk.
    pub fsync: Fsync,
    /// Prints events to stdout.
    pub echo: Echo,
    /// Name of the topic, for rejected records.
    pub topic: String,
    /// Pages from the reader.
    pub pages: Receiver<Batch>,
    /// One message per SIGHUP.
    pub hangups: Receiver<()>,
    /// One message after each closed log, if there is room.
    pub closed_logs: Sender<()>,
    /// Shared with the other threads.
    pub state: Arc<State>,
    /// Ends the retries of failed writes.
    pub shutdown: Shutdown,
}

/// The state of the writing thread.
pub struct Writer<S: Storage> {
    parts: Parts<S>,
    lines: Lines,
    rejected: Lines,
    offsets: Offsets,
    trails: Trails,
    first_day: i64,
    /// Number of records, and of events among them, in `lines` and `rejected`.
    records: u64,
    events: u64,
    /// Ages of all records that no checkpoint covers yet.
    ages: Ages,
    last_reject: Option<String>,
    /// When the oldest lines that are not covered yet were staged.
    waiting_since: Option<Instant>,
    line_block: Vec<u8>,
    rejected_block: Vec<u8>,
}

impl<S: Storage> Writer<S> {
    /// Creates a writer that continues where the log ends.
    pub fn new(parts: Parts<S>) -> Self {
        Self {
            offsets: parts.log.offsets().clone(),
            trails: parts.log.trails().clone(),
            first_day: parts.log.first_day(),
            parts,
            lines: Lines::new(),
            rejected: Lines::new(),
            records: 0,
            events: 0,
            ages: Ages::default(),
            last_reject: None,
            waiting_since: None,
            line_block: Vec::new(),
            rejected_block: Vec::new(),
        }
    }

    /// Writes until the reader has ended and all its pages are covered.
    pub fn run(mut self) {
        self.parts.state.cover(self.parts.log.offsets());
        let ended = self.serve();
        self.parts.echo.turn(i64::MAX);
        let closed = ended.is_ok().then(|| self.parts.log.close());
        match closed {
            Some(Ok(())) => {
                self.parts.state.cover(self.parts.log.offsets());
                self.parts.state.close();
            }
            Some(Err(error)) => log::warn!("stopping without a final checkpoint (nothing is lost): {error}"),
            None => {
                log::warn!("stopping with lines not on disk; their records are read again at the next start")
            }
        }
    }

    fn serve(&mut self) -> Result<(), GivenUp> {
        loop {
            match self.next() {
                Input::Pages(batch) => self.write(batch)?,
                Input::Look => self.settle(false)?,
                Input::Idle => {
                    self.parts.echo.turn(now_millis() / 1000);
                    self.settle(self.is_due())?;
                }
                Input::Ended => return self.settle(true),
            }
        }
    }

    fn next(&self) -> Input {
        let wait = self.waiting_since.map_or(IDLE_TICK, |since| {
            cover_within(self.parts.fsync).saturating_sub(since.elapsed()).min(IDLE_TICK)
        });
        select! {
            recv(self.parts.pages) -> batch => batch.map_or(Input::Ended, Input::Pages),
            recv(self.parts.hangups) -> hangup => if hangup.is_ok() { Input::Look } else { Input::Idle },
            recv(after(wait)) -> _ => Input::Idle,
        }
    }

    /// Formats `batch` and any further batches that are ready, then writes them in one go.
    fn write(&mut self, batch: Batch) -> Result<(), GivenUp> {
        let mut next = Some(batch);
        while let Some(batch) = next {
            self.enter_terms(&batch)?;
            for (partition, page) in batch {
                self.format(partition, &page)?;
            }
            let full = self.lines.len() + self.rejected.len() >= SEGMENT_MAX_BYTES / 2;
            next = if full { None } else { self.parts.pages.try_recv().ok() };
        }
        self.commit(self.is_due())
    }

    /// Covers what came before if `batch` comes from other leaders. So a start knows in which leader epoch each line
    /// past the checkpoint was read.
    fn enter_terms(&mut self, batch: &Batch) -> Result<(), GivenUp> {
        let mut is_new = false;
        for (partition, page) in batch {
            self.offsets.entry(*partition).or_insert(page.begin());
            is_new |= self.trails.entry(*partition).or_default().enter(page.term());
        }
        if is_new { self.commit(true) } else { Ok(()) }
    }

    fn format(&mut self, partition: i32, page: &Page) -> Result<(), GivenUp> {
        let mut now = now_millis();
        for (at, (time, offset, value)) in page.timed_records().enumerate() {
            // A compressed batch is always fetched whole, so a page may contain records before our position.
            if self.offsets.get(&partition).is_some_and(|&next| offset < next) {
                continue;
            }
            if at % RECORDS_A_CLOCK == 0 {
                now = now_millis();
            }
            self.format_one(partition, page, (offset, value), now)?;
            self.offsets.insert(partition, offset + 1);
            self.records += 1;
            self.ages.wait(time);
            if self.lines.len() + self.rejected.len() >= SEGMENT_MAX_BYTES {
                self.remember(partition, page);
                self.commit(self.is_due())?;
            }
        }
        let next = self.offsets[&partition].max(page.next_offset);
        self.offsets.insert(partition, next);
        self.remember(partition, page);
        Ok(())
    }

    /// What `page` holds before the next offset is formatted, and may be covered from now on.
    fn remember(&mut self, partition: i32, page: &Page) {
        self.trails.entry(partition).or_default().cover(page, self.offsets[&partition]);
    }

    fn format_one(
        &mut self,
        partition: i32,
        page: &Page,
        (offset, value): (i64, &[u8]),
        now: i64,
    ) -> Result<(), GivenUp> {
        let line = one_line(value);
        let text = line.as_ref().map(|line| std::str::from_utf8(line));
        match text {
            Ok(Ok(text)) => {
                let len = self.parts.log.bytes() + self.lines.len() as u64;
                let (bytes, today) = ((text.len() + LINE_OVERHEAD) as u64, day_of(now));
                if self.parts.rotation.closes_before(len, self.first_day, bytes, today) {
                    self.remember(partition, page);
                    self.close_log(now)?;
                }
                if self.lines.is_empty() && self.parts.log.bytes() == 0 {
                    self.first_day = today;
                }
                self.lines.add(now, text);
                self.events += 1;
                self.parts.echo.show(text.as_bytes(), now / 1000);
            }
            Ok(Err(_)) => unreachable!("an event is UTF-8"),
            Err(error) => {
                self.last_reject = Some(format!("partition {partition} offset {offset}: {error}"));
                let metrics = &self.parts.state.metrics;
                metrics.rejected.with_label_values(&[error.kind.as_str()]).inc();
                self.rejected.add(now, &reject_line(&self.parts.topic, partition, offset, error, value));
            }
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed()) >= cover_within(self.parts.fsync)
    }

    /// Stages the formatted lines in the log and settles it.
    fn commit(&mut self, cover: bool) -> Result<(), GivenUp> {
        let bytes = self.lines.len() as u64;
        self.lines.take(&mut self.line_block);
        self.rejected.take(&mut self.rejected_block);
        let read = (&self.offsets, &self.trails);
        self.parts.log.stage(&mut self.line_block, &mut self.rejected_block, read, self.first_day);
        for block in [&mut self.line_block, &mut self.rejected_block] {
            block.clear();
            // The buffers are reused, so give back the memory of a huge record.
            block.shrink_to(2 * SEGMENT_MAX_BYTES);
        }
        self.waiting_since.get_or_insert_with(Instant::now);
        self.settle(cover)?;
        if let Some(last) = self.last_reject.take() {
            log::warn!(
                "wrote {} records that are not valid events to the rejected file; the last: {last}",
                self.records - self.events
            );
        }
        let metrics = &self.parts.state.metrics;
        metrics.records.inc_by(std::mem::take(&mut self.records));
        metrics.events.inc_by(std::mem::take(&mut self.events));
        metrics.log_bytes.inc_by(bytes);
        Ok(())
    }

    fn close_log(&mut self, now: i64) -> Result<(), GivenUp> {
        self.commit(true)?;
        self.until_it_works(|parts| parts.log.rotate(now).map_err(|error| error.to_string()))?;
        self.parts.state.metrics.rotations.inc();
        // If the channel is full, the archiver will run anyway.
        let _ = self.parts.closed_logs.try_send(());
        Ok(())
    }

    fn settle(&mut self, cover: bool) -> Result<(), GivenUp> {
        self.until_it_works(|parts| {
            parts.lock.keep()?;
            parts.log.settle(cover).map_err(|error| error.to_string())
        })?;
        if !self.parts.log.is_behind() {
            if let (Some(_), Some(took)) = (self.waiting_since.take(), self.parts.log.synced_in()) {
                self.parts.state.metrics.fsync_seconds.observe(took.as_secs_f64());
            }
            self.parts.state.cover(self.parts.log.offsets());
            self.observe_ages();
        }
        Ok(())
    }

    fn observe_ages(&mut self) {
        // A local histogram avoids one atomic operation per record.
        let ages = self.parts.state.metrics.end_to_end_seconds.local();
        for (seconds, records) in self.ages.covered(now_millis()) {
            (0..records).for_each(|_| ages.observe(seconds));
        }
        ages.flush();
    }

    fn until_it_works(
        &mut self,
        mut step: impl FnMut(&mut Parts<S>) -> Result<(), String>,
    ) -> Result<(), GivenUp> {
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        while let Err(reason) = step(&mut self.parts) {
            self.parts.state.metrics.write_errors.inc();
            self.parts.state.problem("log", &format!("{reason}; retrying, nothing is lost"));
            let wait = backoff.next_wait(fastrand::f64());
            if self.parts.shutdown.requested() {
                return Err(GivenUp);
            }
            let _ = self.parts.shutdown.closed().recv_timeout(wait);
        }
        self.parts.state.solved("log");
        Ok(())
    }
}
