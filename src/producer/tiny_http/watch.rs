//! Checks every second, with a real request to our own port, that the accept loop is alive.
//!
//! This has its own thread because each check may take seconds when the loop hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::producer::tiny_http::keep_warm::KeepWarm;
use crate::producer::tiny_http::listener::Listener;

/// How often to check for a suspected failure.
const TICK: Duration = Duration::from_millis(500);

/// How often the accept loop has to prove that it is alive.
const INTERVAL: Duration = Duration::from_secs(1);

/// Failed checks in a row after which the server is rebuilt.
const MAX_FAILURES: u32 = 3;

/// State of the watching thread.
pub struct Watch {
    pub listener: Arc<Listener>,
    pub keep_warm: Arc<KeepWarm>,
}

impl Watch {
    /// Runs until `stop` disconnects. Calls `dead` with the generation whose accept loop is dead.
    pub fn run(self, stop: &Receiver<()>, mut dead: impl FnMut(u64)) {
        let (mut watched, mut failures) = (Instant::now(), 0);
        while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let generation = self.listener.generation();
            let now = Instant::now();
            if self.listener.take_suspicion() {
                failures = MAX_FAILURES;
            } else if now.saturating_duration_since(watched) >= INTERVAL {
                watched = now;
                failures = if self.keep_warm.is_answered() { 0 } else { failures + 1 };
            }
            if failures >= MAX_FAILURES {
                failures = 0;
                dead(generation);
            }
        }
    }
}
