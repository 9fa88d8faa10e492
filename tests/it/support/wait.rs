//! Waiting for a condition with a deadline, instead of sleeping for a time.

use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Seconds, spelled short because every test says some.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Polls until `value` gives one; panics with `what` when `limit` has passed.
#[track_caller]
pub fn eventually_some<T>(limit: Duration, what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Polls until `condition` holds; panics with `what` when `limit` has passed.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(limit, what, || condition().then_some(()));
}
