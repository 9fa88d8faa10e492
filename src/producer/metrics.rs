//! Defines the producer's metrics. Counters are atomics; the broker-call histograms are updated once per
//! batch, by the publisher alone.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::event::ErrorKind;
use crate::metrics::{Metrics, SECONDS_BUCKETS};
use crate::producer::routes::Route;

/// Every status that the producer answers with.
const STATUSES: [u16; 11] = [200, 207, 400, 404, 405, 408, 411, 413, 415, 500, 503];

/// Reasons, in addition to those of `event`, for which a received event is not accepted.
const REFUSALS: [&str; 2] = ["queue_full", "closed"];

/// Causes for which an accepted event fails.
const FAILURES: [&str; 4] = ["timeout", "too_large", "rejected", "stopped"];

/// Limits of the HTTP side, named after the setting or rule that was exceeded.
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

/// All metrics of the producer.
pub struct ProducerMetrics {
    /// Registry and text output.
    pub common: Metrics,
    /// Requests and connections.
    pub http: HttpMetrics,
    /// Events on the HTTP side.
    pub events: EventMetrics,
    /// Events between acceptance and acknowledgement.
    pub queue: QueueMetrics,
    /// Calls to the broker.
    pub kafka: KafkaMetrics,
}

/// Requests and connections.
pub struct HttpMetrics {
    requests: Vec<[IntCounter; STATUSES.len()]>,
    refused: IntCounterVec,
    /// Time from a request's head to its answer, including the upload and the wait for earlier requests.
    pub request_seconds: Histogram,
    /// Open client connections.
    pub connections: IntGauge,
    /// Requests that wait behind another one on their connection.
    pub parked: IntGauge,
    /// Number of times the accept loop was rebuilt.
    pub accept_restarts: IntCounter,
    /// Panics that ended only a thread or a request.
    pub panics: IntCounter,
    /// Connection threads that tiny_http has lost for good.
    pub leaked: IntGauge,
}

/// Events on the HTTP side.
pub struct EventMetrics {
    /// Events in requests whose body was read.
    pub received: IntCounter,
    /// Events that went into the queue.
    pub accepted: IntCounter,
    rejected: IntCounterVec,
    /// Events acknowledged by Kafka.
    pub acknowledged: IntCounter,
    failed: IntCounterVec,
}

/// Events between acceptance and acknowledgement.
pub struct QueueMetrics {
    /// Number of events.
    pub events: IntGauge,
    /// Bytes held for them and for bodies being read.
    pub bytes: IntGauge,
    /// Most events allowed.
    pub capacity: IntGauge,
    /// Time from a complete request to the first attempt to send.
    pub wait: Histogram,
}

/// Calls to the broker.
pub struct KafkaMetrics {
    produce_seconds: Histogram,
    batch_events: Histogram,
    batch_bytes: Histogram,
    errors: IntCounterVec,
    /// 1 while Kafka acknowledges.
    pub connected: IntGauge,
    /// When Kafka last acknowledged, as Unix time in seconds.
    pub last_success: Gauge,
}

impl Default for ProducerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers counters that exist from the start for each value of their label.
fn labelled(m: &Metrics, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
    let counters = m.counters(name, help, &[label]);
    for value in values {
        counters.with_label_values(&[value]);
    }
    counters
}

fn powers_of_four(first: f64) -> Vec<f64> {
    prometheus::exponential_buckets(first, 4.0, 9).expect("valid buckets")
}

impl HttpMetrics {
    fn new(m: &Metrics) -> Self {
        Self {
            requests: requests(m),
            refused: labelled(
                m,
                "pipeline_http_refused_total",
                "Rejected requests and connections, by the limit that they exceeded",
                "limit",
                &LIMITS,
            ),
            request_seconds: m.histogram(
                "pipeline_http_request_duration_seconds",
                "Time from the head of a request to its answer, upload included",
                &SECONDS_BUCKETS,
            ),
            connections: m.int_gauge("pipeline_http_connections", "Open client connections"),
            parked: m.int_gauge(
                "pipeline_http_parked_requests",
                "Pipelined requests that wait for the one before them on their connection",
            ),
            accept_restarts: m.counter(
                "pipeline_http_accept_restarts_total",
                "Times the accept loop was restarted; after more than a few, raise ulimit -n",
            ),
            panics: m.counter(
                "pipeline_thread_panics_total",
                "Panics caught in threads of this process; port scanners cause some",
            ),
            leaked: m.int_gauge(
                "pipeline_http_leaked_connections",
                "Threads that tiny_http lost for good; if it rises, put a proxy in front",
            ),
        }
    }
}

