//! What the threads of a run share: the plan, the next request, how far they are. No thread starts or waits here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;
use crate::simulate::client::Target;
use crate::simulate::journal::Journal;
use crate::simulate::schedule::Phase;
use crate::simulate::workload::Workload;

/// What a run does.
pub struct Plan {
    /// Threads, each with one connection.
    pub threads: u32,
    /// Phases in turn; only the last one is measured.
    pub phases: Vec<Phase>,
    /// Further attempts for what the server calls retryable.
    pub retries: u32,
    /// Makes the bodies.
    pub workload: Workload,
    /// Where they go.
    pub target: Target,
}

/// What the threads share.
pub struct Shared<'a> {
    /// What the run does.
    pub plan: &'a Plan,
    /// Told to end early.
    pub shutdown: &'a Shutdown,
    /// Where outcomes go, if anyone wants them.
    pub journal: Option<&'a Journal>,
    /// Requests that are through.
    pub done: AtomicU64,
    /// Those of them that were not wholly acknowledged.
    pub failed: AtomicU64,
    /// The run's next request.
    pub next: AtomicU64,
    /// The gap between acknowledgements.
    pub gap: Gap,
    /// The clock of each phase, once it runs.
    pub starts: Vec<OnceLock<PhaseStart>>,
}

impl<'a> Shared<'a> {
    /// Before the first request.
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

    /// Tells `observe` how far `phase` is, once its clock runs.
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

/// Clock and first request of a phase.
#[derive(Clone, Copy, Debug)]
pub struct PhaseStart {
    /// The phase's zero.
    pub at: Instant,
    /// Number of its first request; earlier phases leave unused numbers behind.
    pub first: u64,
}

/// The longest time without an acknowledgement, seen by all threads.
pub struct Gap {
    origin: Instant,
    last_micros: AtomicU64,
    longest_micros: AtomicU64,
}

impl Gap {
    fn new(origin: Instant) -> Self {
        Self { origin, last_micros: AtomicU64::new(0), longest_micros: AtomicU64::new(0) }
    }

    /// An acknowledgement came at `now`.
    pub fn acknowledged(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.origin).as_micros() as u64;
        let last = self.last_micros.fetch_max(micros, Ordering::Relaxed);
        let gap = micros.saturating_sub(last);
        if gap > self.longest_micros.load(Ordering::Relaxed) {
            self.longest_micros.fetch_max(gap, Ordering::Relaxed);
        }
    }

    /// Begins again at `now`.
    pub fn restart(&self, now: Instant) {
        self.acknowledged(now);
        self.longest_micros.store(0, Ordering::Relaxed);
    }

    /// The longest gap when the run ended at `end`.
    pub fn longest(&self, end: Instant) -> Duration {
        self.acknowledged(end);
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Index of the phase.
    pub phase: usize,
    /// Its age.
    pub age: Duration,
    /// Requests of the whole run that are through.
    pub done: u64,
    /// Those of them that were not wholly acknowledged.
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
