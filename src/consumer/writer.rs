//! Writes the pages from the reader to the destination in a thread of its own.
//!
//! If a write fails, it is retried until it succeeds; meanwhile the full channel stops the reader.

use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, after, select};

use crate::broker::Page;
use crate::consumer::ages::Ages;
use crate::consumer::destination::{Destination, DestinationError, Record, Staged};
use crate::consumer::failure::Failure;
use crate::consumer::peak::Peak;
use crate::consumer::progress::Progress;
use crate::consumer::reader::Batch;
use crate::consumer::state::{State, now_millis};
use crate::echo::Echo;
use crate::event::one_line;
use crate::linux::release_memory;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// Most bytes that are staged before they are settled.
const STAGED_MAX_BYTES: usize = 8 << 20;
/// First and longest wait after a failed write.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Interval at which the destination is settled while no pages arrive.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Number of records staged per reading of the clock.
const RECORDS_PER_CLOCK: usize = 64;

/// Everything that wakes up the thread.
enum Input {
    Pages(Batch),
    /// SIGHUP, or time to settle.
    Settle,
    /// The reader has ended.
    Ended,
}

/// The state of the writing thread.
pub struct Writer<D> {
    destination: D,
    /// Member of the events that is their id, if repeated events are dropped.
    id_field: Option<String>,
    /// Prints events to stdout.
    echo: Echo,
    pages: Receiver<Batch>,
    /// One message per SIGHUP.
    hangups: Receiver<()>,
    state: Arc<State>,
    shutdown: Shutdown,
    /// The progress after everything staged.
    read: Progress,
    /// Number of records that are not durable yet.
    records: u64,
    /// Number of bytes that were staged since they were settled last.
    bytes: usize,
    /// When much was settled.
    peak: Peak,
    /// Ages of all records that are not durable yet.
    ages: Ages,
    /// When the destination must be settled even if no pages arrive.
    settle_at: Option<Instant>,
}

impl<D> Drop for Writer<D> {
    /// The reader would notice only with its next page.
    fn drop(&mut self) {
        self.state.leave();
    }
}

impl<D: Destination> Writer<D> {
    /// Creates a writer that continues where the destination ends.
    pub fn new(
        destination: D,
        id_field: Option<String>,
        echo: Echo,
        (pages, hangups): (Receiver<Batch>, Receiver<()>),
        state: Arc<State>,
        shutdown: Shutdown,
    ) -> Self {
        let read = destination.covered().clone();
        let (ages, records, bytes, settle_at) = (Ages::default(), 0, 0, None);
        Self {
            destination,
            id_field,
            echo,
            pages,
            hangups,
            state,
            shutdown,
            read,
            records,
            bytes,
            peak: Peak::default(),
            ages,
            settle_at,
        }
    }

