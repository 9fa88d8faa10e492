//! Declares the metrics of the log.

use prometheus::{Histogram, IntCounter};

use crate::metrics::{Metrics, SECONDS_BUCKETS};

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
}

impl LogMetrics {
    /// Registers all metrics with the value zero.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            events: metrics.counter("pipeline_log_events_total", "Records that became lines of the log"),
            bytes: metrics.counter("pipeline_log_bytes_total", "Bytes of the log's lines"),
            fsync_seconds: metrics.histogram(
                "pipeline_log_fsync_duration_seconds",
                "Duration of the fsync before a checkpoint; empty with LOG_FSYNC=never",
                &SECONDS_BUCKETS,
            ),
            rotations: metrics.counter("pipeline_log_rotations_total", "Rotations of the log"),
        }
    }
}
