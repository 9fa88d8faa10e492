//! Proves every second, with a real request to our own port, that the accept loop lives.
//!
//! It has a thread of its own, because each proof may take seconds when the loop is sick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::front::Front;
use super::plugs::Plugs;

/// How often a suspicion is looked at.
const TICK: Duration = Duration::from_millis(500);

/// How often the accept loop has to prove that it lives.
const INTERVAL: Duration = Duration::from_secs(1);

/// Failed proofs in a row after which the server is rebuilt.
const MAX_FAILURES: u32 = 3;

/// State of the watching thread.
pub struct Watch {
    /// What is watched.
    pub front: Arc<Front>,
    /// Who asks.
    pub plugs: Arc<Plugs>,
}

impl Watch {
    /// Runs until `stop` disconnects; `dead` is told the generation whose accept loop is dead.
    pub fn run(self, stop: &Receiver<()>, mut dead: impl FnMut(u64)) {
        let (mut watched, mut failures) = (Instant::now(), 0);
        while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let generation = self.front.generation();
            let now = Instant::now();
            if self.front.take_suspicion() {
                failures = MAX_FAILURES;
            } else if now.saturating_duration_since(watched) >= INTERVAL {
                watched = now;
                failures = if self.plugs.watch() { 0 } else { failures + 1 };
            }
            if failures >= MAX_FAILURES {
                failures = 0;
                dead(generation);
            }
        }
    }
}
