//! Copies every event of the topic to the log file exactly once: starts, connects and stops the threads.
//!
//! ```text
//! reader (Kafka) ──pages──▶ writer (destination) ──covered offsets──▶ reader ──▶ group
//! ```
//!
//! Two threads share a small channel, so that fetching and writing overlap. Start with `reader`, `writer` and
//! `destination`, then `log::event_log` (the order of writes), `log::checkpoint` and `log::recovery`.

mod ages;
mod claim;
mod destination;
mod discover;
mod failure;
mod hangup;
#[cfg(feature = "lake")]
mod lake;
mod log;
mod lost;
mod mark;
mod metrics;
mod offset_reset;
mod open;
mod ownership;
mod pages;
mod peak;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
mod reader;
mod recall;
#[cfg(feature = "s3")]
mod s3;
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
use destination::{Destination, Opener};
use hangup::Hangups;
#[cfg(feature = "lake")]
use log::forward::Forward;
use log::forward::NewPlace;
use log::metrics::LogMetrics;
use log::open::LogOpener;
use open::Opened;
use progress::Offsets;
use reader::{Batch, Reader};
use state::State;
use writer::Writer;

/// Describes every metric of the consumer, for the documentation.
pub fn metric_descriptions() -> Vec<Description> {
    let metrics = metrics::ConsumerMetrics::default();
    LogMetrics::new(&metrics);
    #[cfg(feature = "lake")]
    lake::LakeMetrics::new(&metrics.registry);
    #[cfg(feature = "postgres")]
    postgres::metrics::PgMetrics::new(&metrics);
    metrics.registry.descriptions()
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
    source: S,
) -> Result<(), Failure> {
    let state = Arc::new(State::starting());
    #[cfg(feature = "postgres")]
    if config.destination.is_set() {
        let opener = postgres::open::PgOpener::new(config, &state.metrics)?;
        let place = opener.place().to_owned();
        return run_into(config, shutdown, source, (opener, &place), &state);
    }
    let log = LogOpener::new(config, &state.metrics, lake(config, &state)?)?;
    let place = config.reading.shard.log_file(&config.log.file).display().to_string();
    run_into(config, shutdown, source, (log, &place), &state)
}

/// The same for one destination, which is shown as `place`.
fn run_into<S: Source + 'static>(
    config: &ConsumerConfig,
    shutdown: &Shutdown,
    mut source: S,
    (mut opener, place): (impl Opener, &str),
    state: &Arc<State>,
) -> Result<(), Failure> {
    let hangups = Hangups::listen().map_err(cannot_start)?;
    let _status = status_page(config, state)?;
    let opened = open::open(config, &mut opener, &mut source, state, shutdown)?;
    let Some(opened) = opened else { return Ok(()) };
    ::log::info!(
        "logging topic={} shard={} to {place}, starting at {}",
        config.kafka.topic,
        config.reading.shard,
        in_words(&opened.destination.covered().offsets)
    );
    say_what_repeats(config);
    copy(config, shutdown, source, opened, &hangups, state)
}

/// Where closed logs go.
#[cfg(feature = "lake")]
fn lake(config: &ConsumerConfig, state: &Arc<State>) -> Result<Option<NewPlace>, Failure> {
    let log = config.reading.shard.log_file(&config.log.file);
    let lake = lake::Lake::new(&config.lake, &log, state, remote(config)?)?;
    Ok(lake.map(|lake| Box::new(move || Box::new(lake.clone()) as Box<dyn Forward>) as NewPlace))
}

/// Where the files of the lake go.
#[cfg(feature = "s3")]
fn remote(config: &ConsumerConfig) -> Result<Option<Arc<dyn lake::remote::Remote>>, Failure> {
    Ok(s3::Bucket::new(&config.lake.s3)?.map(|bucket| Arc::new(bucket) as _))
}

/// Settings that need another build are refused before.
#[cfg(all(feature = "lake", not(feature = "s3")))]
fn remote(_: &ConsumerConfig) -> Result<Option<Arc<dyn lake::remote::Remote>>, Failure> {
    Ok(None)
}

/// Settings that need another build are refused before.
#[cfg(not(feature = "lake"))]
fn lake(_: &ConsumerConfig, _: &Arc<State>) -> Result<Option<NewPlace>, Failure> {
    Ok(None)
}

fn say_what_repeats(config: &ConsumerConfig) {
    let Some(field) = config.ids.field() else { return };
    if config.destination.is_set() {
        return ::log::info!("dropping events whose {field} is in the table");
    }
    ::log::info!(
        "dropping events whose {field} was logged within DEDUP_WINDOW={}, as long as there are not more than \
         DEDUP_MAX_IDS={}",
        config.ids.window,
        config.ids.max_ids
    );
    if config.reading.shard.count > 1 {
        ::log::warn!(
            "CONSUMER_SHARD={}: a repeated event is found only if it is read by the same consumer; set \
             KAFKA_KEY_FIELD={field} for the producers, so that it goes to the same partition",
            config.reading.shard
        );
    }
}

/// Runs the threads, each of which ends once the one before it has dropped its channel: reader, then writer.
fn copy<S: Source + 'static>(
    config: &ConsumerConfig,
    shutdown: &Shutdown,
    source: S,
    Opened { destination, claim, unread }: Opened<impl Destination>,
    hangups: &Hangups,
    state: &Arc<State>,
) -> Result<(), Failure> {
    let (pages, batches) = bounded::<Batch>(PAGES_MAX);
    let reader = Reader::new(
        (source, claim),
        (destination.covered(), &unread),
        &config.reading,
        pages,
        state.clone(),
        shutdown.clone(),
    );
    let echo = Echo::start(config.event_echo, "📥 Received event:").map_err(cannot_start)?;
    let inputs = (batches, hangups.messages.clone());
    let id_field = config.ids.field().map(str::to_owned);
    let writer = Writer::new(destination, id_field, echo, inputs, state.clone(), shutdown.clone());
    let writer = spawn("writer", move || writer.run()).map_err(cannot_start)?;
    let reader = spawn("reader", move || reader.run()).map_err(cannot_start)?;
    let read = join(reader);
    let written = join(writer);
    let ((source, claim), result) = read?;
    let written = written?;
    // Otherwise what the log ends with may be in doubt, so another log must not simply continue after it.
    let in_order = state.is_closed() && shutdown.requested() && written.is_ok() && result.is_ok();
    commit_the_rest(source, claim, state, in_order);
    written?;
    result?;
    if shutdown.requested() { Ok(()) } else { Err(Failure::failed("the writer thread ended unexpectedly")) }
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::failed(format!("cannot start: {error}"))
}

fn status_page(config: &ConsumerConfig, state: &Arc<State>) -> Result<Option<StatusPage>, Failure> {
    let Some(addr) = config.metrics_addr else { return Ok(None) };
    let listener = TcpListener::bind(addr).map_err(|error| {
        Failure::bad_config(format!("METRICS_ADDR={addr}: {error}; choose a free address, or `off`"))
    })?;
    let state = state.clone();
    let page = StatusPage::start(listener, move |path| pages::page(path, &state)).map_err(cannot_start)?;
    ::log::info!("listening on {}", page.addr());
    Ok(Some(page))
}

/// The group learns where the log ends, and that another log may go on there. Our own next start does not need it,
/// so a failure is only logged, after some tries.
fn commit_the_rest(mut source: impl Source, mut claim: Claim, state: &State, in_order: bool) {
    let covered = state.covered();
    let give_up = Instant::now() + LAST_COMMIT;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let error = match claim.stop(&mut source, &covered, in_order) {
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
