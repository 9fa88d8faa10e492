//! Calls Kafka for the publisher, and records in health, metrics and log what each call says about Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::{BrokerError, Receipt, Record, Sink};
use crate::producer::health::Health;
use crate::producer::metrics::ProducerMetrics;
use crate::retry::Backoff;

/// Longest probe, so that `/readyz` follows a fault within two seconds.
const PROBE_LIMIT: Duration = Duration::from_millis(900);

/// Shortest and longest wait between attempts. The longest is how far `/readyz` may lag behind a recovery.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));

/// Shortest time between two log lines about events that were not acknowledged; the metrics count each
/// failure.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Kafka as the publisher sees it.
pub struct Kafka {
    sink: Box<dyn Sink>,
    pub health: Arc<Health>,
    pub metrics: Arc<ProducerMetrics>,
    /// Longest wait until a broker is connected.
    connect_limit: Duration,
    /// Grows with each failure in a row.
    pub backoff: Backoff,
    /// When the log last reported events that were not acknowledged.
    last_report: Option<Instant>,
}

impl Kafka {
    /// Starts without a call.
    pub fn new(
        sink: Box<dyn Sink>,
        health: Arc<Health>,
        metrics: Arc<ProducerMetrics>,
        connect_limit: Duration,
    ) -> Self {
        let backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        Self { sink, health, metrics, connect_limit, backoff, last_report: None }
    }

    /// True while calls fail.
    pub fn is_failing(&self) -> bool {
        self.backoff.failures() > 0
    }

    /// Sends `records` once, and returns the result of each; see [`Sink::send`].
    pub fn send(&mut self, records: &[Record<'_>], limit: Duration) -> Vec<Result<Receipt, BrokerError>> {
        let began = Instant::now();
        self.health.call_begins(began);
        let results = self.sink.send(records, limit);
        if results.iter().any(Result::is_ok) {
            let bytes = records.iter().map(|record| record.value.len()).sum();
            self.metrics.kafka.produced(began.elapsed(), records.len(), bytes, unix_now());
        }
        results
    }

    /// Records what [`Kafka::send`] says about Kafka: `failure` left some of the `sent` events without an
    /// acknowledgement.
    ///
    /// # Errors
    /// No retry can fix the failure.
    pub fn note(
        &mut self,
        failure: Option<&BrokerError>,
        sent: usize,
        acknowledged: usize,
        has_keys: bool,
    ) -> Result<(), BrokerError> {
        match failure {
            None => self.health.call_succeeded(),
            Some(BrokerError::Throttled(until, text)) => self.note_quota(*until, text),
            Some(error) => {
                self.note_failure(error, sent, acknowledged, has_keys);
                if self.is_final(error) {
                    return Err(error.clone());
                }
            }
        }
        Ok(())
    }

    /// Without keys, new events need not wait for those that one partition does not accept: they go to another.
    fn note_failure(&mut self, error: &BrokerError, sent: usize, acknowledged: usize, has_keys: bool) {
        self.metrics.kafka.failed(error.kind());
        let now = Instant::now();
        if self.last_report.is_none_or(|last| now - last >= REPORT_INTERVAL) {
            log::warn!("{} of {sent} events not acknowledged: {error}", sent - acknowledged);
            self.last_report = Some(now);
        }
        let others_serve = acknowledged > 0 || matches!(error, BrokerError::Waiting(_));
        if others_serve && !has_keys {
            self.health.call_succeeded();
            self.backoff.reset();
        } else {
            self.health.call_failed(&error.to_string());
        }
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

    /// Checks that Kafka would acknowledge. Returns how long to wait before the next call.
    ///
    /// # Errors
    /// No retry can fix the failure.
    pub fn probe(&mut self) -> Result<Duration, BrokerError> {
        self.health.call_begins(Instant::now());
        match self.sink.probe(self.probe_limit()) {
            // Kafka answered a moment ago and cannot be asked now.
            Ok(()) | Err(BrokerError::Throttled(..)) => {
                if self.is_failing() {
                    log::info!("Kafka acknowledges again");
                }
                self.backoff.reset();
                self.health.call_succeeded();
                self.metrics.kafka.last_success.set(unix_now().as_secs_f64());
                Ok(Duration::ZERO)
            }
            Err(error) if self.is_final(&error) => Err(error),
            Err(error) => {
                self.health.call_failed(&error.to_string());
                self.metrics.kafka.failed(error.kind());
                if !self.is_failing() {
                    log::warn!("not ready: {error}; trying again");
                }
                Ok(self.backoff.next_wait(fastrand::f64()))
            }
        }
    }

    /// The limit is higher while not connected: a distant broker with TLS and a password needs a few more
    /// round trips.
    fn probe_limit(&self) -> Duration {
        let is_connected = self.health.was_up() && !self.is_failing();
        if is_connected { PROBE_LIMIT } else { PROBE_LIMIT.max(self.connect_limit) }
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
}

/// The time since 1970.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
