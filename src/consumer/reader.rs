//! Reads the topic in its own thread, sends pages to the writer and commits covered offsets to the group.
//!
//! It is the only thread that talks to Kafka. Each partition has its own position and back-off, so a
//! partition that fails does not stop the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, select_biased};

use crate::broker::{BrokerError, Fetched, Page, Position, Source, Trails};
use crate::config::ReadingConfig;
use crate::consumer::claim::{Claim, ClaimError};
use crate::consumer::failure::Failure;
use crate::consumer::progress::{Offsets, Progress};
use crate::consumer::state::{State, now_seconds, partition_name};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// Shortest time between two commits to the group.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between two commits to the group; without them the broker would expire the offsets.
const RECOMMIT_INTERVAL: Duration = Duration::from_secs(3600);
/// First and longest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Wait before retrying a group that we are not authorized to use.
const DENIED_WAIT: Duration = Duration::from_secs(60);
/// Wait before again asking for the bounds of partitions that did not answer.
pub const UNREAD_WAIT: Duration = Duration::from_secs(1);
/// Wait while no partition can be read.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// The pages of one fetch, each with its partition.
pub type Batch = Vec<(i32, Page)>;

/// The state of the reading thread. Owns the source while it runs.
pub struct Reader<S> {
    pub source: S,
    pub claim: Claim,
    pub topic: String,
    pub topic_id: Option<String>,
    pub config: ReadingConfig,
    pub cursors: BTreeMap<i32, Cursor>,
    /// What was read of each partition, up to its cursor.
    pub trails: Trails,
    pages: Sender<Batch>,
    pub state: Arc<State>,
    shutdown: Shutdown,
    backoff: Backoff,
    pub next_partition_check: Instant,
    /// What the last commit said, if it still stands.
    pub committed: Option<Offsets>,
    /// Why the last commit failed, as it was logged.
    commit_failure: Option<String>,
    pub next_commit: Instant,
    next_recommit: Instant,
}

/// The read position in one partition.
pub struct Cursor {
    pub offset: i64,
    pub backoff: Backoff,
    pub paused_until: Option<Instant>,
}

impl Cursor {
    /// A cursor that reads from `offset`.
    pub fn at(offset: i64) -> Self {
        Self { offset, backoff: Backoff::new(FIRST_WAIT, MAX_WAIT), paused_until: None }
    }
}

impl<S: Source> Reader<S> {
    /// Continues after `progress`. The start could not ask the partitions in `unread`.
    pub fn new(
        (source, claim): (S, Claim),
        (progress, unread): (&Progress, &[i32]),
        config: &ReadingConfig,
        pages: Sender<Batch>,
        state: Arc<State>,
        shutdown: Shutdown,
    ) -> Self {
        let now = Instant::now();
        let cursor = |(&partition, &offset): (&i32, &i64)| {
            // Counts as failed until it is read.
            let paused_until = unread.contains(&partition).then_some(now);
            (partition, Cursor { paused_until, ..Cursor::at(offset) })
        };
        // They may have no cursor yet.
        let max_age = Duration::from_millis(config.metadata_max_age_ms);
        let first_look = if unread.is_empty() { max_age } else { UNREAD_WAIT.min(max_age) };
        Self {
            source,
            claim,
            topic: progress.topic.clone(),
            topic_id: progress.topic_id.clone(),
            next_partition_check: now + first_look,
            config: config.clone(),
            cursors: progress.offsets.iter().map(cursor).collect(),
            trails: progress.trails.clone(),
            pages,
            state,
            shutdown,
            backoff: Backoff::new(FIRST_WAIT, MAX_WAIT),
            committed: None,
            commit_failure: None,
            next_commit: now,
            next_recommit: now + RECOMMIT_INTERVAL,
        }
    }

    /// Reads until shutdown, until a failure that needs a human, or until the writer ends. Returns the
    /// source.
    pub fn run(mut self) -> ((S, Claim), Result<(), Failure>) {
        let mut result = Ok(true);
        while matches!(result, Ok(true)) && !self.shutdown.requested() && !self.state.is_unattended() {
            result = self.step();
        }
        ((self.source, self.claim), result.map(|_| ()))
    }