    /// Writes until the reader has ended and all its pages are durable.
    ///
    /// # Errors
    /// The destination refuses to continue.
    pub fn run(mut self) -> Result<(), Failure> {
        self.state.cover(&self.destination.covered().offsets);
        let ended = self.serve();
        self.echo.turn(i64::MAX);
        match ended.map(|()| self.destination.close()) {
            Ok(Ok(())) => {
                self.state.cover(&self.destination.covered().offsets);
                self.state.close();
            }
            Ok(Err(error)) => {
                let error = Failure::from(error);
                log::warn!("stopping without a final checkpoint (nothing is lost): {error}");
            }
            Err(DestinationError::Retryable(_)) => {
                log::warn!("stopping with lines not on disk; their records are read again at the next start");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Ends with a retryable error only if the shutdown has begun.
    fn serve(&mut self) -> Result<(), DestinationError> {
        loop {
            match self.next() {
                Input::Pages(batch) => self.write(batch)?,
                Input::Settle => {
                    self.echo.turn(now_millis() / 1000);
                    self.settle(false)?;
                }
                Input::Ended => return self.settle(true),
            }
        }
    }

    fn next(&self) -> Input {
        let left = self.settle_at.map_or(IDLE_TICK, |at| at.saturating_duration_since(Instant::now()));
        select! {
            recv(self.pages) -> batch => batch.map_or(Input::Ended, Input::Pages),
            recv(self.hangups) -> _ => Input::Settle,
            recv(after(left.min(IDLE_TICK))) -> _ => Input::Settle,
        }
    }

    /// Stages `batch` and any further batches that are ready, then settles them in one go.
    fn write(&mut self, batch: Batch) -> Result<(), DestinationError> {
        let mut next = Some(batch);
        while let Some(batch) = next {
            self.enter_terms(&batch)?;
            for (partition, page) in batch {
                self.stage(partition, &page)?;
            }
            let is_full = self.bytes >= STAGED_MAX_BYTES / 2;
            next = if is_full { None } else { self.pages.try_recv().ok() };
        }
        self.settle(false)
    }

    /// Covers what came before if `batch` comes from other leaders. So a start knows in which leader epoch each record
    /// past the progress was read.
    fn enter_terms(&mut self, batch: &Batch) -> Result<(), DestinationError> {
        let mut is_new = false;
        for (partition, page) in batch {
            self.read.offsets.entry(*partition).or_insert(page.begin());
            is_new |= self.read.trails.entry(*partition).or_default().enter(page.term());
        }
        if is_new { self.settle(true) } else { Ok(()) }
    }

    fn stage(&mut self, partition: i32, page: &Page) -> Result<(), DestinationError> {
        let mut now = now_millis();
        for (at, (time, offset, value)) in page.timed_records().enumerate() {
            // A compressed batch is always fetched whole, so a page may contain records before our position.
            if self.read.offsets.get(&partition).is_some_and(|&next| offset < next) {
                continue;
            }
            if at % RECORDS_PER_CLOCK == 0 {
                now = now_millis();
            }
            self.stage_one(partition, page, (time, offset, value), now)?;
            self.read.offsets.insert(partition, offset + 1);
            self.records += 1;
            self.ages.add(time);
            if self.bytes >= STAGED_MAX_BYTES {
                self.cover_trail(partition, page);
                self.settle(false)?;
            }
        }
        let next = self.read.offsets[&partition].max(page.next_offset);
        self.read.offsets.insert(partition, next);
        self.cover_trail(partition, page);
        Ok(())
    }

    /// Adds what `page` holds before the next offset to what was read.
    fn cover_trail(&mut self, partition: i32, page: &Page) {
        self.read.trails.entry(partition).or_default().cover(page, self.read.offsets[&partition]);
    }

    fn stage_one(
        &mut self,
        partition: i32,
        page: &Page,
        (time, offset, value): (Option<i64>, i64, &[u8]),
        now: i64,
    ) -> Result<(), DestinationError> {
        let line = one_line(value, self.id_field.as_deref());
        let event = line.as_ref().map(|line| std::str::from_utf8(&line.text).expect("an event is UTF-8"));
        let id = line.as_ref().ok().and_then(|line| line.id.as_ref());
        let record = Record { partition, offset, value, time, event, id, now };
        let mut staged = self.destination.stage(&record);
        if staged == Staged::Full {
            self.cover_trail(partition, page);
            self.settle(true)?;
            staged = self.destination.stage(&record);
        }
        match staged {
            Staged::Taken(bytes) => self.bytes += bytes,
            Staged::Dropped => return Ok(()),
            Staged::Full => unreachable!("a settled destination has room"),
        }
        match event {
            Ok(text) => self.echo.show(text.as_bytes(), now / 1000),
            Err(error) => {
                self.state.metrics.rejected.with_label_values(&[error.kind.as_str()]).inc();
            }
        }
        Ok(())
    }

    /// Settles the destination, if need be after some retries.
    fn settle(&mut self, now: bool) -> Result<(), DestinationError> {
        let Self { destination, state, shutdown, .. } = self;
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        let left = loop {
            let error = match destination.settle(&self.read, now) {
                Ok(left) => break left,
                Err(error) => error,
            };
            let DestinationError::Retryable(reason) = &error else { return Err(error) };
            state.metrics.write_errors.inc();
            state.problem(D::NAME, &format!("{reason}; retrying, nothing is lost"));
            if shutdown.requested() {
                return Err(error);
            }
            let _ = shutdown.closed().recv_timeout(backoff.next_wait(fastrand::f64()));
        };
        state.solved(D::NAME);
        if self.peak.is_over(take(&mut self.bytes), Instant::now()) {
            release_memory();
        }
        self.settle_at = left.map(|left| Instant::now() + left);
        if left.is_none() {
            state.metrics.records.inc_by(take(&mut self.records));
            state.cover(&destination.covered().offsets);
            self.observe_ages();
        }
        Ok(())
    }

    fn observe_ages(&mut self) {
        // A local histogram avoids one atomic operation per record.
        let ages = self.state.metrics.end_to_end_seconds.local();
        for (seconds, records) in self.ages.covered(now_millis()) {
            (0..records).for_each(|_| ages.observe(seconds));
        }
        ages.flush();
    }
}
