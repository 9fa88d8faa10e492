//! Reads a few events per second from the end of the topic, in a thread of its own.
//!
//! However many events arrive, it fetches at most once per second when there are more than it shows, and then skips
//! to the end. It joins no consumer group and commits nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::{BrokerError, Position, Source};
use crate::live::sample::{Event, Shown, next_offset};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::thread::spawn;

/// How often the end of each partition is looked up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often partitions that were added are looked for.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// First and longest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Most partitions that are read; more would not fit into one fetch.
const MAX_PARTITIONS: usize = 12;

/// What the tail has found, shared with the thread that makes the snapshots.
pub type Found = Arc<Mutex<Shown>>;

/// Starts reading until the shutdown.
///
/// # Errors
/// The thread cannot be started.
pub fn start(source: impl Source + 'static, shutdown: Shutdown) -> io::Result<(Found, JoinHandle<()>)> {
    let found = Found::default();
    let mut tail = Tail {
        source,
        found: found.clone(),
        shutdown,
        next: BTreeMap::new(),
        latest: BTreeMap::new(),
        next_partitions: Instant::now(),
    };
    let thread = spawn("tail", move || tail.run())?;
    Ok((found, thread))
}

struct Tail<S> {
    source: S,
    found: Found,
    shutdown: Shutdown,
    /// Next offset to read, by partition; `None` until its end is known.
    next: BTreeMap<i32, Option<i64>>,
    /// End of each partition when it was last looked up.
    latest: BTreeMap<i32, i64>,
    next_partitions: Instant,
}

impl<S: Source> Tail<S> {
    fn run(&mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        while !self.shutdown.requested() {
            match self.second(Instant::now() + LOOK_EVERY) {
                Ok(()) => {
                    backoff.reset();
                    self.found.lock().set_problem(None);
                }
                Err(error) => {
                    log::debug!("cannot read the topic: {error}");
                    self.found.lock().set_problem(Some(error.to_string()));
                    self.next_partitions = Instant::now();
                    self.wait(backoff.next_wait(fastrand::f64()));
                }
            }
        }
    }

    /// Looks up where the partitions end, and reads until `end`, or until there is enough to show.
    fn second(&mut self, end: Instant) -> Result<(), BrokerError> {
        let now = Instant::now();
        if now >= self.next_partitions {
            let partitions = self.source.partitions()?;
            self.next = partitions.iter().take(MAX_PARTITIONS).map(|id| (*id, self.known(*id))).collect();
            self.next_partitions = now + PARTITIONS_EVERY;
        }
        self.look()?;
        while Instant::now() < end && !self.shutdown.requested() {
            let positions: Vec<Position> = (self.next.iter())
                .filter_map(|(partition, offset)| {
                    Some(Position { partition: *partition, offset: (*offset)? })
                })
                .collect();
            if positions.is_empty() || !self.read(&positions)? {
                self.wait(end.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn known(&self, partition: i32) -> Option<i64> {
        self.next.get(&partition).copied().flatten()
    }

    /// Moves each position to where it should be, and counts what arrived.
    fn look(&mut self) -> Result<(), BrokerError> {
        let partitions: Vec<i32> = self.next.keys().copied().collect();
        let mut arrived = 0;
        for bounds in self.source.bounds(&partitions)?.into_iter().flatten() {
            self.next.insert(bounds.partition, Some(next_offset(self.known(bounds.partition), &bounds)));
            if let Some(before) = self.latest.insert(bounds.partition, bounds.latest) {
                arrived += u64::try_from(bounds.latest - before).unwrap_or_default();
            }
        }
        self.found.lock().saw(arrived);
        Ok(())
    }

    /// Fetches once. Returns false if there are as many events as may be shown.
    fn read(&mut self, positions: &[Position]) -> Result<bool, BrokerError> {
        let mut has_room = true;
        for fetched in self.source.fetch(positions)? {
            // The end of a partition that cannot be read is looked up again.
            let Ok(page) = fetched.page else {
                self.next.insert(fetched.partition, None);
                continue;
            };
            let mut found = self.found.lock();
            for (time, offset, value) in page.timed_records() {
                has_room = has_room && found.add(Event::new(fetched.partition, offset, time, value));
            }
            self.next.insert(fetched.partition, Some(page.next_offset));
        }
        Ok(has_room)
    }

    fn wait(&self, time: Duration) {
        let _ = self.shutdown.closed().recv_timeout(time);
    }
}
