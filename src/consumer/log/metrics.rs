//! Declares the metrics of the log.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::consumer::log::ids::Window;
use crate::consumer::metrics::{ConsumerMetrics, DIFFERS, REPEATED};
use crate::metrics::SECONDS_BUCKETS;

/// All metrics of one log.
pub struct LogMetrics {
    /// Events in the log.
    pub events: IntCounter,
    /// Bytes of the lines in the log.
    pub bytes: IntCounter,
    /// Duration in seconds of the fsync before each checkpoint.
    pub fsync_seconds: Histogram,
    /// Number of log rotations.
    pub rotations: IntCounter,
    /// Dropped events, by reason.
    duplicates: IntCounterVec,
    /// Number of remembered ids.
    dedup_ids: IntGauge,
    /// Age in seconds of the oldest remembered id.
    dedup_window_seconds: Gauge,
}

impl LogMetrics {
    /// Registers all metrics with the value zero.
    pub fn new(consumer: &ConsumerMetrics) -> Self {
        let metrics = &consumer.registry;
        Self {
            events: metrics.counter("pipeline_log_events_total", "Records that became lines of the log"),
            bytes: metrics.counter("pipeline_log_bytes_total", "Bytes of the log's lines"),
            fsync_seconds: metrics.histogram(
                "pipeline_log_fsync_duration_seconds",
                "Duration of the fsync before a checkpoint; empty with LOG_FSYNC=never",
                &SECONDS_BUCKETS,
            ),
            rotations: metrics.counter("pipeline_log_rotations_total", "Rotations of the log"),
            duplicates: consumer.duplicates.clone(),
            dedup_ids: metrics.int_gauge("pipeline_dedup_ids", "Event ids that are remembered"),
            dedup_window_seconds: metrics.gauge(
                "pipeline_dedup_window_seconds",
                "Age of the oldest event id that is remembered; below DEDUP_WINDOW if the consumer has seen events for \
                 a shorter time, or more ids than DEDUP_MAX_IDS",
            ),
        }
    }

    /// Counts events that were dropped, and shows what is remembered after them.
    pub fn dropped(&self, repeated: u64, differing: u64, window: &Window) {
        self.duplicates.with_label_values(&[REPEATED]).inc_by(repeated);
        self.duplicates.with_label_values(&[DIFFERS]).inc_by(differing);
        self.dedup_ids.set(i64::try_from(window.len()).unwrap_or(i64::MAX));
        self.dedup_window_seconds.set(window.reach() as f64 / 1000.0);
    }
}
