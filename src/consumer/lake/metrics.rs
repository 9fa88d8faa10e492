//! Declares the metrics of the lake.

use prometheus::{IntCounter, IntGauge};

use crate::metrics::Metrics;

/// All metrics of the lake.
#[derive(Clone)]
pub struct LakeMetrics {
    /// Rows in complete files.
    pub rows: IntCounter,
    /// Complete files.
    pub files: IntCounter,
    /// Lines that are not events.
    pub rejected: IntCounter,
    /// Failed attempts.
    pub errors: IntCounter,
    /// Files that were brought to S3.
    pub uploads: IntCounter,
    /// Their bytes.
    pub upload_bytes: IntCounter,
    /// Closed logs that are not in the lake yet.
    pub behind: IntGauge,
}

impl LakeMetrics {
    /// Registers all metrics with the value zero.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            rows: metrics.counter("pipeline_lake_rows_total", "Events in Parquet files that were completed"),
            files: metrics.counter("pipeline_lake_files_total", "Parquet files that were completed"),
            rejected: metrics.counter(
                "pipeline_lake_rejected_total",
                "Lines of closed logs that are not lines of events; they are in `_rejected` of the lake",
            ),
            errors: metrics.counter(
                "pipeline_lake_errors_total",
                "Failed attempts to bring closed logs into the lake; alert on any",
            ),
            uploads: metrics
                .counter("pipeline_lake_uploads_total", "Files of the lake that were proven to be in S3"),
            upload_bytes: metrics.counter(
                "pipeline_lake_upload_bytes_total",
                "Bytes of the files of the lake that were proven to be in S3",
            ),
            behind: metrics.int_gauge(
                "pipeline_lake_behind_files",
                "Closed logs that are not in the lake yet; alert when it keeps rising",
            ),
        }
    }
}
