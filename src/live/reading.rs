//! What one program says about itself: those of its metrics that the page shows. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::live::buckets::Buckets;
use crate::live::exposition::{Sample, samples};

/// Most kinds of refusals and most partitions that are kept of one program.
const MAX_REFUSALS: usize = 100;
const MAX_PARTITIONS: usize = 256;
/// Longest label that is shown, in bytes.
const MAX_LABEL_BYTES: usize = 64;

/// What was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// What: `event`, `request`, `client`, `unacknowledged` or `record`.
    pub what: &'static str,
    /// The reason, cause or limit.
    pub reason: String,
    /// Name of the client, where it is known.
    pub client: String,
}

/// Metrics of one program at one moment. Those that it does not have are 0 or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When the process started, in seconds since 1970; another one is another process.
    pub started: f64,
    pub version: String,
    /// HTTP server of a producer.
    pub http_server: String,
    /// Kafka client that was chosen.
    pub kafka_client: String,
    /// Counters.
    pub counts: Counts,
    /// Events between acceptance and acknowledgement, and how many there may be.
    pub in_flight: f64,
    pub capacity: f64,
    pub queue_bytes: f64,
    pub connections: f64,
    pub memory_bytes: f64,
    /// Records that were not read yet, by partition.
    pub lag: BTreeMap<i32, f64>,
    pub refused: BTreeMap<Refusal, f64>,
    /// From the head of a request to its answer.
    pub answer_seconds: Buckets,
    /// From a record's timestamp to the checkpoint that covers it.
    pub end_to_end_seconds: Buckets,
}

/// Counters since the start of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub received: f64,
    pub accepted: f64,
    pub rejected: f64,
    pub acknowledged: f64,
    pub failed: f64,
    pub logged: f64,
    pub duplicates: f64,
    pub write_errors: f64,
}

impl Counts {
    /// Applies `combine` to each pair of counters.
    pub fn zip(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            received: combine(self.received, other.received),
            accepted: combine(self.accepted, other.accepted),
            rejected: combine(self.rejected, other.rejected),
            acknowledged: combine(self.acknowledged, other.acknowledged),
            failed: combine(self.failed, other.failed),
            logged: combine(self.logged, other.logged),
            duplicates: combine(self.duplicates, other.duplicates),
            write_errors: combine(self.write_errors, other.write_errors),
        }
    }
}

impl Reading {
    /// Reads the text of `/metrics`.
    ///
    /// # Errors
    /// It is not the page of one of our programs.
    pub fn of(text: &str) -> Result<Self, String> {
        let mut reading = Self::default();
        samples(text).for_each(|sample| reading.take(&sample));
        if reading.version.is_empty() {
            return Err("its /metrics has no pipeline_build_info, so this is another program".into());
        }
        Ok(reading)
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let (value, counts) = (sample.value, &mut self.counts);
        match sample.name {
            "process_start_time_seconds" => self.started = value,
            "process_resident_memory_bytes" => self.memory_bytes = value,
            "pipeline_build_info" => self.version = label(sample, "version"),
            "pipeline_http_server_info" => self.http_server = label(sample, "server"),
            "pipeline_kafka_client_info" if value > 0.0 => self.kafka_client = label(sample, "client"),
            "pipeline_events_received_total" => counts.received = value,
            "pipeline_events_accepted_total" => counts.accepted = value,
            "pipeline_events_acknowledged_total" => counts.acknowledged = value,
            "pipeline_log_events_total" | "pipeline_postgres_events_total" => counts.logged += value,
            "pipeline_consumer_duplicates_total" => counts.duplicates += value,
            "pipeline_log_write_errors_total" => counts.write_errors = value,
            "pipeline_queue_events" => self.in_flight = value,
            "pipeline_queue_capacity_events" => self.capacity = value,
            "pipeline_queue_bytes" => self.queue_bytes = value,
            "pipeline_http_connections" => self.connections = value,
            "pipeline_events_rejected_total" => {
                counts.rejected += value;
                self.refuse("event", sample, "reason");
            }
            "pipeline_events_failed_total" => {
                counts.failed += value;
                self.refuse("unacknowledged", sample, "cause");
            }
            "pipeline_http_refused_total" => self.refuse("request", sample, "limit"),
            "pipeline_client_refused_total" => self.refuse("client", sample, "reason"),
            "pipeline_consumer_rejected_total" => self.refuse("record", sample, "reason"),
            "pipeline_consumer_lag_records" => self.lags(sample),
            "pipeline_http_request_duration_seconds_bucket" => bucket(&mut self.answer_seconds, sample),
            "pipeline_end_to_end_seconds_bucket" => bucket(&mut self.end_to_end_seconds, sample),
            _ => {}
        }
    }

