//! Declares the consumer's metrics. They are updated once per batch, never per event.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::event::ErrorKind;
use crate::metrics::Metrics;

/// Buckets for the age of records, in seconds: from an idle pipeline to a consumer that was down for hours.
const AGE_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0];

/// Reasons to drop an event: it is in the destination, or another one with its id is.
pub const REPEATED: &str = "repeated";
/// The same.
pub const DIFFERS: &str = "differs";

/// All metrics of one consumer.
pub struct ConsumerMetrics {
    /// The registry behind `/metrics`.
    pub registry: Metrics,
    /// Records covered by the checkpoint: logged or rejected.
    pub records: IntCounter,
    /// Records that are not valid events, by reason.
    pub rejected: IntCounterVec,
    /// Events that were dropped, by reason.
    pub duplicates: IntCounterVec,
    /// Seconds from each record's timestamp until the checkpoint covered it, if the client knows the
    /// timestamp.
    pub end_to_end_seconds: Histogram,
    /// Failed attempts to write, fsync, rotate or checkpoint.
    pub write_errors: IntCounter,
    /// Records in the topic that have not been read yet, by partition.
    pub lag: IntGaugeVec,
    /// Next offset to read, by partition.
    pub offset: IntGaugeVec,
    /// Unix time at which the checkpoint was last known to be up to date.
    pub covered_time: Gauge,
    /// Failed broker calls, by kind of error.
    pub kafka_errors: IntCounterVec,
    /// 1 while Kafka answers.
    pub kafka_connected: IntGauge,
    /// Unix time at which Kafka last answered.
    pub kafka_success_time: Gauge,
}

impl Default for ConsumerMetrics {
    fn default() -> Self {
        let m = Metrics::new();
        let by_partition = |name: &str, help: &str| {
            m.register(IntGaugeVec::new(Opts::new(name, help), &["partition"]).expect("a legal metric"))
        };
        let rejected = m.counters(
            "pipeline_consumer_rejected_total",
            "Records that are not valid events, or that the database does not accept, by reason; they are in the rejected file \
             or in event_rejects",
            &["reason"],
        );
        for kind in ErrorKind::ALL {
            rejected.with_label_values(&[kind.as_str()]);
        }
        Self {
            records: m.counter("pipeline_consumer_records_total", "Records covered by the checkpoint"),
            rejected,
            duplicates: m.counters_for(
                "pipeline_consumer_duplicates_total",
                "Events that were dropped because their id is in the log or table: `repeated` ones, and those whose \
                 content `differs`",
                "reason",
                &[REPEATED, DIFFERS],
            ),
            end_to_end_seconds: m.histogram(
                "pipeline_end_to_end_seconds",
                "Time from a record's timestamp (the broker's with LogAppendTime, else its sender's) to the \
                 checkpoint that covers it; empty with the kafka crate and for records without a timestamp",
                &AGE_BUCKETS,
            ),
            write_errors: m.counter(
                "pipeline_log_write_errors_total",
                "Failed attempts to write, fsync, rotate or checkpoint; alert on any",
            ),
            lag: by_partition(
                "pipeline_consumer_lag_records",
                "Records in the topic that were not read yet; alert when it keeps rising",
            ),
            offset: by_partition("pipeline_consumer_offset", "Next offset to read"),
            covered_time: m.gauge(
                "pipeline_checkpoint_timestamp_seconds",
                "Unix time at which the checkpoint last covered everything that was read",
            ),
            kafka_errors: m.counters(
                "pipeline_kafka_errors_total",
                "Failed calls to a broker, by kind",
                &["kind"],
            ),
            kafka_connected: m.int_gauge(
                "pipeline_kafka_connected",
                "1 while Kafka acknowledges (producer) or answers (consumer); alert on 0",
            ),
            kafka_success_time: m.gauge(
                "pipeline_kafka_last_success_timestamp_seconds",
                "Unix time at which Kafka last acknowledged (producer) or answered (consumer)",
            ),
            registry: m,
        }
    }
}