    /// Does one fetch and any commit or partition lookup that is due. Returns false once the writer is gone.
    fn step(&mut self) -> Result<bool, Failure> {
        let now = Instant::now();
        if now >= self.next_partition_check {
            self.find_new_partitions(now)?;
        }
        self.commit_if_due(now)?;
        let positions: Vec<Position> = self
            .cursors
            .iter()
            .filter(|(_, cursor)| cursor.paused_until.is_none_or(|until| until <= now))
            .map(|(&partition, cursor)| Position { partition, offset: cursor.offset })
            .collect();
        if positions.is_empty() {
            self.wait(IDLE_WAIT);
            return Ok(true);
        }
        match self.source.follow(&positions, &self.trails) {
            Ok(fetched) => {
                self.kafka_answered();
                let batch = self.accept(fetched)?;
                Ok(batch.is_empty() || self.hand_over(batch))
            }
            Err(error) => self.kafka_failed(&error).map(|()| true),
        }
    }

    fn accept(&mut self, fetched: Vec<Fetched>) -> Result<Batch, Failure> {
        let mut batch = Batch::new();
        for Fetched { partition, page } in fetched {
            let Some(cursor) = self.cursors.get_mut(&partition) else { continue };
            match page {
                Ok(page) => {
                    cursor.backoff.reset();
                    if cursor.paused_until.take().is_some() {
                        self.state.solved(&partition_name(partition));
                    }
                    let moved = page.next_offset > cursor.offset;
                    cursor.offset = cursor.offset.max(page.next_offset);
                    let label = partition.to_string();
                    let lag = (page.high_watermark - cursor.offset).max(0);
                    self.state.metrics.lag.with_label_values(&[&label]).set(lag);
                    self.state.metrics.offset.with_label_values(&[&label]).set(cursor.offset);
                    let trail = self.trails.entry(partition).or_default();
                    if moved || page.term() != trail.term() {
                        trail.cover(&page, page.next_offset);
                        batch.push((partition, page));
                    }
                }
                // Throttling is not a failure: broker and partition are fine.
                Err(BrokerError::Throttled(until, _)) => cursor.paused_until = Some(until),
                Err(error) => self.partition_failed(partition, &error)?,
            }
        }
        Ok(batch)
    }

    /// Sends `batch` to the writer and blocks while it is busy. Returns false once the writer is gone.
    fn hand_over(&self, batch: Batch) -> bool {
        select_biased! {
            send(self.pages, batch) -> sent => sent.is_ok(),
            // The batch dropped here was not written; it is read again after the restart.
            recv(self.shutdown.closed()) -> _ => true,
        }
    }

    fn commit_if_due(&mut self, now: Instant) -> Result<(), Failure> {
        if now < self.next_commit {
            return Ok(());
        }
        let covered = self.state.covered();
        if self.committed.as_ref() == Some(&covered) && now < self.next_recommit {
            return Ok(());
        }
        self.next_commit = now + COMMIT_INTERVAL;
        match self.claim.commit(&mut self.source, &covered) {
            Ok(()) => {
                self.committed = Some(covered);
                self.next_recommit = now + RECOMMIT_INTERVAL;
                self.commit_failure = None;
            }
            Err(ClaimError::Lost(reason)) => return Err(Failure::undecided(reason)),
            Err(ClaimError::Kafka(error)) => self.commit_failed(now, &error),
        }
        Ok(())
    }

    fn commit_failed(&mut self, now: Instant, error: &BrokerError) {
        self.count(error);
        self.next_commit = now + if matches!(error, BrokerError::Denied(_)) { DENIED_WAIT } else { MAX_WAIT };
        let reason = error.to_string();
        if self.commit_failure.as_ref() != Some(&reason) {
            log::warn!("committing to group {} failed, will retry: {reason}", self.config.group);
            self.commit_failure = Some(reason);
        }
    }

    fn kafka_answered(&mut self) {
        self.backoff.reset();
        self.state.metrics.kafka_connected.set(1);
        self.state.metrics.kafka_success_time.set(now_seconds());
        self.state.solved("kafka");
    }

    pub fn kafka_failed(&mut self, error: &BrokerError) -> Result<(), Failure> {
        if let BrokerError::Throttled(until, _) = error {
            self.wait(until.saturating_duration_since(Instant::now()).min(MAX_WAIT));
            return Ok(());
        }
        self.count(error);
        self.state.metrics.kafka_connected.set(0);
        if let BrokerError::Unsupported(reason) = error {
            return Err(Failure::bad_config(reason.clone()));
        }
        self.state.problem("kafka", &error.to_string());
        let wait = self.backoff.next_wait(fastrand::f64());
        self.wait(wait);
        Ok(())
    }

    pub fn count(&self, error: &BrokerError) {
        self.state.metrics.kafka_errors.with_label_values(&[error.kind()]).inc();
    }

    fn wait(&self, time: Duration) {
        let _ = self.shutdown.closed().recv_timeout(time);
    }
}
