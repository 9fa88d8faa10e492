//! Copies every event of the topic to the log file exactly once: starts, connects and stops the threads.
//!
//! ```text
//! reader (Kafka) ──pages──▶ writer (files) ──covered offsets──▶ reader ──▶ group
//! ```
//!
//! Two threads share a small channel, so that fetching and writing overlap. Start with `reader` and `writer`,
//! then `event_log` (the order of writes), `checkpoint` and `recovery`.

mod ages;
mod claim;
mod discover;
mod failure;
mod log;
mod lost;
mod mark;
mod metrics;
mod open;
mod ownership;
mod pages;
mod reader;
mod start;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;

use crate::broker::Source;
use crate::config::ConsumerConfig;
use crate::echo::Echo;
use crate::metrics::Description;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::status_page::StatusPage;
use crate::thread::spawn;

pub use failure::{EXIT_UNDECIDED, Failure};
pub use log::lines;

use claim::Claim;
use log::archiver::Archive;
use log::checkpoint::Offsets;
use log::hangup::Hangups;
use log::lock::LogLock;
use log::paths::Paths;
use log::rotation::Rotation;
use log::storage::parent;
use open::Started;
use reader::{Batch, Reader};
use state::State;
use writer::{Parts, Writer};

/// Describes every metric of the consumer, for the documentation.
pub fn metric_descriptions() -> Vec<Description> {
    metrics::ConsumerMetrics::new().registry.descriptions()
}

/// Fetches queued for the writer: one keeps both threads busy, and each can hold megabytes.
const PAGES_MAX: usize = 1;

/// How long the last commit is tried again.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// Runs until `shutdown` begins, then finishes the current batch and covers everything written with a
/// checkpoint.
///
/// # Errors
/// Anything that needs a human: the lock is held, the checkpoint does not match the files, offsets are gone,
/// or the broker cannot serve us. Unreachable brokers and failing disks are not errors: the consumer waits
/// for them.
pub fn run<S: Source + 'static>(
    config: &ConsumerConfig,
    shutdown: &Shutdown,
    mut source: S,
) -> Result<(), Failure> {
    let paths = Paths::of(&config.reading.shard.log_file(&config.log.file));
    std::fs::create_dir_all(parent(&paths.log)).map_err(|error| {
        Failure::failed(format!("cannot create {}: {error}", parent(&paths.log).display()))
    })?;
    paths.check().map_err(Failure::bad_config)?;
    let mut lock = LogLock::take(&paths.lock).map_err(Failure::failed)?;
    let hangups = Hangups::listen().map_err(cannot_start)?;
    let state = Arc::new(State::default());
    let _status = status_page(config, &state)?;
    let opened = open::open_log(config, (&paths, &mut lock), &mut source, &state, shutdown)?;
    let Some(Started { log, claim, unread }) = opened else { return Ok(()) };
    ::log::info!(
        "logging topic={} shard={} to {}, starting at {}",
        config.kafka.topic,
        config.reading.shard,
        paths.log.display(),
        in_words(log.offsets())
    );

    let (pages, batches) = bounded::<Batch>(PAGES_MAX);
    let (closed_logs, to_archive) = bounded(1);
    let archive = Archive {
        log: paths.log.clone(),
        keep: config.log.rotate_keep as usize,
        gzip: config.log.rotate_gzip,
    };
    let reader = Reader::new(
        (source, claim),
        (&config.kafka.topic, log.topic_id()),
        &config.reading,
        (log.offsets(), log.trails(), &unread),
        pages,
        state.clone(),
        shutdown.clone(),
    );
    let writer = Writer::new(Parts {
        log,
        lock,
        rotation: Rotation { max_bytes: config.log.rotate_bytes, daily: config.log.rotate_daily },
        fsync: config.log.fsync,
        echo: Echo::start(config.event_echo, "📥 Received event:").map_err(cannot_start)?,
        topic: config.kafka.topic.clone(),
        pages: batches,
        hangups: hangups.messages.clone(),
        closed_logs,
        state: state.clone(),
        shutdown: shutdown.clone(),
    });
    // Each thread ends once the one before it has dropped its channel: reader, writer, archiver.
    let archiver = spawn("archiver", move || archive.run(&to_archive)).map_err(cannot_start)?;
    let writer = spawn("writer", move || writer.run()).map_err(cannot_start)?;
    let reader = spawn("reader", move || reader.run()).map_err(cannot_start)?;
    let read = join(reader);
    let written = join(writer);
    join(archiver)?;
    let ((source, claim), result) = read?;
    written?;
    commit_the_rest(source, claim, &state);
    result?;
    if shutdown.requested() { Ok(()) } else { Err(Failure::failed("the writer thread ended unexpectedly")) }
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::failed(format!("cannot start: {error}"))
}

fn status_page(config: &ConsumerConfig, state: &Arc<State>) -> Result<Option<StatusPage>, Failure> {
    let Some(addr) = config.metrics_addr.0 else { return Ok(None) };
    let listener = TcpListener::bind(addr).map_err(|error| {
        Failure::bad_config(format!("METRICS_ADDR={addr}: {error}; choose a free address, or `off`"))
    })?;
    let state = state.clone();
    let page = StatusPage::start(listener, move |path| pages::page(path, &state)).map_err(cannot_start)?;
    ::log::info!("listening on {}", page.addr());
    Ok(Some(page))
}

/// The group learns where the log ends, and that another log may go on there. Our own next start does not need it,
/// so a failure is only told, after some tries.
fn commit_the_rest(mut source: impl Source, mut claim: Claim, state: &State) {
    let covered = state.covered();
    let give_up = Instant::now() + LAST_COMMIT;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let error = match claim.stop(&mut source, &covered, state.is_closed()) {
            Ok(()) => return ::log::info!("stopped at {}", in_words(&covered)),
            Err(error) => error,
        };
        let wait = backoff.next_wait(fastrand::f64());
        if !error.may_pass() || Instant::now() + wait > give_up {
            return ::log::warn!(
                "stopped, but the final commit failed; start and stop this consumer once more before another log \
                 takes over: {error}"
            );
        }
        std::thread::sleep(wait);
    }
}

fn in_words(offsets: &Offsets) -> String {
    let words: Vec<String> =
        offsets.iter().map(|(partition, offset)| format!("partition {partition} offset {offset}")).collect();
    if words.is_empty() { "no partitions".into() } else { words.join(", ") }
}

fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    thread
        .join()
        .map_err(|_| Failure::failed(format!("thread {name} panicked; nothing is lost, start again")))
}
