//! Defines the producer's metrics. Counters are atomics; the broker-call histograms are updated once per
//! batch, by the publisher alone.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::event::ErrorKind;
use crate::metrics::{Metrics, SECONDS_BUCKETS};
use crate::producer::access_metrics::AccessMetrics;
use crate::producer::job::Outcome;
use crate::producer::queue::Usage;
use crate::producer::routes::Route;
use crate::producer::status::Status;

/// Reasons, in addition to those of `event`, for which a received event is not accepted.
const REFUSALS: [&str; 5] = ["bad_event_id", "reserved_field", "queue_full", "rate_limited", "closed"];

/// Causes for which an accepted event fails.
const FAILURES: [&str; 4] = ["timeout", "too_large", "rejected", "stopped"];

/// Limits of the HTTP side, named after the setting or rule that was exceeded.
const LIMITS: [&str; 10] = [
    "max_connections",
    "idle_timeout",
    "request_timeout",
    "max_body_bytes",
    "max_pipelined",
    "max_head_bytes",
    "write_timeout",
    "body_threads",
    "max_request_events",
    "framing",
];

/// Buckets for the events and bytes of a batch.
const EVENTS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0];
const BYTES: [f64; 9] = [64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0];

/// Defines a group of metrics: the field, and how it is registered.
macro_rules! groups {
    ($($group:ident { $($field:ident: $kind:ty = $register:ident $arguments:tt,)* })*) => {
        $(
            pub struct $group { $(pub $field: $kind,)* }

            impl $group {
                fn new(m: &Metrics) -> Self {
                    Self { $($field: m.$register $arguments,)* }
                }
            }
        )*
    };
}

groups! {
    HttpMetrics {
        requests: IntCounterVec = counters("pipeline_http_requests_total",
            "Answered requests, by status and route", &["code", "route"]),
        refused: IntCounterVec = counters_for("pipeline_http_refused_total",
            "Rejected requests and connections, by the limit that they exceeded", "limit", &LIMITS),
        request_seconds: Histogram = histogram("pipeline_http_request_duration_seconds",
            "Time from the head of a request to its answer, upload included", &SECONDS_BUCKETS),
        connections: IntGauge = int_gauge("pipeline_http_connections", "Open client connections"),
        parked: IntGauge = int_gauge("pipeline_http_parked_requests",
            "Pipelined requests that wait for the one before them on their connection"),
        accept_restarts: IntCounter = counter("pipeline_http_accept_restarts_total",
            "Times the accept loop was restarted; after more than a few, raise ulimit -n"),
        panics: IntCounter = counter("pipeline_thread_panics_total",
            "Panics caught in threads of this process; port scanners cause some"),
        leaked: IntGauge = int_gauge("pipeline_http_leaked_connections",
            "Connection threads lost for good; if it rises, put a proxy in front"),
    }
    EventMetrics {
        received: IntCounter = counter("pipeline_events_received_total",
            "Events in request bodies that were read"),
        accepted: IntCounter = counter("pipeline_events_accepted_total", "Events accepted into the queue"),
        rejected: IntCounterVec = counters_for("pipeline_events_rejected_total",
            "Events rejected, by reason", "reason",
            &[&ErrorKind::ALL.map(ErrorKind::as_str)[..], &REFUSALS].concat()),
        acknowledged: IntCounter = counter("pipeline_events_acknowledged_total",
            "Events acknowledged by Kafka"),
        failed: IntCounterVec = counters_for("pipeline_events_failed_total",
            "Accepted events that were not acknowledged, by cause", "cause", &FAILURES),
    }
    QueueMetrics {
        events: IntGauge = int_gauge("pipeline_queue_events",
            "Events between acceptance and acknowledgement"),
        bytes: IntGauge = int_gauge("pipeline_queue_bytes",
            "Bytes held for these events and for bodies that are being read"),
        capacity: IntGauge = int_gauge("pipeline_queue_capacity_events",
            "Limit of pipeline_queue_events (QUEUE_MAX_EVENTS)"),
        capacity_bytes: IntGauge = int_gauge("pipeline_queue_capacity_bytes",
            "Limit of pipeline_queue_bytes (QUEUE_MAX_BYTES)"),
        wait: Histogram = histogram("pipeline_queue_wait_seconds",
            "Time from a complete request to the first attempt to send", &SECONDS_BUCKETS),
    }
    KafkaMetrics {
        call_seconds: Histogram = histogram("pipeline_kafka_produce_duration_seconds",
            "Duration of one produce call", &SECONDS_BUCKETS),
        batch_events: Histogram = histogram("pipeline_kafka_batch_events",
            "Events in one produce call", &EVENTS),
        batch_bytes: Histogram = histogram("pipeline_kafka_batch_bytes",
            "Bytes in one produce call", &BYTES),
        errors: IntCounterVec = counters_for("pipeline_kafka_errors_total",
            "Failed calls to a broker, by kind", "kind",
            &["refused", "retryable", "throttled", "unsupported", "waiting"]),
        connected: IntGauge = int_gauge("pipeline_kafka_connected",
            "1 while Kafka acknowledges (producer) or answers (consumer); alert on 0"),
        last_success: Gauge = gauge("pipeline_kafka_last_success_timestamp_seconds",
            "Unix time at which Kafka last acknowledged (producer) or answered (consumer)"),
    }
}

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
    /// Clients and keys.
    pub access: AccessMetrics,
    /// The counter of each route and status, because looking one up by its labels is slow.
    answers: [[IntCounter; Status::ALL.len()]; Route::ALL.len()],
}

