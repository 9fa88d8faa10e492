//! Accepts events over HTTP, publishes them to Kafka, and answers `POST /register_event` with 200 once the
//! broker has acknowledged.
//!
//! ```text
//! front ─▶ handler ─▶ queue ─▶ publisher ─▶ Sink
//!             ▲                    │
//!             └──── replier ◀──────┘ settled jobs
//! ```
//!
//! A front parses HTTP and passes on requests; there are two, in `tiny_http` and `edge`. To stop, the producer refuses requests
//! and connections, waits until all accepted events are settled, ends the connections, and then ends each thread
//! after those that feed it.

mod access_metrics;
mod additions;
mod admission;
mod admitted;
mod answer;
#[doc(hidden)] // for benches/micro
pub mod batch;
mod bodies;
mod clock;
mod decoding;
#[cfg(feature = "edge")]
mod edge;
mod front;
mod gate;
mod grouping;
mod handler;
mod head;
mod health;
mod ids;
mod intake;
#[doc(hidden)] // for benches/micro
pub mod job;
mod kafka;
mod keys_watch;
mod media;
mod metrics;
mod operators;
mod pages;
mod publisher;
mod queue;
mod rate;
mod receipts;
mod record_headers;
mod routes;
mod status;
mod stop;
mod threads;
mod ticket;
mod tiny_http;
mod trace;
#[cfg(feature = "edge")]
mod wake;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, select};

use crate::broker::Sink;
use crate::config::ProducerConfig;
use crate::linux;
use crate::metrics::Description;
use crate::shutdown::Shutdown;
use crate::sockets;
use crate::thread_limit;

use queue::Usage;
use status::{ErrorTag, Status};
use threads::Threads;

#[cfg(fuzzing)]
pub use edge::fuzzed;
pub use stop::{EXIT_LEAK_BUDGET, Stop};

/// Every metric of the producer, for the documentation.
pub fn metric_descriptions() -> Vec<Description> {
    metrics::ProducerMetrics::new("tiny_http").common.descriptions()
}

/// Status, error tag and `retryable` of every error answer, for the documentation.
pub fn error_answers() -> Vec<(u16, &'static str, bool)> {
    let row = |tag: &ErrorTag| (tag.status().code(), tag.as_str(), tag.is_retryable());
    ErrorTag::ALL.iter().map(row).collect()
}

/// Every status that the producer answers with, for the documentation.
pub fn statuses() -> Vec<u16> {
    Status::ALL.map(Status::code).to_vec()
}

/// Every path, and the methods that it supports as `Allow` lists them, for the documentation.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    routes::PATHS.map(|(path, route)| (path, route.methods())).to_vec()
}

/// How often a drain checks whether everything is settled.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// A running producer.
pub struct Producer {
    threads: Threads,
    shutdown_timeout: Duration,
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
        log::info!("listening on {} with {}", threads.bound_addr(), config.http.server().name());
        Ok(Self { threads, shutdown_timeout: Duration::from_secs(config.shutdown_timeout_secs) })
    }

    /// Events that would be lost if the process ended now.
    pub fn unsent(&self) -> Unsent {
        Unsent(self.threads.handler.queue.usage().clone())
    }

    /// Serves until `shutdown` begins or a fault cannot be repaired, then drains. Returns the exit code.
    pub fn run(self, shutdown: &Shutdown) -> u8 {
        let stop = self.wait(shutdown.closed());
        stop.log();
        let unsent = self.drain();
        match stop.exit_code(unsent) {
            0 => log::info!("drained"),
            _ if unsent > 0 => log::error!(
                "{unsent} events were not acknowledged; their clients got 503 or no answer and may retry"
            ),
            _ => {}
        }
        stop.exit_code(unsent)
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
    let connections = config.http.max_connections();
    let per_connection = config.http.server().descriptors_per_connection();
    match linux::raise_open_files_limit() {
        Ok(limit) if limit < u64::from(connections * per_connection) + 100 => log::warn!(
            "only {limit} open files allowed, but HTTP_MAX_CONNECTIONS={connections} needs {per_connection} \
             per connection; raise `ulimit -n`"
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
