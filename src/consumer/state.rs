//! State shared by the consumer's threads and shown on the status page: problems, covered offsets, metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::consumer::metrics::ConsumerMetrics;
use crate::consumer::progress::Offsets;

/// Shared by the reader, the writer and the status page.
#[derive(Default)]
pub struct State {
    /// The metrics.
    pub metrics: ConsumerMetrics,
    problems: Mutex<BTreeMap<String, String>>,
    covered: Mutex<Offsets>,
    closed: AtomicBool,
    unattended: AtomicBool,
}

impl State {
    /// The state before the log was opened: not ready from the first request on.
    pub fn starting() -> Self {
        let not_yet = BTreeMap::from([("start".into(), "Kafka was not reached yet".into())]);
        Self { problems: Mutex::new(not_yet), ..Self::default() }
    }

    /// Records that `what` does not work because of `reason`. Logged once, and again only when the reason
    /// changes.
    pub fn problem(&self, what: &str, reason: &str) {
        let mut problems = self.problems.lock();
        if problems.get(what).is_some_and(|known| known == reason) {
            return;
        }
        log::error!("{what}: {reason}");
        problems.insert(what.to_owned(), reason.to_owned());
    }

    /// Records that `what` works.
    pub fn solved(&self, what: &str) {
        if self.problems.lock().remove(what).is_some() {
            log::info!("{what}: ok");
        }
    }

    /// Returns everything that does not work, with the reason. Empty means ready.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems.lock().clone()
    }

    /// Records that the checkpoint on disk covers everything before `offsets`.
    pub fn cover(&self, offsets: &Offsets) {
        self.metrics.covered_time.set(now_seconds());
        self.covered.lock().clone_from(offsets);
    }

    /// Records that the log is closed: it holds exactly the events before the covered offsets.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// True once the log has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Records that the writer has ended, so that the reader ends too.
    pub fn leave(&self) {
        self.unattended.store(true, Ordering::SeqCst);
    }

    /// True once the writer has ended.
    pub fn is_unattended(&self) -> bool {
        self.unattended.load(Ordering::SeqCst)
    }

    /// Offsets covered by the checkpoint on disk.
    pub fn covered(&self) -> Offsets {
        self.covered.lock().clone()
    }
}

/// What a problem of `partition` is called.
pub fn partition_name(partition: i32) -> String {
    format!("partition {partition}")
}

/// Seconds since the epoch.
pub fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64())
}

/// Milliseconds since the epoch.
pub fn now_millis() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stay_until_they_are_solved() {
        let state = State::default();
        state.problem("kafka", "refused");
        state.problem("kafka", "timed out");
        state.problem("log", "full");
        assert_eq!(state.problems()["kafka"], "timed out");
        state.solved("kafka");
        state.solved("kafka");
        assert_eq!(state.problems().into_iter().collect::<Vec<_>>(), [("log".into(), "full".into())]);
    }
}
