//! Batches queued events, publishes them to Kafka, and passes settled jobs on to be answered.
//!
//! This is group commit: while one batch is on the wire the next one gathers, so no fixed wait is needed
//! under load. The publisher never waits for a client and never decides what to answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::broker::BrokerError;
use crate::echo::Echo;
use crate::producer::batch::Batch;
use crate::producer::grouping::Grouping;
use crate::producer::job::Outcome;
use crate::producer::kafka::{Kafka, unix_now};
use crate::producer::queue::{Input, Usage};
use crate::producer::rate::Rate;
use crate::producer::ticket::{QueuedJob, Ticket};

/// How often an idle publisher checks that Kafka would acknowledge. Only this check notices a broker that is
/// silent, or that would refuse on a healthy connection, so `/readyz` can follow within two seconds only if this
/// interval and the 900 ms that a probe may take together stay well below that.
const PROBE_INTERVAL: Duration = Duration::from_millis(750);

/// How often the connection is checked while waiting for a quota.
const QUOTA_CHECK: Duration = Duration::from_millis(250);

/// Most events whose jobs the publisher answers itself: for so few, waking another thread takes longer.
const MOST_ANSWERED_HERE: usize = 16;

/// Answers settled jobs; must not block.
pub type AnswerJobs = Box<dyn Fn(Vec<QueuedJob>) + Send>;

/// Limits of one batch and of one broker call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events per call.
    pub batch_events: usize,
    /// Most bytes per call.
    pub batch_bytes: usize,
    /// How long to wait for more events before any batch is sent.
    pub linger: Duration,
    /// Longest broker call.
    pub call: Duration,
    /// A request with less time left than this is answered instead of sent. Otherwise, one that is close to
    /// its deadline would cut short the call for all others, and a slow broker would be sent the same events
    /// again and again.
    pub least_call: Duration,
    /// Number of parts into which a settled batch is divided, so that as many threads can answer it.
    pub reply_threads: usize,
}