impl QueueMetrics {
    /// Shows what the queue holds now.
    pub fn show(&self, usage: &Usage) {
        self.events.set(usage.events() as i64);
        self.bytes.set(usage.bytes() as i64);
        self.capacity.set(usage.max_events() as i64);
        self.capacity_bytes.set(usage.max_bytes() as i64);
    }
}

impl KafkaMetrics {
    /// Records a broker call that acknowledged something.
    pub fn produced(&self, took: Duration, events: usize, bytes: usize, since_epoch: Duration) {
        self.call_seconds.observe(took.as_secs_f64());
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
    /// Creates all metrics at zero, with every label value present. `server` is the name of the HTTP front.
    pub fn new(server: &str) -> Self {
        let common = Metrics::new();
        let http = HttpMetrics::new(&common);
        let info = Opts::new("pipeline_http_server_info", "HTTP server that runs (HTTP_SERVER); always 1");
        let info = IntGauge::with_opts(info.const_label("server", server));
        common.register(info.expect("valid options")).set(1);
        let answers = Route::ALL.map(|route| {
            Status::ALL.map(|status| {
                http.requests.with_label_values(&[status.code().to_string().as_str(), route.name()])
            })
        });
        Self {
            http,
            events: EventMetrics::new(&common),
            queue: QueueMetrics::new(&common),
            kafka: KafkaMetrics::new(&common),
            access: AccessMetrics::new(&common),
            answers,
            common,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, route: Route, status: Status) {
        self.answers[route as usize][status as usize].inc();
    }

    /// Counts events that were received but not accepted.
    pub fn reject(&self, reason: &str, events: u64) {
        self.events.rejected.with_label_values(&[reason]).inc_by(events);
    }

    /// Counts the events of a settled request; `stopped` means that the publisher has ended.
    pub fn settled(&self, outcomes: &[Outcome], stopped: bool) {
        let acknowledged =
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Acknowledged(_))).count();
        self.events.acknowledged.inc_by(acknowledged as u64);
        if acknowledged == outcomes.len() {
            return;
        }
        for outcome in outcomes {
            let cause = match outcome {
                Outcome::TooLarge(_) => "too_large",
                Outcome::Rejected(_) => "rejected",
                Outcome::Unacknowledged(_) if stopped => "stopped",
                Outcome::Unacknowledged(_) => "timeout",
                Outcome::Open | Outcome::Acknowledged(_) => continue,
            };
            self.events.failed.with_label_values(&[cause]).inc();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_under_their_route_and_code() {
        let metrics = ProducerMetrics::new("tiny_http");
        metrics.answered(Route::Unknown, Status::NotFound);
        metrics.answered(Route::RegisterEvent, Status::ServiceUnavailable);
        metrics.reject("queue_full", 3);
        let text = metrics.common.render();
        assert!(text.contains("pipeline_http_requests_total{code=\"404\",route=\"unknown\"} 1"), "{text}");
        assert!(text.contains("pipeline_http_requests_total{code=\"503\",route=\"/register_event\"} 1"));
        assert!(text.contains("pipeline_events_rejected_total{reason=\"queue_full\"} 3"));
        assert!(text.contains("pipeline_events_rejected_total{reason=\"not_json\"} 0"));
    }
}
