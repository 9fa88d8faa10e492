//! The batching thread: takes all that is ready, sends it, hands out what is settled.
//!
//! Group commit: while one batch is on the wire the next one gathers, so no fixed wait is needed under load. It
//! never writes to a client and never decides what one is told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::broker::{BrokerError, Sink};
use crate::echo::Echo;
use crate::retry::Backoff;

use super::batch::Batch;
use super::handler::{QueuedJob, Ticket};
use super::health::Health;
use super::job::Outcome;
use super::metrics::ProducerMetrics;
use super::queue::{Input, Usage};
use super::rate::Rate;

/// How often an idle publisher proves that Kafka would acknowledge.
const PROBE_INTERVAL: Duration = Duration::from_millis(750);

/// Longest wait for such a proof: `/readyz` follows a fault within two seconds.
const PROBE_LIMIT: Duration = Duration::from_millis(900);

/// Waits between tries: from a blink up to what `/readyz` may lag behind a recovery.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));

/// How often it is looked whether the connection still stands while a quota is waited for.
const QUOTA_LOOK: Duration = Duration::from_millis(250);

/// Least time between two lines of the log about events that were not acknowledged; the figures count each failure.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// Limits of one batch and of one broker call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events in one call.
    pub batch_events: usize,
    /// Most bytes in one call.
    pub batch_bytes: usize,
    /// Wait for more events before a batch is sent.
    pub linger: Duration,
    /// Longest broker call.
    pub call: Duration,
    /// Longest wait until a broker is connected.
    pub connect: Duration,
    /// A request with less time left than this is answered instead of sent. Without it, one that is nearly due
    /// would cut short the call of all others, and a slow broker would be sent the same events again and again.
    pub least_call: Duration,
    /// Parts into which a settled batch is cut, so that as many threads can answer it.
    pub reply_threads: usize,
}

/// State of the batching thread.
pub struct Publisher {
    /// Where batches go.
    pub sink: Box<dyn Sink>,
    /// Where jobs come from.
    pub inputs: Receiver<Input<QueuedJob>>,
    /// Where settled jobs go. Unbounded, because the queue's bounds cover them until they are answered.
    pub settled: Sender<Vec<QueuedJob>>,
    /// Told of every call.
    pub health: Arc<Health>,
    /// Told of every batch.
    pub metrics: Arc<ProducerMetrics>,
    /// Told how fast events leave.
    pub usage: Arc<Usage>,
    /// Limits.
    pub limits: Limits,
    /// The original's lines.
    pub echo: Echo,
    /// What is on its way.
    pub batch: Batch<Ticket>,
    /// How fast events are acknowledged.
    pub rate: Rate,
    /// When the log last told of events that were not.
    pub told: Option<Instant>,
}

/// What wakes the loop.
enum Wake {
    Input(Input<QueuedJob>),
    /// Nothing came in time.
    Tick,
    /// All senders are gone.
    Disconnected,
}

impl Publisher {
    /// Runs until the queue is closed and everything is settled. Whatever ends it, no job is left behind.
    ///
    /// # Errors
    /// The broker cannot serve this client at all, or the thread panicked.
    pub fn run(mut self) -> Result<(), BrokerError> {
        let end = catch_unwind(AssertUnwindSafe(|| self.publish_all())).unwrap_or_else(|_| {
            Err(BrokerError::Retryable("the publisher panicked; see the log above".into()))
        });
        if let Err(error) = &end {
            self.health.gave_up(&error.to_string());
        }
        let left = self.batch.give_up(&"the publisher ended".into());
        self.hand_out(left);
        end
    }

