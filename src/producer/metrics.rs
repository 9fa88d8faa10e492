//! The figures of the producer. Counters are atomics; histograms are filled once a batch by their one owner.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::event::ErrorKind;
use crate::metrics::{Metrics, SECONDS_BUCKETS};

use super::routes::Route;

/// Every status that the producer answers.
const STATUSES: [u16; 11] = [200, 207, 400, 404, 405, 408, 411, 413, 415, 500, 503];

/// Reasons besides those of `event` for which a received event is not accepted.
const REFUSALS: [&str; 4] = ["queue_full", "unavailable", "draining", "closed"];

/// What makes an accepted event fail.
const FAILURES: [&str; 3] = ["timeout", "too_large", "stopped"];

/// Limits of the HTTP side, by the setting or rule that refused.
const LIMITS: [&str; 8] = [
    "max_connections",
    "idle_timeout",
    "request_timeout",
    "max_body_bytes",
    "max_pipelined",
    "body_threads",
    "max_request_events",
    "framing",
];

/// All figures of the producer.
pub struct ProducerMetrics {
    /// Registry and text.
    pub common: Metrics,
    requests: Vec<[IntCounter; STATUSES.len()]>,
    /// From the moment a request was taken to its answer.
    pub request_seconds: Histogram,
    /// Events in requests whose body was read.
    pub received: IntCounter,
    /// Events that went into the queue.
    pub accepted: IntCounter,
    rejected: IntCounterVec,
    /// Events that Kafka acknowledged.
    pub acknowledged: IntCounter,
    failed: IntCounterVec,
    refused: IntCounterVec,
    /// Events between acceptance and acknowledgement.
    pub queue_events: IntGauge,
    /// Bytes held for them and for bodies being read.
    pub queue_bytes: IntGauge,
    /// Most of the former.
    pub queue_capacity: IntGauge,
    /// From acceptance to the first try to send.
    pub queue_wait: Histogram,
    /// One broker call.
    pub produce_seconds: Histogram,
    /// Events in one broker call.
    pub batch_events: Histogram,
    /// Bytes in one broker call.
    pub batch_bytes: Histogram,
    /// Failed broker calls and records, by kind.
    pub kafka_errors: IntCounterVec,
    /// 1 while Kafka acknowledges.
    pub kafka_connected: IntGauge,
    /// When Kafka last acknowledged, since the epoch.
    pub kafka_last_success: Gauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// Requests that wait behind another of their connection.
    pub parked: IntGauge,
    /// Times the accept loop was built anew.
    pub accept_restarts: IntCounter,
    /// Panics that ended a thread or a request, and nothing else.
    pub panics: IntCounter,
    /// Connection threads that tiny_http lost for good.
    pub leaked: IntGauge,
}

