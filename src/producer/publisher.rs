//! Batches queued events, publishes them to Kafka, and passes settled jobs on to be answered.
//!
//! This is group commit: while one batch is on the wire the next one gathers, so no fixed wait is needed
//! under load. The publisher never writes to a client and never decides what to answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::broker::{BrokerError, Sink};
use crate::echo::Echo;
use crate::producer::batch::Batch;
use crate::producer::handler::{QueuedJob, Ticket};
use crate::producer::health::Health;
use crate::producer::job::Outcome;
use crate::producer::metrics::ProducerMetrics;
use crate::producer::queue::{Input, Usage};
use crate::producer::rate::Rate;
use crate::retry::Backoff;

/// How often an idle publisher checks that Kafka would acknowledge. Only this check notices a broker that is
/// silent, or that would refuse on a healthy connection, so `/readyz` can follow within two seconds only if this
/// interval and [`PROBE_LIMIT`] together stay well below that.
const PROBE_INTERVAL: Duration = Duration::from_millis(750);

/// Longest such check, so that `/readyz` follows a fault within two seconds.
const PROBE_LIMIT: Duration = Duration::from_millis(900);

/// Shortest and longest wait between attempts. The longest is how far `/readyz` may lag behind a recovery.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));

/// How often the connection is checked while waiting for a quota.
const QUOTA_LOOK: Duration = Duration::from_millis(250);

/// Shortest time between two log lines about events that were not acknowledged; the metrics count each
/// failure.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// Limits of one batch and of one broker call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events per call.
    pub batch_events: usize,
    /// Most bytes per call.
    pub batch_bytes: usize,
    /// How long to wait for more events before a batch is sent.
    pub linger: Duration,
    /// Longest broker call.
    pub call: Duration,
    /// Longest wait until a broker is connected.
    pub connect: Duration,
    /// A request with less time left than this is answered instead of sent. Otherwise, one that is close to
    /// its deadline would cut short the call for all others, and a slow broker would be sent the same events
    /// again and again.
    pub least_call: Duration,
    /// Number of parts into which a settled batch is divided, so that as many threads can answer it.
    pub reply_threads: usize,
}

/// State of the publisher thread.
pub struct Publisher {
    /// Where batches go.
    pub sink: Box<dyn Sink>,
    /// Where jobs come from.
    pub inputs: Receiver<Input<QueuedJob>>,
    /// Where settled jobs go. Unbounded, because the queue's limits cover them until they are answered.
    pub settled: Sender<Vec<QueuedJob>>,
    /// Records every call.
    pub health: Arc<Health>,
    /// Records every batch.
    pub metrics: Arc<ProducerMetrics>,
    /// Records how fast events leave.
    pub usage: Arc<Usage>,
    /// Limits on batches and calls.
    pub limits: Limits,
    /// Prints the original's lines.
    pub echo: Echo,
    /// The jobs on their way to Kafka.
    pub batch: Batch<Ticket>,
    /// How fast events are acknowledged.
    pub rate: Rate,
    /// When the log last reported events that were not acknowledged.
    pub told: Option<Instant>,
}

/// What woke the loop.
enum Wake {
    Input(Input<QueuedJob>),
    /// Nothing arrived in time.
    Tick,
    /// All senders are gone.
    Disconnected,
}

impl Publisher {
    /// Runs until the queue is closed and everything is settled. However it ends, no job is left behind.
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
                // Others are waiting behind them; a probe in between would only delay those too.
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

    /// Collects jobs: waits for the first one (at most one tick), then takes all that are ready, up to one
    /// batch. After a failure it collects until the next attempt is due. Returns true if no more jobs follow.
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
            // Also when the batch is full or no more jobs follow; otherwise each failure would be retried at
            // once.
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        closing
    }

    /// When the first request of the batch will have too little time left for another attempt.
    fn next_due(&self) -> Instant {
        let earliest = self.batch.earliest_deadline().unwrap_or_else(Instant::now);
        earliest.checked_sub(self.limits.least_call).unwrap_or(earliest)
    }

    /// Answers the requests that have too little time left for another attempt; `failure` is why the last one
    /// failed. Returns true if there were any.
    fn answer_the_due(&mut self, failure: Option<&str>) -> bool {
        let now = Instant::now();
        if self.batch.is_empty() || now < self.next_due() {
            return false;
        }
        let reason = failure.unwrap_or("Kafka is too slow for the waiting events; not sent in time");
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

    /// Sends the batch once and passes on the jobs that are settled. Returns the failure, if there is one
    /// that may be temporary.
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

    /// Records a call that left some of the `sent` events without an acknowledgement. Returns true if new
    /// events need not wait for them: without keys, events that one partition does not accept go to another.
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

    /// Records that Kafka is healthy but accepts nothing more before `until`.
    fn note_quota(&self, until: Instant, text: &str) {
        if self.health.throttled_for(Instant::now()).is_zero() {
            log::warn!("waiting: {text}");
            self.metrics.kafka.failed("throttled");
        }
        self.health.call_succeeded();
        self.health.throttled(until);
    }

    /// The limit is higher while not connected: a distant broker with TLS and a password needs a few more
    /// round trips.
    fn probe_limit(&self, backoff: &Backoff) -> Duration {
        let is_connected = self.health.was_up() && backoff.failures() == 0;
        if is_connected { PROBE_LIMIT } else { PROBE_LIMIT.max(self.limits.connect) }
    }

    fn probe(&mut self, backoff: &mut Backoff) -> Result<Duration, BrokerError> {
        self.health.call_begins(Instant::now());
        match self.sink.probe(self.probe_limit(backoff)) {
            // Kafka answered a moment ago and cannot be asked now.
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

    /// True for failures that no retry can fix: a Kafka that we cannot talk to, or one that has never
    /// accepted us.
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
