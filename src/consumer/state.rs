//! What the consumer's threads tell each other and the outside: problems, covered offsets, figures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::checkpoint::Offsets;
use super::metrics::ConsumerMetrics;

/// Shared by the reader, the writer and the status page.
#[derive(Default)]
pub struct State {
    /// The figures.
    pub metrics: ConsumerMetrics,
    problems: Mutex<BTreeMap<String, String>>,
    covered: Mutex<Offsets>,
    closed: AtomicBool,
}

impl State {
    /// Nothing known, nothing wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// `what` does not work, because of `reason`. Told to the operator once, until it changes.
    pub fn problem(&self, what: &str, reason: &str) {
        let mut problems = lock(&self.problems);
        if problems.get(what).is_some_and(|known| known == reason) {
            return;
        }
        log::error!("{what}: {reason}");
        problems.insert(what.to_owned(), reason.to_owned());
    }

    /// `what` has not begun to work, which nobody needs to be told yet.
    pub fn not_yet(&self, what: &str, reason: &str) {
        lock(&self.problems).insert(what.to_owned(), reason.to_owned());
    }

    /// `what` works.
    pub fn solved(&self, what: &str) {
        if lock(&self.problems).remove(what).is_some() {
            log::info!("{what}: works");
        }
    }

    /// What does not work and why; empty means ready.
    pub fn problems(&self) -> BTreeMap<String, String> {
        lock(&self.problems).clone()
    }

    /// The checkpoint on the disk covers everything before `offsets`.
    pub fn cover(&self, offsets: &Offsets) {
        self.metrics.checkpoint_time.set(now_seconds());
        lock(&self.covered).clone_from(offsets);
    }

    /// The log is closed: it holds exactly what is before the covered offsets.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// True once the log was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Offsets covered by the checkpoint on the disk.
    pub fn covered(&self) -> Offsets {
        lock(&self.covered).clone()
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

/// A thread that died with the lock held has left whole values behind: each is replaced at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stay_until_they_are_solved() {
        let state = State::new();
        state.problem("kafka", "refused");
        state.problem("kafka", "timed out");
        state.problem("log", "full");
        assert_eq!(state.problems()["kafka"], "timed out");
        state.solved("kafka");
        state.solved("kafka");
        assert_eq!(state.problems().into_iter().collect::<Vec<_>>(), [("log".into(), "full".into())]);
    }
}