    fn refuse(&mut self, what: &'static str, sample: &Sample<'_>, reason: &str) {
        if sample.value > 0.0 && self.refused.len() < MAX_REFUSALS {
            let refusal = Refusal { what, reason: label(sample, reason), client: label(sample, "client") };
            self.refused.insert(refusal, sample.value);
        }
    }

    fn lags(&mut self, sample: &Sample<'_>) {
        if let Ok(partition) = label(sample, "partition").parse()
            && self.lag.len() < MAX_PARTITIONS
        {
            self.lag.insert(partition, sample.value);
        }
    }
}

fn bucket(buckets: &mut Buckets, sample: &Sample<'_>) {
    if let Ok(bound) = label(sample, "le").parse() {
        buckets.add(bound, sample.value);
    }
}

fn label(sample: &Sample<'_>, name: &str) -> String {
    let mut value = sample.label(name).unwrap_or_default().into_owned();
    value.truncate(value.floor_char_boundary(MAX_LABEL_BYTES));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_both_programs_are_found() {
        let text = "\
pipeline_build_info{version=\"0.1.0\"} 1
process_start_time_seconds 1764254553.5
pipeline_http_server_info{server=\"edge\"} 1
pipeline_kafka_client_info{client=\"crate\"} 0
pipeline_kafka_client_info{client=\"wire\"} 1
pipeline_events_received_total 12
pipeline_events_rejected_total{reason=\"not_json\"} 2
pipeline_events_rejected_total{reason=\"empty\"} 0
pipeline_client_refused_total{client=\"shop\",reason=\"rate_limited\"} 4
pipeline_consumer_lag_records{partition=\"1\"} 5
pipeline_consumer_duplicates_total{reason=\"repeated\"} 3
pipeline_consumer_duplicates_total{reason=\"differs\"} 1
pipeline_http_request_duration_seconds_bucket{le=\"0.5\"} 9
pipeline_http_request_duration_seconds_bucket{le=\"+Inf\"} 9
pipeline_http_request_duration_seconds_sum 1
";
        let reading = Reading::of(text).expect("read");
        assert_eq!((reading.version.as_str(), reading.started), ("0.1.0", 1_764_254_553.5));
        assert_eq!((reading.http_server.as_str(), reading.kafka_client.as_str()), ("edge", "wire"));
        let counts = reading.counts;
        assert_eq!((counts.received, counts.rejected, counts.duplicates), (12.0, 2.0, 4.0));
        assert_eq!(reading.lag, BTreeMap::from([(1, 5.0)]));
        let refusal =
            |what, reason: &str, client: &str| Refusal { what, reason: reason.into(), client: client.into() };
        let expected =
            [(refusal("client", "rate_limited", "shop"), 4.0), (refusal("event", "not_json", ""), 2.0)];
        assert_eq!(reading.refused, BTreeMap::from(expected), "those without a count are left out");
        assert!(reading.answer_seconds.percentile(0.5).is_some_and(|found| found.value < 0.5));
    }

    #[test]
    fn what_a_program_can_make_us_keep_is_bounded() {
        let mut text = String::from("pipeline_build_info{version=\"1\"} 1\n");
        for index in 0..10_000 {
            text += &format!("pipeline_consumer_lag_records{{partition=\"{index}\"}} 1\n");
            text += &format!(
                "pipeline_client_refused_total{{client=\"{index}{}\",reason=\"x\"}} 1\n",
                "é".repeat(100)
            );
        }
        let reading = Reading::of(&text).expect("read");
        assert_eq!((reading.lag.len(), reading.refused.len()), (MAX_PARTITIONS, MAX_REFUSALS));
        assert!(reading.refused.keys().all(|refusal| refusal.client.len() <= MAX_LABEL_BYTES));
        assert!(Reading::of("<html>").is_err());
    }
}