impl EventMetrics {
    fn new(m: &Metrics) -> Self {
        let reasons = [&ErrorKind::ALL.map(ErrorKind::as_str)[..], &REFUSALS].concat();
        Self {
            received: m.counter("pipeline_events_received_total", "Events in request bodies that were read"),
            accepted: m.counter("pipeline_events_accepted_total", "Events accepted into the queue"),
            rejected: labelled(
                m,
                "pipeline_events_rejected_total",
                "Events rejected, by reason",
                "reason",
                &reasons,
            ),
            acknowledged: m.counter("pipeline_events_acknowledged_total", "Events acknowledged by Kafka"),
            failed: labelled(
                m,
                "pipeline_events_failed_total",
                "Accepted events that were not acknowledged, by cause",
                "cause",
                &FAILURES,
            ),
        }
    }
}

impl QueueMetrics {
    fn new(m: &Metrics) -> Self {
        Self {
            events: m.int_gauge("pipeline_queue_events", "Events between acceptance and acknowledgement"),
            bytes: m.int_gauge(
                "pipeline_queue_bytes",
                "Bytes held for these events and for bodies that are being read",
            ),
            capacity: m.int_gauge(
                "pipeline_queue_capacity_events",
                "Limit of pipeline_queue_events (QUEUE_MAX_EVENTS)",
            ),
            wait: m.histogram(
                "pipeline_queue_wait_seconds",
                "Time from a complete request to the first attempt to send",
                &SECONDS_BUCKETS,
            ),
        }
    }
}

impl KafkaMetrics {
    fn new(m: &Metrics) -> Self {
        Self {
            produce_seconds: m.histogram(
                "pipeline_kafka_produce_duration_seconds",
                "Duration of one produce call",
                &SECONDS_BUCKETS,
            ),
            batch_events: m.histogram(
                "pipeline_kafka_batch_events",
                "Events in one produce call",
                &powers_of_four(1.0),
            ),
            batch_bytes: m.histogram(
                "pipeline_kafka_batch_bytes",
                "Bytes in one produce call",
                &powers_of_four(64.0),
            ),
            errors: labelled(
                m,
                "pipeline_kafka_errors_total",
                "Failed calls to a broker, by kind",
                "kind",
                &["refused", "retryable", "throttled", "unsupported", "waiting"],
            ),
            connected: m.int_gauge(
                "pipeline_kafka_connected",
                "1 while Kafka acknowledges (producer) or answers (consumer); alert on 0",
            ),
            last_success: m.gauge(
                "pipeline_kafka_last_success_timestamp_seconds",
                "Unix time at which Kafka last acknowledged (producer) or answered (consumer)",
            ),
        }
    }

    /// Records a broker call that acknowledged something.
    pub fn produced(&self, took: Duration, events: usize, bytes: usize, since_epoch: Duration) {
        self.produce_seconds.observe(took.as_secs_f64());
        self.batch_events.observe(events as f64);
        self.batch_bytes.observe(bytes as f64);
        self.last_success.set(since_epoch.as_secs_f64());
    }

    /// Records a broker call that failed.
    pub fn failed(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }
}

impl ProducerMetrics {
    /// Creates all metrics at zero, with every label value present.
    pub fn new() -> Self {
        let common = Metrics::new();
        Self {
            http: HttpMetrics::new(&common),
            events: EventMetrics::new(&common),
            queue: QueueMetrics::new(&common),
            kafka: KafkaMetrics::new(&common),
            common,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, route: Route, status: u16) {
        let column = STATUSES.iter().position(|&known| known == status).unwrap_or(STATUSES.len() - 2);
        self.http.requests[route as usize][column].inc();
    }

    /// Counts events that were received but not accepted.
    pub fn reject(&self, reason: &str, events: u64) {
        self.events.rejected.with_label_values(&[reason]).inc_by(events);
    }

    /// Counts accepted events that failed.
    pub fn fail(&self, cause: &str, events: u64) {
        self.events.failed.with_label_values(&[cause]).inc_by(events);
    }

    /// Accepted events so far that were not acknowledged although a retry could have helped.
    pub fn unacknowledged(&self) -> u64 {
        ["timeout", "stopped"].iter().map(|cause| self.events.failed.with_label_values(&[cause]).get()).sum()
    }

    /// Counts a request or connection that exceeded a limit.
    pub fn refuse(&self, limit: &str) {
        self.http.refused.with_label_values(&[limit]).inc();
    }
}

fn requests(metrics: &Metrics) -> Vec<[IntCounter; STATUSES.len()]> {
    let counters = metrics.counters(
        "pipeline_http_requests_total",
        "Answered requests, by status and route",
        &["code", "route"],
    );
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
