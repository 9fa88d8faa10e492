//! Counts requests, events and latencies per thread, and adds them up. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Highest latency that is recorded, in microseconds; a longer one counts as this value.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// Delay after the intended start beyond which a request counts as late.
pub const LATE_AFTER: Duration = Duration::from_millis(10);

/// A count, with an example.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Number of occurrences.
    pub count: u64,
    /// Text of the first occurrence; empty if it had none.
    pub first: String,
}

/// Counts of one thread in one phase, or the sum over all threads.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latency of every request, answered or given up, in microseconds.
    pub latency: Histogram<u64>,
    /// Requests, whatever their outcome.
    pub requests: u64,
    /// HTTP attempts; more than `requests` if some were retried.
    pub attempts: u64,
    /// Requests that were sent more than once.
    pub repeated: u64,
    /// Events sent.
    pub sent: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Of these, events whose request had been answered 2xx before, in a response that broke off. Each is in
    /// the topic at least twice.
    pub acknowledged_again: u64,
    /// Events that were permanently rejected.
    pub rejected: u64,
    /// Events that were neither acknowledged nor rejected.
    pub failed: u64,
    /// Responses by HTTP status, one per attempt.
    pub statuses: BTreeMap<u16, Sampled>,
    /// Attempts without a usable response, by cause.
    pub errors: BTreeMap<String, u64>,
    /// Requests that began more than [`LATE_AFTER`] after their intended start.
    pub late: u64,
    /// Longest delay of a request after its intended start.
    pub worst_delay: Duration,
    /// Time when the last request ended.
    pub finished: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3).expect("legal bounds"),
            requests: 0,
            attempts: 0,
            repeated: 0,
            sent: 0,
            acknowledged: 0,
            acknowledged_again: 0,
            rejected: 0,
            failed: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            late: 0,
            worst_delay: Duration::ZERO,
            finished: None,
        }
    }
}

impl Tally {
    /// Records the latency of a request.
    pub fn add_latency(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records how long after its intended start a request began.
    pub fn add_delay(&mut self, delay: Duration) {
        self.worst_delay = self.worst_delay.max(delay);
        self.late += u64::from(delay > LATE_AFTER);
    }

    /// Counts a response; `words` is called only for the first one with this status.
    pub fn add_status(&mut self, status: u16, words: impl FnOnce() -> String) {
        let sampled = self.statuses.entry(status).or_insert_with(|| Sampled { count: 0, first: words() });
        sampled.count += 1;
    }

    /// Counts an attempt without a usable response.
    pub fn add_error(&mut self, cause: String) {
        *self.errors.entry(cause).or_default() += 1;
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: &Tally) {
        // Cannot fail, since both histograms have the same bounds.
        let _ = self.latency.add(&other.latency);
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.repeated += other.repeated;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.acknowledged_again += other.acknowledged_again;
        self.rejected += other.rejected;
        self.failed += other.failed;
        for (status, sampled) in &other.statuses {
            let sum = self.statuses.entry(*status).or_default();
            sum.count += sampled.count;
            if sum.first.is_empty() {
                sum.first.clone_from(&sampled.first);
            }
        }
        for (cause, count) in &other.errors {
            *self.errors.entry(cause.clone()).or_default() += count;
        }
        self.late += other.late;
        self.worst_delay = self.worst_delay.max(other.worst_delay);
        self.finished = self.finished.max(other.finished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_holds_both_threads() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.add_latency(Duration::from_millis(1));
        one.add_status(200, String::new);
        other.add_latency(Duration::from_secs(3600));
        other.add_status(503, || "full".into());
        other.add_status(503, || unreachable!("asked only once"));
        other.add_error("timeout".into());
        other.add_delay(Duration::from_millis(11));
        other.add_delay(Duration::from_millis(9));
        other.acknowledged = 3;
        one.add(&other);
        assert_eq!((one.latency.len(), one.acknowledged, one.errors["timeout"]), (2, 3, 1));
        assert_eq!((one.statuses[&503].count, one.statuses[&503].first.as_str()), (2, "full"));
        assert_eq!((one.late, one.worst_delay), (1, Duration::from_millis(11)));
        assert!(one.latency.max() >= MAX_LATENCY_MICROS, "a longer one counts as the longest");
        assert_eq!(one.latency.value_at_quantile(0.5) / 10, 100);
    }
}
