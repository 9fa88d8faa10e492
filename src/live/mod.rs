//! A page that shows the whole pipeline while it runs, in a process of its own that cannot harm it.
//!
//! ```text
//! ask-N (one per program) ─▶ answers ─┐
//!                                     ├─▶ snapshots ─▶ board ─▶ viewer-N ─▶ browser
//! tail (the topic's end) ──▶ events ──┘
//! ```
//!
//! Start with `clock` (a snapshot per second), `view` (what it shows), `board` and `viewer` (how it reaches the
//! browsers), `rules` (who may see it).

mod ask;
mod board;
mod buckets;
mod clock;
mod door;
mod exchange;
mod exposition;
mod history;
mod pace;
mod page;
mod reading;
mod rules;
mod sample;
mod tail;
mod view;
mod viewer;
mod watched;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker;
use crate::config::LiveConfig;
use crate::shutdown::Shutdown;
use crate::thread::join_until;

use ask::Slot;
use board::Board;
use clock::Clock;
use door::Door;
use pace::Pace;
use rules::Rules;
use tail::Found;
use view::View;
use watched::{Role, Watched};

/// Longest wait for the threads that ask and read at the end; they only read, so nothing is lost.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Serves the page until `shutdown` begins.
///
/// # Errors
/// The address is taken, or a thread cannot be started.
pub fn run(config: &LiveConfig, shutdown: &Shutdown) -> io::Result<()> {
    let listener = TcpListener::bind(config.addr).map_err(|error| {
        let text = format!("LIVE_ADDR={}: {error}; choose a free address", config.addr);
        io::Error::new(error.kind(), text)
    })?;
    let (mut threads, pace) = (Vec::new(), Pace::new(Instant::now()));
    let (programs, slots) = watch(config, pace, shutdown, &mut threads)?;
    let found = tail(config, shutdown, &mut threads)?;
    let board = Arc::new(Board::default());
    let view = View::new(programs, found.is_some());
    threads.push(Clock { view, slots, found, board: board.clone() }.start(pace, shutdown.clone())?);
    let door = Door::open(listener, Rules::new(config.names(), config.token()), board.clone())?;
    log::info!("listening on {} as {}", door.addr(), config.url(door.addr()));
    shutdown.wait();
    board.end();
    door.close();
    join_until(threads, Instant::now() + END_LIMIT);
    log::info!("stopped");
    Ok(())
}

/// Starts asking the programs.
fn watch(
    config: &LiveConfig,
    pace: Pace,
    shutdown: &Shutdown,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<(Vec<Watched>, Vec<Slot>)> {
    let (mut programs, mut slots) = (Vec::new(), Vec::new());
    let key = config.key();
    let producers = config.producers.iter().map(|address| (Role::Producer, address, key.as_deref()));
    let consumers = config.consumers.iter().map(|address| (Role::Consumer, address, None));
    for (number, (role, address, key)) in producers.chain(consumers).enumerate() {
        let (slot, thread) = ask::start(format!("ask-{number}"), address, key, pace, shutdown.clone())?;
        programs.push(Watched::new(role, address));
        slots.push(slot);
        threads.push(thread);
    }
    Ok((programs, slots))
}

/// Starts reading the topic, unless events are off.
fn tail(
    config: &LiveConfig,
    shutdown: &Shutdown,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<Option<Found>> {
    if !config.shows_events() {
        return Ok(None);
    }
    let (found, thread) = tail::start(broker::open_source(&config.kafka)?, shutdown.clone())?;
    threads.push(thread);
    Ok(Some(found))
}
