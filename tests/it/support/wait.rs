//! Waiting for a condition with a deadline, instead of sleeping for a time.

use std::thread;
use std::time::Duration;

use crate::support::control::Watch;

const POLL: Duration = Duration::from_millis(10);

/// Seconds, spelled short because every test says some.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Polls until `value` gives one; panics with `what` when `limit` has passed, judged beside the control.
#[track_caller]
pub fn eventually_some<T>(limit: Duration, what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let watch = Watch::start();
    loop {
        if let Some(value) = value() {
            return value;
        }
        watch.assert_within(limit, what);
        thread::sleep(POLL);
    }
}

/// Polls until `condition` holds; panics with `what` when `limit` has passed, judged beside the control.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(limit, what, || condition().then_some(()));
}

/// Runs `call` and asserts that it kept `limit`, judged beside the control.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, call: impl FnOnce() -> T) -> T {
    let watch = Watch::start();
    let value = call();
    watch.assert_within(limit, what);
    value
}