impl Default for ProducerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ProducerMetrics {
    /// All figures at zero, every label value present.
    pub fn new() -> Self {
        let m = Metrics::new();
        let with_labels = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = m.counters(name, help, &[label]);
            for value in values {
                counters.with_label_values(&[value]);
            }
            counters
        };
        let kinds = ErrorKind::ALL.map(ErrorKind::as_str);
        let decades = |first: f64, factor: f64, count| {
            prometheus::exponential_buckets(first, factor, count).expect("legal buckets")
        };
        Self {
            requests: requests(&m),
            request_seconds: m.histogram(
                "pipeline_http_request_duration_seconds",
                "From taking a request to its answer",
                &SECONDS_BUCKETS,
            ),
            received: m.counter("pipeline_events_received_total", "Events in bodies that were read"),
            accepted: m.counter("pipeline_events_accepted_total", "Events that went into the queue"),
            rejected: with_labels(
                "pipeline_events_rejected_total",
                "Events not accepted, by reason",
                "reason",
                &[&kinds[..], &REFUSALS].concat(),
            ),
            acknowledged: m.counter("pipeline_events_acknowledged_total", "Events acknowledged by Kafka"),
            failed: with_labels(
                "pipeline_events_failed_total",
                "Accepted events not acknowledged, by cause",
                "cause",
                &FAILURES,
            ),
            refused: with_labels(
                "pipeline_http_refused_total",
                "Requests and connections refused, by limit",
                "limit",
                &LIMITS,
            ),
            queue_events: m
                .int_gauge("pipeline_queue_events", "Events between acceptance and acknowledgement"),
            queue_bytes: m
                .int_gauge("pipeline_queue_bytes", "Bytes held between acceptance and acknowledgement"),
            queue_capacity: m.int_gauge(
                "pipeline_queue_capacity_events",
                "Most events between acceptance and acknowledgement",
            ),
            queue_wait: m.histogram(
                "pipeline_queue_wait_seconds",
                "From acceptance to the first try to send",
                &SECONDS_BUCKETS,
            ),
            produce_seconds: m.histogram(
                "pipeline_kafka_produce_duration_seconds",
                "One produce call",
                &SECONDS_BUCKETS,
            ),
            batch_events: m.histogram(
                "pipeline_kafka_batch_events",
                "Events in one produce call",
                &decades(1.0, 4.0, 9),
            ),
            batch_bytes: m.histogram(
                "pipeline_kafka_batch_bytes",
                "Bytes in one produce call",
                &decades(64.0, 4.0, 9),
            ),
            kafka_errors: with_labels(
                "pipeline_kafka_errors_total",
                "Failed produce calls, by kind",
                "kind",
                &["retryable", "unsupported"],
            ),
            kafka_connected: m.int_gauge("pipeline_kafka_connected", "1 while Kafka acknowledges"),
            kafka_last_success: m.gauge(
                "pipeline_kafka_last_success_timestamp_seconds",
                "Last acknowledgement or probe, since the epoch",
            ),
            connections: m.int_gauge("pipeline_http_connections", "Open client connections"),
            parked: m.int_gauge(
                "pipeline_http_parked_requests",
                "Pipelined requests that wait for the one before them",
            ),
            accept_restarts: m
                .counter("pipeline_http_accept_restarts_total", "Times the accept loop was rebuilt"),
            panics: m.counter("pipeline_thread_panics_total", "Panics caught in threads of this process"),
            leaked: m.int_gauge(
                "pipeline_http_leaked_connections",
                "Connections whose thread tiny_http lost for good",
            ),
            common: m,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, route: Route, status: u16) {
        let column = STATUSES.iter().position(|&known| known == status).unwrap_or(STATUSES.len() - 2);
        self.requests[route as usize][column].inc();
    }

    /// Counts events that were received and not accepted.
    pub fn reject(&self, reason: &str, events: u64) {
        self.rejected.with_label_values(&[reason]).inc_by(events);
    }

    /// Counts accepted events that failed.
    pub fn fail(&self, cause: &str, events: u64) {
        self.failed.with_label_values(&[cause]).inc_by(events);
    }

    /// Accepted events so far that were not acknowledged, though a retry could have helped.
    pub fn unacknowledged(&self) -> u64 {
        ["timeout", "stopped"].iter().map(|cause| self.failed.with_label_values(&[cause]).get()).sum()
    }

    /// Counts what a limit refused.
    pub fn refuse(&self, limit: &str) {
        self.refused.with_label_values(&[limit]).inc();
    }

    /// Notes a broker call that succeeded.
    pub fn produced(&self, took: Duration, events: usize, bytes: usize, since_epoch: Duration) {
        self.produce_seconds.observe(took.as_secs_f64());
        self.batch_events.observe(events as f64);
        self.batch_bytes.observe(bytes as f64);
        self.kafka_last_success.set(since_epoch.as_secs_f64());
    }
}

fn requests(metrics: &Metrics) -> Vec<[IntCounter; STATUSES.len()]> {
    let counters = metrics.counters("pipeline_http_requests_total", "Answered requests", &["code", "route"]);
    let row = |route: Route| {
        STATUSES.map(|status| counters.with_label_values(&[status.to_string().as_str(), route.name()]))
    };
    Route::ALL.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_under_their_route_and_code() {
        let metrics = ProducerMetrics::new();
        metrics.answered(Route::Unknown, 404);
        metrics.answered(Route::RegisterEvent, 299);
        metrics.reject("queue_full", 3);
        let text = metrics.common.render();
        assert!(text.contains("pipeline_http_requests_total{code=\"404\",route=\"unknown\"} 1"), "{text}");
        assert!(text.contains("pipeline_http_requests_total{code=\"500\",route=\"/register_event\"} 1"));
        assert!(text.contains("pipeline_events_rejected_total{reason=\"queue_full\"} 3"));
        assert!(text.contains("pipeline_events_rejected_total{reason=\"not_json\"} 0"));
    }
}
