//! Accepts events over HTTP, publishes them to Kafka, and answers `POST /register_event` with 200 once the
//! broker has acknowledged.
//!
//! ```text
//! front ─▶ worker ─▶ handler ─▶ queue ─▶ publisher ─▶ Sink
//!                       ▲                    │
//!                       └──── replier ◀──────┘ settled jobs
//! ```
//!
//! It starts the front, queue, publisher, repliers, body readers, keep-warm connections, workers and guard,
//! in this order. To stop, it refuses requests and stops accepting connections, waits until all accepted
//! events are settled, ends the connections, and then ends each thread after those that feed it.

mod answer;
#[doc(hidden)] // for benches/micro
pub mod batch;
mod handler;
mod health;
mod intake;
#[doc(hidden)] // for benches/micro
pub mod job;
mod metrics;
mod pages;
mod publisher;
mod queue;
mod rate;
mod routes;
mod settle;
mod threads;
mod tiny_http;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, select};

use crate::broker::{BrokerError, Sink};
use crate::config::ProducerConfig;
use crate::linux;
use crate::metrics::Description;
use crate::shutdown::Shutdown;
use crate::sockets;
use crate::thread_limit;

use queue::Usage;
use threads::Threads;

/// Every metric of the producer, for the documentation.
pub fn metric_descriptions() -> Vec<Description> {
    metrics::ProducerMetrics::new().common.descriptions()
}

/// Exit code when too many connection threads are lost and the process has to be replaced.
pub const EXIT_LEAK_BUDGET: u8 = 70;

/// How often a drain checks whether everything is settled.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// A running producer.
pub struct Producer {
    threads: Threads,
    shutdown_timeout: Duration,
}

/// Why the producer stops.
#[derive(Debug)]
pub enum Stop {
    /// Shutdown was requested.
    Requested,
    /// tiny_http lost this many threads, which is too many.
    LeakBudget(usize),
    /// The publisher ended on its own.
    PublisherEnded(BrokerError),
    /// The listener can no longer be used.
    ListenerLost(io::Error),
}

/// Counts the events that were accepted but neither acknowledged nor refused yet.
#[derive(Clone, Debug)]
pub struct Unsent(Arc<Usage>);

impl Unsent {
    /// The current number.
    pub fn events(&self) -> usize {
        self.0.events()
    }
}

impl Producer {
    /// Starts to listen, and publishes to `sink`.
    ///
    /// # Errors
    /// The address cannot be bound, or the system does not allow this process the threads that it needs.
    pub fn start(config: &ProducerConfig, sink: Box<dyn Sink>) -> io::Result<Self> {
        check_limits(config)?;
        sockets::prepare();
        if let Err(error) = linux::wake_patiently() {
            log::info!("cannot change the scheduling policy; throughput under load is a bit lower: {error}");
        }
        let threads = Threads::start(config, sink)?;
        log::info!("listening on {}", threads.bound_addr());
        Ok(Self { threads, shutdown_timeout: Duration::from_secs(config.shutdown_timeout_secs) })
    }

    /// Events that would be lost if the process ended now.
    pub fn unsent(&self) -> Unsent {
        Unsent(self.threads.handler.queue.usage().clone())
    }

    /// Serves until `shutdown` begins or a fault cannot be repaired, then drains. Returns the exit code.
    pub fn run(self, shutdown: &Shutdown) -> u8 {
        let stop = self.wait(shutdown.closed());
        match &stop {
            Stop::Requested => log::info!("draining"),
            Stop::LeakBudget(lost) => {
                log::error!(
                    "{lost} connection threads are lost, more than HTTP_LEAK_BUDGET allows; draining, \
                     then exiting; restart the producer"
                );
            }
            Stop::PublisherEnded(error) => log::error!("cannot publish: {error}"),
            Stop::ListenerLost(error) => log::error!("cannot listen any more: {error}; restart the producer"),
        }
        let unsent = self.drain();
        match (stop, unsent) {
            (Stop::PublisherEnded(BrokerError::Unsupported(_) | BrokerError::Refused(_)), _) => {
                crate::config::EXIT_BAD_CONFIG
            }
            (Stop::LeakBudget(_), 0) => EXIT_LEAK_BUDGET,
            (Stop::Requested, 0) => {
                log::info!("drained");
                0
            }
            (_, unsent) => {
                if unsent > 0 {
                    log::error!(
                        "{unsent} events were not acknowledged; their clients got 503 or no answer and may \
                         retry"
                    );
                }
                1
            }
        }
    }

    fn wait(&self, closed: &Receiver<()>) -> Stop {
        select! {
            recv(closed) -> _ => Stop::Requested,
            recv(self.threads.stops()) -> stop => stop.unwrap_or(Stop::Requested),
        }
    }

    /// Refuses new requests, waits for accepted events, and ends all threads. Returns how many accepted
    /// events were not acknowledged: those still pending, and those that were answered as not acknowledged
    /// meanwhile.
    fn drain(self) -> usize {
        let deadline = Instant::now() + self.shutdown_timeout;
        let handler = self.threads.handler.clone();
        let usage = handler.queue.usage();
        let failed_before = handler.metrics.unacknowledged();
        self.threads.refuse_new();
        while usage.events() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_STEP);
        }
        if usage.events() == 0 {
            self.threads.join(deadline);
        }
        usage.events() + (handler.metrics.unacknowledged() - failed_before) as usize
    }
}

/// Warns about system limits that are lower than what our own limits can need.
///
/// # Errors
/// The system allows so few threads that no client could be served.
fn check_limits(config: &ProducerConfig) -> io::Result<()> {
    let connections = config.http.max_connections;
    match linux::raise_open_files_limit() {
        Ok(limit) if limit < u64::from(connections) * 2 + 100 => log::warn!(
            "only {limit} open files allowed, but HTTP_MAX_CONNECTIONS={connections} needs two per \
             connection; raise `ulimit -n`"
        ),
        Ok(_) => {}
        Err(error) => log::warn!("cannot raise the limit of open files: {error}"),
    }
    let (least, most) = threads::count(config);
    let Some(room) = thread_limit::tightest().filter(|room| room.free < most) else { return Ok(()) };
    if room.free < least {
        return Err(io::Error::other(format!(
            "the producer needs {least} threads, but {} allows only {} more; raise that limit",
            room.limit, room.free
        )));
    }
    log::warn!(
        "{} allows only {} more threads, but HTTP_MAX_CONNECTIONS={connections} and the other limits can \
         need {most}, and connections beyond the limit fail; raise it or lower HTTP_MAX_CONNECTIONS",
        room.limit,
        room.free
    );
    Ok(())
}
