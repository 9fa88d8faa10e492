//! Runs the load threads through the phases of a plan and adds up their counts.
//!
//! The clock of a phase starts when all threads are ready. Each thread has its own client and counts; they
//! share the counter that numbers the requests.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::linux;
use crate::shutdown::Shutdown;
use crate::simulate::journal::Journal;
use crate::simulate::shared::{PhaseStart, Plan, Shared, Sight};
use crate::simulate::tally::Tally;
use crate::simulate::worker::Worker;

/// Time between two calls of the observer.
const TICK: Duration = Duration::from_millis(100);

/// Outcome of a run.
pub struct Outcome {
    /// Counts of the measured phase.
    pub measured: Tally,
    /// Counts of the phases before it.
    pub warmup: Tally,
    /// Requests on the schedule of an open loop that were never sent because the time was up.
    pub unsent: u64,
    /// Time from the start of the measured phase to the end of its last request.
    pub elapsed: Duration,
    /// CPU time of this process in the measured phase.
    pub cpu: Duration,
    /// Longest time without an acknowledgement in the measured phase.
    pub longest_gap: Duration,
}

/// Runs `plan` and calls `observe` every 100 ms with the progress.
///
/// # Errors
/// Text for the user: a thread could not be started, or panicked.
pub fn run(
    plan: &Plan,
    shutdown: &Shutdown,
    journal: Option<&Journal>,
    mut observe: impl FnMut(Sight),
) -> Result<Outcome, String> {
    let shared = Shared::new(plan, shutdown, journal);
    let (open, gates): (Vec<Sender<()>>, Vec<Receiver<()>>) = plan.phases.iter().map(|_| bounded(0)).unzip();
    thread::scope(|scope| {
        let (ready, arrivals) = bounded::<()>(plan.threads as usize);
        let mut threads = Vec::with_capacity(plan.threads as usize);
        for number in 0..plan.threads {
            let (shared, gates, ready) = (&shared, &gates, ready.clone());
            let started = thread::Builder::new()
                .name(format!("sim-{number}"))
                .spawn_scoped(scope, move || run_thread(shared, number, gates, &ready));
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Threads end when their gate opens before the phase has a start time.
                    drop(open);
                    return Err(format!(
                        "cannot start thread {number} of {}: {error}; use fewer --threads",
                        plan.threads
                    ));
                }
            }
        }
        drop(ready);
        let died = || threads.iter().any(|thread| thread.is_finished());
        let cpu_before = pass_gates(&shared, open, &arrivals, &died, &mut observe);
        let cpu = linux::cpu_time().saturating_sub(cpu_before);
        let counts = threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked"));
        Ok(sum_up(&shared, counts.collect::<Result<_, _>>()?, cpu))
    })
}

/// Opens the gate of each phase when all threads are ready, then waits until they have ended. Returns the CPU
/// time that this process had used when the last phase started.
fn pass_gates(
    shared: &Shared,
    open: Vec<Sender<()>>,
    arrivals: &Receiver<()>,
    died: &dyn Fn() -> bool,
    observe: &mut impl FnMut(Sight),
) -> Duration {
    let mut cpu_before = linux::cpu_time();
    for (phase, gate) in open.into_iter().enumerate() {
        let mut there = 0;
        while there < shared.plan.threads {
            match arrivals.recv_timeout(TICK) {
                Ok(()) => there += 1,
                Err(RecvTimeoutError::Timeout) if !died() => shared.look(phase.saturating_sub(1), observe),
                // Returning drops the gates, which ends the remaining threads.
                Err(_) => return cpu_before,
            }
        }
        cpu_before = linux::cpu_time();
        let at = Instant::now();
        shared.gap.restart(at);
        let first = shared.next.load(Ordering::SeqCst);
        let _ = shared.starts[phase].set(PhaseStart { at, first });
        drop(gate);
    }
    while let Err(RecvTimeoutError::Timeout) = arrivals.recv_timeout(TICK) {
        shared.look(shared.plan.phases.len() - 1, observe);
    }
    cpu_before
}

fn run_thread(shared: &Shared, number: u32, gates: &[Receiver<()>], ready: &Sender<()>) -> Vec<Tally> {
    let mut worker = Worker::new(shared, number);
    let mut tallies = Vec::with_capacity(gates.len());
    for (phase, gate) in gates.iter().enumerate() {
        if ready.send(()).is_err() {
            break;
        }
        let _ = gate.recv();
        let Some(start) = shared.starts[phase].get() else { break };
        tallies.push(worker.run_phase(&shared.plan.phases[phase], *start));
    }
    tallies
}

fn sum_up(shared: &Shared, counts: Vec<Vec<Tally>>, cpu: Duration) -> Outcome {
    let (mut warmup, mut measured) = (Tally::default(), Tally::default());
    let last = shared.plan.phases.len() - 1;
    for (phase, tally) in counts.iter().flat_map(|tallies| tallies.iter().enumerate()) {
        if phase == last { &mut measured } else { &mut warmup }.add(tally);
    }
    let start = shared.starts[last].get().map(|start| start.at);
    let end = measured.finished.or(start);
    let elapsed = end.zip(start).map_or(Duration::ZERO, |(end, start)| end.saturating_duration_since(start));
    let longest_gap = end.map_or(Duration::ZERO, |end| shared.gap.longest(end));
    // Requests that a signal prevented do not count as unsent.
    let scheduled = shared.plan.phases[last].scheduled().filter(|_| !shared.shutdown.requested());
    let unsent = scheduled.unwrap_or(0).saturating_sub(measured.requests);
    Outcome { measured, warmup, unsent, elapsed, cpu, longest_gap }
}
