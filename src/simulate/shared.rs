//! State that the threads of a run share: the plan, the next request, and the progress.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;
use crate::simulate::client::Target;
use crate::simulate::journal::Journal;
use crate::simulate::schedule::Phase;
use crate::simulate::workload::Workload;

/// Plan of a run.
pub struct Plan {
    /// Threads, each with one connection.
    pub threads: u32,
    /// Consecutive phases; only the last one is measured.
    pub phases: Vec<Phase>,
    /// Most retries of a request whose response is retryable.
    pub retries: u32,
    /// Generates the request bodies.
    pub workload: Workload,
    /// Where the requests go; at least one.
    pub targets: Vec<Target>,
}

/// State shared by all threads.
pub struct Shared<'a> {
    /// The plan of the run.
    pub plan: &'a Plan,
    /// Ends the run early.
    pub shutdown: &'a Shutdown,
    /// Receives the outcomes, if they are recorded or verified.
    pub journal: Option<&'a Journal>,
    /// Completed requests.
    pub done: AtomicU64,
    /// Completed requests that were not entirely acknowledged.
    pub failed: AtomicU64,
    /// Number of the next request of the run.
    pub next: AtomicU64,
    /// Tracks the longest gap between acknowledgements.
    pub gap: Gap,
    /// Start of each phase, set when it begins.
    pub starts: Vec<OnceLock<PhaseStart>>,
}

impl<'a> Shared<'a> {
    /// Creates the state before the first request.
    pub fn new(plan: &'a Plan, shutdown: &'a Shutdown, journal: Option<&'a Journal>) -> Self {
        Self {
            plan,
            shutdown,
            journal,
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            next: AtomicU64::new(0),
            gap: Gap::new(Instant::now()),
            starts: plan.phases.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Passes the progress of `phase` to `observe`, if the phase has begun.
    pub fn look(&self, phase: usize, observe: &mut impl FnMut(Sight)) {
        if let Some(start) = self.starts[phase].get() {
            observe(Sight {
                phase,
                age: start.at.elapsed(),
                done: self.done.load(Ordering::Relaxed),
                failed: self.failed.load(Ordering::Relaxed),
            });
        }
    }
}

/// Start of a phase.
#[derive(Clone, Copy, Debug)]
pub struct PhaseStart {
    /// Time when the phase began.
    pub at: Instant,
    /// Number of its first request. Earlier phases skip some numbers at their end.
    pub first: u64,
}

/// Tracks the longest time without an acknowledgement over all threads.
pub struct Gap {
    origin: Instant,
    last_micros: AtomicU64,
    longest_micros: AtomicU64,
}

impl Gap {
    fn new(origin: Instant) -> Self {
        Self { origin, last_micros: AtomicU64::new(0), longest_micros: AtomicU64::new(0) }
    }

    /// Notes an acknowledgement at `now`.
    pub fn acknowledged(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.origin).as_micros() as u64;
        let last = self.last_micros.fetch_max(micros, Ordering::Relaxed);
        let gap = micros.saturating_sub(last);
        if gap > self.longest_micros.load(Ordering::Relaxed) {
            self.longest_micros.fetch_max(gap, Ordering::Relaxed);
        }
    }

    /// Discards the gaps so far and starts at `now`.
    pub fn restart(&self, now: Instant) {
        self.acknowledged(now);
        self.longest_micros.store(0, Ordering::Relaxed);
    }

    /// The longest gap of a run that ended at `end`.
    pub fn longest(&self, end: Instant) -> Duration {
        self.acknowledged(end);
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }
}

/// Progress of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Index of the current phase.
    pub phase: usize,
    /// Time since the phase began.
    pub age: Duration,
    /// Completed requests of the whole run.
    pub done: u64,
    /// Completed requests of the whole run that were not entirely acknowledged.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_runs_from_the_start_to_the_end() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let gap = Gap::new(start);
        gap.acknowledged(at(500));
        gap.restart(at(600));
        for millis in [700, 690, 950, 1000] {
            gap.acknowledged(at(millis));
        }
        assert_eq!(gap.longest(at(1100)), Duration::from_millis(250));
        assert_eq!(gap.longest(at(2000)), Duration::from_millis(900));
    }
}