    fn publish_all(&mut self) -> Result<(), BrokerError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut closing = false;
        self.probe(&mut backoff)?;
        let mut not_before = Instant::now();
        let (mut failure, mut throttled) = (None, false);
        loop {
            throttled &= !self.batch.is_empty();
            closing |= self.gather(not_before, throttled || backoff.failures() > 0);
            if self.answer_the_due(failure.as_deref()) && self.batch.is_empty() && !closing {
                // Others wait behind them; a probe in between would only make those late too.
                continue;
            }
            if !self.batch.is_empty() {
                if (throttled || backoff.failures() > 0) && Instant::now() < not_before {
                    continue;
                }
                let error = self.attempt(&mut backoff)?;
                throttled = false;
                match error {
                    None => backoff.reset(),
                    Some(BrokerError::Throttled(until, _)) => {
                        backoff.reset();
                        (not_before, throttled) = (until.min(Instant::now() + QUOTA_LOOK), true);
                    }
                    Some(_) => not_before = Instant::now() + backoff.next_wait(fastrand::f64()),
                }
                failure = error.map(|error| error.to_string());
            } else if closing {
                return Ok(());
            } else if self.probe_is_due(not_before, &backoff) {
                failure = None;
                not_before = Instant::now() + self.probe(&mut backoff)?;
            }
        }
    }

    fn probe_is_due(&self, not_before: Instant, backoff: &Backoff) -> bool {
        backoff.failures() == 0 || Instant::now() >= not_before
    }

    /// Takes jobs: waits for the first one (at most a tick), then all that are ready, up to one batch. After a
    /// failure it gathers until the next try is due. True when nothing follows.
    fn gather(&mut self, not_before: Instant, failing: bool) -> bool {
        let now = Instant::now();
        let mut closing = false;
        if self.batch.is_empty() {
            let until = if failing { not_before } else { now + PROBE_INTERVAL };
            closing = self.accept_one(until);
            if self.batch.is_empty() {
                return closing;
            }
        }
        let linger = if self.limits.linger.is_zero() { now } else { Instant::now() + self.limits.linger };
        let until = if failing { not_before.max(linger).min(self.next_due()) } else { linger };
        while !closing && self.has_room() {
            match self.wake(until) {
                Wake::Input(Input::Job(job)) => self.batch.push(job),
                Wake::Input(Input::Close) | Wake::Disconnected => closing = true,
                Wake::Tick => break,
            }
        }
        if failing {
            // Also when the batch is full or nothing follows, or each failure would be tried again at once.
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        closing
    }

    /// When the first of the batch has too little time left for another try.
    fn next_due(&self) -> Instant {
        let earliest = self.batch.earliest_deadline().unwrap_or_else(Instant::now);
        earliest.checked_sub(self.limits.least_call).unwrap_or(earliest)
    }

    /// Answers the requests that have too little time left for another try; `failure` is the last one's. True
    /// if there were any.
    fn answer_the_due(&mut self, failure: Option<&str>) -> bool {
        let now = Instant::now();
        if self.batch.is_empty() || now < self.next_due() {
            return false;
        }
        let reason = failure.unwrap_or("Kafka is too slow for what is waiting; it was not sent in time");
        let settled = self.batch.take_settled(now + self.limits.least_call, &reason.into());
        self.hand_out(settled);
        true
    }

    fn accept_one(&mut self, until: Instant) -> bool {
        match self.wake(until) {
            Wake::Input(Input::Job(job)) => {
                self.metrics.queue.wait.observe(job.ticket.complete().elapsed().as_secs_f64());
                self.batch.push(job);
                false
            }
            Wake::Input(Input::Close) | Wake::Disconnected => true,
            Wake::Tick => {
                self.echo.turn(unix_now().as_secs() as i64);
                false
            }
        }
    }

    fn wake(&self, until: Instant) -> Wake {
        match self.inputs.recv_deadline(until) {
            Ok(input) => Wake::Input(input),
            Err(RecvTimeoutError::Timeout) => Wake::Tick,
            Err(RecvTimeoutError::Disconnected) => Wake::Disconnected,
        }
    }

    fn has_room(&self) -> bool {
        self.batch.open_events() < self.limits.batch_events
            && self.batch.open_bytes() < self.limits.batch_bytes
    }

    /// Sends the batch once and hands out what is settled. Returns the failure that may pass, if any.
    fn attempt(&mut self, backoff: &mut Backoff) -> Result<Option<BrokerError>, BrokerError> {
        let began = Instant::now();
        let time_left = self
            .batch
            .earliest_deadline()
            .map_or(self.limits.call, |deadline| deadline.saturating_duration_since(began));
        let (sent, records) = self.batch.records(self.limits.batch_events, self.limits.batch_bytes);
        let bytes = records.iter().map(|record| record.value.len()).sum();
        self.health.call_begins(began);
        let results = self.sink.send(&records, self.limits.call.min(time_left));
        let acknowledged = results.iter().filter(|result| result.is_ok()).count();
        let has_keys = acknowledged < sent.len() && records.iter().any(|record| record.key.is_some());
        let failure = self.batch.note(&sent, results);
        match &failure {
            None => self.health.call_succeeded(),
            Some(BrokerError::Throttled(until, text)) => self.note_quota(*until, text),
            Some(error) => {
                if self.note_failure(error, sent.len(), acknowledged, has_keys) {
                    backoff.reset();
                }
            }
        }
        let now = Instant::now();
        if acknowledged > 0 {
            self.metrics.kafka.produced(now - began, sent.len(), bytes, unix_now());
            self.usage.set_rate(self.rate.add(acknowledged as u64, now));
        }
        let reason =
            failure.as_ref().map_or_else(|| "no acknowledgement in time".into(), |e| e.to_string().into());
        let settled = self.batch.take_settled(now, &reason);
        self.hand_out(settled);
        match failure {
            Some(error) if self.is_final(&error) => Err(error),
            failure => Ok(failure),
        }
    }

    /// Notes a call that left some of the `sent` events without an acknowledgement. True if new events need not wait
    /// for them: without keys, what one partition does not take goes to another.
    fn note_failure(
        &mut self,
        error: &BrokerError,
        sent: usize,
        acknowledged: usize,
        has_keys: bool,
    ) -> bool {
        self.metrics.kafka.failed(error.kind());
        let now = Instant::now();
        if self.told.is_none_or(|told| now - told >= TELL_INTERVAL) {
            log::warn!("{} of {sent} events not acknowledged: {error}", sent - acknowledged);
            self.told = Some(now);
        }
        let others_serve = acknowledged > 0 || matches!(error, BrokerError::Waiting(_));
        if others_serve && !has_keys {
            self.health.call_succeeded();
            return true;
        }
        self.health.call_failed(&error.to_string());
        false
    }

    /// Kafka is well, and takes nothing more until then.
    fn note_quota(&self, until: Instant, text: &str) {
        if self.health.throttled_for(Instant::now()).is_zero() {
            log::warn!("waiting: {text}");
            self.metrics.kafka.failed("throttled");
        }
        self.health.call_succeeded();
        self.health.throttled(until);
    }

    /// Where nothing is connected, a far broker with TLS and a password takes a few round trips more.
    fn probe_limit(&self, backoff: &Backoff) -> Duration {
        let is_connected = self.health.was_up() && backoff.failures() == 0;
        if is_connected { PROBE_LIMIT } else { PROBE_LIMIT.max(self.limits.connect) }
    }

    fn probe(&mut self, backoff: &mut Backoff) -> Result<Duration, BrokerError> {
        self.health.call_begins(Instant::now());
        match self.sink.probe(self.probe_limit(backoff)) {
            // It answered a moment ago, and cannot be asked now.
            Ok(()) | Err(BrokerError::Throttled(..)) => {
                if backoff.failures() > 0 {
                    log::info!("Kafka acknowledges again");
                }
                backoff.reset();
                self.health.call_succeeded();
                self.metrics.kafka.last_success.set(unix_now().as_secs_f64());
                Ok(Duration::ZERO)
            }
            Err(error) if self.is_final(&error) => Err(error),
            Err(error) => {
                self.health.call_failed(&error.to_string());
                self.metrics.kafka.failed(error.kind());
                if backoff.failures() == 0 {
                    log::warn!("not ready: {error}; trying again");
                }
                Ok(backoff.next_wait(fastrand::f64()))
            }
        }
    }

    /// True for what no retry mends: a Kafka that we cannot speak to, or one that never let us in.
    fn is_final(&self, error: &BrokerError) -> bool {
        match error {
            BrokerError::Unsupported(_) => true,
            BrokerError::Refused(_) => !self.health.was_up(),
            _ => false,
        }
    }

    fn hand_out(&mut self, mut settled: Vec<QueuedJob>) {
        if settled.is_empty() {
            return;
        }
        let second = unix_now().as_secs() as i64;
        for job in &settled {
            for (index, outcome) in job.outcomes.iter().enumerate() {
                if matches!(outcome, Outcome::Acknowledged(_)) {
                    self.echo.show(job.lines.line(index), second);
                }
            }
        }
        let part = settled.len().div_ceil(self.limits.reply_threads);
        while !settled.is_empty() {
            let rest = settled.split_off(part.min(settled.len()));
            // The repliers end only after this sender is dropped.
            let _ = self.settled.send(std::mem::replace(&mut settled, rest));
        }
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
