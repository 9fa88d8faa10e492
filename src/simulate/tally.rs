//! What one thread counted, and the sum of all. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies are kept in microseconds up to this; a longer one counts as this long.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// A request that begins later than this after its intended start has missed the schedule.
pub const LATE_AFTER: Duration = Duration::from_millis(10);

/// A count with the first example of what was counted.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// How many.
    pub count: u64,
    /// The first one's words; empty when it had none.
    pub first: String,
}

/// Counts of one thread in one phase, or of all threads.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latency of every request that was answered or given up, in microseconds.
    pub latency: Histogram<u64>,
    /// Requests, whatever became of them.
    pub requests: u64,
    /// HTTP attempts: more than requests when some were retried.
    pub attempts: u64,
    /// Events sent.
    pub sent: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Events refused for good.
    pub rejected: u64,
    /// Events neither acknowledged nor refused for good.
    pub failed: u64,
    /// Answers by HTTP status, each attempt.
    pub statuses: BTreeMap<u16, Sampled>,
    /// Attempts without an answer by cause.
    pub errors: BTreeMap<String, u64>,
    /// Requests that began later than [`LATE_AFTER`] after their intended start.
    pub late: u64,
    /// The worst such delay.
    pub worst_delay: Duration,
    /// End of the last request.
    pub finished: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing counted.
    pub fn new() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3).expect("legal bounds"),
            requests: 0,
            attempts: 0,
            sent: 0,
            acknowledged: 0,
            rejected: 0,
            failed: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            late: 0,
            worst_delay: Duration::ZERO,
            finished: None,
        }
    }

    /// Counts how long a request took.
    pub fn add_latency(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts how long after its intended start a request began.
    pub fn add_delay(&mut self, delay: Duration) {
        self.worst_delay = self.worst_delay.max(delay);
        self.late += u64::from(delay > LATE_AFTER);
    }

    /// Counts an answer; `words` are asked for only the first time.
    pub fn add_status(&mut self, status: u16, words: impl FnOnce() -> String) {
        let sampled = self.statuses.entry(status).or_insert_with(|| Sampled { count: 0, first: words() });
        sampled.count += 1;
    }

    /// Counts an attempt without a usable answer.
    pub fn add_error(&mut self, cause: String) {
        *self.errors.entry(cause).or_default() += 1;
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Tally) {
        // Equal bounds: cannot fail.
        let _ = self.latency.add(&other.latency);
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
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
        let (mut one, mut other) = (Tally::new(), Tally::new());
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
