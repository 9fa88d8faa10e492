//! Declares the metrics of the PostgreSQL destination.

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::consumer::metrics::ConsumerMetrics;
use crate::consumer::postgres::refusal::REFUSED;
use crate::metrics::SECONDS_BUCKETS;

/// All metrics of one database.
pub struct PgMetrics {
    /// Rows of `events`.
    pub events: IntCounter,
    /// Rows that the database did not accept.
    pub refused: IntCounter,
    /// Dropped events, by reason.
    pub duplicates: IntCounterVec,
    /// Duration in seconds of each transaction.
    pub transaction_seconds: Histogram,
    /// Connections that were made.
    pub connections: IntCounter,
    /// Commits whose outcome was unknown, by what was found.
    pub doubts: IntCounterVec,
}

/// What was found about a commit of unknown outcome.
pub const COMMITTED: &str = "committed";
/// The same.
pub const ROLLED_BACK: &str = "rolled_back";

impl PgMetrics {
    /// Registers all metrics with the value zero.
    pub fn new(metrics: &ConsumerMetrics) -> Self {
        let registry = &metrics.registry;
        Self {
            events: registry.counter("pipeline_postgres_events_total", "Events that became rows of the table events"),
            refused: metrics.rejected.with_label_values(&[REFUSED]),
            duplicates: metrics.duplicates.clone(),
            transaction_seconds: registry.histogram(
                "pipeline_postgres_transaction_duration_seconds",
                "Duration of a transaction, its commit included",
                &SECONDS_BUCKETS,
            ),
            connections: registry
                .counter("pipeline_postgres_connections_total", "Connections to the database that were made"),
            doubts: registry.counters_for(
                "pipeline_postgres_doubtful_commits_total",
                "Commits whose outcome was unknown because the connection was lost, by what event_offsets said then",
                "outcome",
                &[COMMITTED, ROLLED_BACK],
            ),
        }
    }
}