/// State of the publisher thread.
pub struct Publisher {
    pub kafka: Kafka,
    /// Where jobs come from.
    pub inputs: Receiver<Input<QueuedJob>>,
    /// Where settled jobs go. Unbounded, because the queue's limits cover them until they are answered.
    pub settled: Sender<Vec<QueuedJob>>,
    /// Answers settled jobs on this thread; `None` if an answer may block on a client.
    pub answer: Option<AnswerJobs>,
    pub usage: Arc<Usage>,
    pub limits: Limits,
    /// Prints the original's lines.
    pub echo: Echo,
    pub batch: Batch<Ticket>,
    /// How fast events are acknowledged.
    pub rate: Rate,
    /// How long a batch waits for more events.
    pub grouping: Grouping,
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
            self.kafka.health.gave_up(&error.to_string());
        }
        let left = self.batch.give_up(&"the publisher ended".into());
        self.pass_on(left);
        end
    }

    fn publish_all(&mut self) -> Result<(), BrokerError> {
        let mut closing = false;
        self.kafka.probe()?;
        let mut not_before = Instant::now();
        let (mut failure, mut throttled) = (None, false);
        loop {
            throttled &= !self.batch.is_empty();
            closing |= self.gather(not_before, throttled || self.kafka.is_failing());
            if self.answer_expiring(failure.as_deref()) && self.batch.is_empty() && !closing {
                // Others are waiting behind them; a probe in between would only delay those too.
                continue;
            }
            if !self.batch.is_empty() {
                if (throttled || self.kafka.is_failing()) && Instant::now() < not_before {
                    continue;
                }
                let error = self.attempt()?;
                throttled = false;
                match error {
                    None => self.kafka.backoff.reset(),
                    Some(BrokerError::Throttled(until, _)) => {
                        self.kafka.backoff.reset();
                        (not_before, throttled) = (until.min(Instant::now() + QUOTA_CHECK), true);
                    }
                    Some(_) => not_before = Instant::now() + self.kafka.backoff.next_wait(fastrand::f64()),
                }
                failure = error.map(|error| error.to_string());
            } else if closing {
                return Ok(());
            } else if !self.kafka.is_failing() || Instant::now() >= not_before {
                failure = None;
                not_before = Instant::now() + self.kafka.probe()?;
            }
        }
    }

    /// Collects jobs: waits for the first one (at most one tick), then takes all that are ready, up to one
    /// batch. After a failure it collects until the next attempt is due. Returns true if no more jobs follow.
    fn gather(&mut self, not_before: Instant, failing: bool) -> bool {
        let mut closing = false;
        if self.batch.is_empty() {
            let until = if failing { not_before } else { Instant::now() + PROBE_INTERVAL };
            closing = self.accept_one(until);
            if self.batch.is_empty() {
                return closing;
            }
        }
        let now = Instant::now();
        let linger = now + self.limits.linger;
        let grouped = self.grouping.until(now).max(linger);
        let failed = failing.then(|| not_before.max(linger).min(self.next_expiry()));
        while !closing && self.has_room() {
            let is_enough = self.grouping.is_enough(self.batch.open_events());
            let until = failed.unwrap_or(if is_enough { linger } else { grouped });
            match self.wake(until) {
                Wake::Input(Input::Job(job)) => self.batch.push(job),
                Wake::Input(Input::Close) | Wake::Disconnected => closing = true,
                Wake::Tick => break,
            }
        }
        if let Some(until) = failed {
            // Also when the batch is full or no more jobs follow; otherwise each failure would be retried at
            // once.
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        closing
    }

    /// When the first request of the batch will have too little time left for another attempt.
    fn next_expiry(&self) -> Instant {
        let earliest = self.batch.earliest_deadline().unwrap_or_else(Instant::now);
        earliest.checked_sub(self.limits.least_call).unwrap_or(earliest)
    }

    /// Answers the requests that have too little time left for another attempt; `failure` is why the last one
    /// failed. Returns true if there were any.
    fn answer_expiring(&mut self, failure: Option<&str>) -> bool {
        let now = Instant::now();
        if self.batch.is_empty() || now < self.next_expiry() {
            return false;
        }
        let reason = failure.unwrap_or("Kafka is too slow for the waiting events; not sent in time");
        let settled = self.batch.take_settled(now + self.limits.least_call, &reason.into());
        self.pass_on(settled);
        true
    }

    fn accept_one(&mut self, until: Instant) -> bool {
        match self.wake(until) {
            Wake::Input(Input::Job(job)) => {
                self.kafka.metrics.queue.wait.observe(job.ticket.request.complete.elapsed().as_secs_f64());
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
    fn attempt(&mut self) -> Result<Option<BrokerError>, BrokerError> {
        let began = Instant::now();
        let time_left = self
            .batch
            .earliest_deadline()
            .map_or(self.limits.call, |deadline| deadline.saturating_duration_since(began));
        let (sent, records) = self.batch.records(self.limits.batch_events, self.limits.batch_bytes);
        let results = self.kafka.send(&records, self.limits.call.min(time_left));
        let acknowledged = results.iter().filter(|result| result.is_ok()).count();
        let has_keys = acknowledged < sent.len() && records.iter().any(|record| record.key.is_some());
        let failure = self.batch.note(&sent, results);
        let noted = self.kafka.note(failure.as_ref(), sent.len(), acknowledged, has_keys);
        let now = Instant::now();
        if acknowledged > 0 {
            self.grouping.called(began, now, sent.len(), self.inputs.len());
            self.usage.set_rate(self.rate.add(acknowledged as u64, now));
        }
        let reason =
            failure.as_ref().map_or_else(|| "no acknowledgement in time".into(), |e| e.to_string().into());
        let settled = self.batch.take_settled(now, &reason);
        self.pass_on(settled);
        noted.map(|()| failure)
    }

    fn pass_on(&mut self, mut settled: Vec<QueuedJob>) {
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
        let events: usize = settled.iter().map(|job| job.outcomes.len()).sum();
        if let Some(answer) = self.answer.as_ref().filter(|_| events <= MOST_ANSWERED_HERE) {
            return answer(settled);
        }
        let part = settled.len().div_ceil(self.limits.reply_threads);
        while !settled.is_empty() {
            let rest = settled.split_off(part.min(settled.len()));
            // The repliers end only after this sender is dropped.
            let _ = self.settled.send(std::mem::replace(&mut settled, rest));
        }
    }
}
