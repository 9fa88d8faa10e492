//! Reads back the events that other logs have, where ours continues after them, so that a repeat of one is recognised.
//!
//! The topic is the source, not the files of the other logs: these may be on another machine, or lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::broker::{BrokerError, Fetched, Page, Position, Source};
use crate::consumer::destination::{Opener, Recalled, Remembered};
use crate::consumer::ownership::Ownership;
use crate::consumer::progress::Offsets;
use crate::consumer::state::now_millis;
use crate::event::one_line;
use crate::shutdown::Shutdown;

/// Offsets that are read at once of each partition, going back from its end.
const STEP: i64 = 20_000;

/// Fetches in a row that bring nothing new before the start is tried again.
const FRUITLESS_MAX: usize = 50;

/// Longest single wait for a quota of the broker.
const THROTTLED_MAX_WAIT: Duration = Duration::from_secs(5);

/// What was found so far.
struct Found<'a> {
    wanted: &'a Remembered,
    shutdown: &'a Shutdown,
    now: i64,
    newest: i64,
    events: Vec<Recalled>,
}

/// Returns the events that other logs have of partitions that ours continues, as far as `opener` has to remember them.
///
/// # Errors
/// A partition cannot be read to its end now, or the shutdown has begun.
pub fn recall(
    opener: &impl Opener,
    source: &mut impl Source,
    decided: &Ownership,
    shutdown: &Shutdown,
) -> Result<Vec<Recalled>, BrokerError> {
    match opener.remembers().filter(|_| !decided.taken_over.is_empty()) {
        Some(remembered) => before(source, &remembered, &decided.taken_over, now_millis(), shutdown),
        None => Ok(Vec::new()),
    }
}

/// Returns the events with an id before the offsets in `ends`, oldest first: all that are within the time of `wanted`,
/// unless there are more than its number. `now` is in milliseconds since the epoch.
fn before(
    source: &mut impl Source,
    wanted: &Remembered,
    ends: &Offsets,
    now: i64,
    shutdown: &Shutdown,
) -> Result<Vec<Recalled>, BrokerError> {
    let mut found = Found { wanted, shutdown, now, newest: i64::MIN, events: Vec::new() };
    let mut left = ranges(source, wanted, ends)?;
    while !left.is_empty() {
        let steps: BTreeMap<i32, (i64, i64)> =
            left.iter().map(|(&partition, &(from, to))| (partition, (from.max(to - STEP), to))).collect();
        let newest = read(source, &steps, &mut found)?;
        left.retain(|partition, (from, to)| {
            *to = steps[partition].0;
            // Records are older the further back they are, apart from clocks that differ.
            let is_old = newest.get(partition).is_some_and(|newest| found.is_too_old(*newest));
            *to > *from && !is_old
        });
    }
    found.keep_the_latest();
    Ok(found.events)
}

/// The offsets that may have to be read: what the topic still has, and no more than the number of ids.
fn ranges(
    source: &mut impl Source,
    wanted: &Remembered,
    ends: &Offsets,
) -> Result<BTreeMap<i32, (i64, i64)>, BrokerError> {
    let partitions: Vec<i32> = ends.keys().copied().collect();
    let most = i64::try_from(wanted.ids).unwrap_or(i64::MAX);
    let mut ranges = BTreeMap::new();
    for bounds in source.bounds(&partitions)? {
        let bounds = bounds?;
        let end = ends[&bounds.partition].min(bounds.latest);
        let from = bounds.earliest.max(end.saturating_sub(most));
        if from < end {
            ranges.insert(bounds.partition, (from, end));
        }
    }
    Ok(ranges)
}

/// Reads each partition from the first to the second offset. Returns the newest time of each.
fn read(
    source: &mut impl Source,
    steps: &BTreeMap<i32, (i64, i64)>,
    found: &mut Found<'_>,
) -> Result<BTreeMap<i32, i64>, BrokerError> {
    let mut next: Offsets = steps.iter().map(|(&partition, &(from, _))| (partition, from)).collect();
    let (mut newest, mut fruitless) = (BTreeMap::new(), 0);
    while !next.is_empty() {
        let positions: Vec<Position> =
            next.iter().map(|(&partition, &offset)| Position { partition, offset }).collect();
        let before = next.clone();
        for Fetched { partition, page } in fetch(source, &positions, found.shutdown)? {
            let (page, (_, end)) = (page?, steps[&partition]);
            if let Some(time) = found.take(&page, before[&partition], end) {
                let latest = newest.entry(partition).or_insert(time);
                *latest = time.max(*latest);
            }
            if page.next_offset >= end {
                next.remove(&partition);
            } else {
                next.insert(partition, page.next_offset.max(before[&partition]));
            }
        }
        fruitless = if next == before { fruitless + 1 } else { 0 };
        if fruitless > FRUITLESS_MAX {
            let partitions: Vec<String> = next.keys().map(i32::to_string).collect();
            let partitions = partitions.join(", ");
            return Err(BrokerError::Retryable(format!(
                "partitions {partitions} do not return the records whose event ids have to be read back"
            )));
        }
    }
    Ok(newest)
}

/// Fetches once, after what a quota of the broker asks for. What came before it is not read again.
fn fetch(
    source: &mut impl Source,
    positions: &[Position],
    shutdown: &Shutdown,
) -> Result<Vec<Fetched>, BrokerError> {
    loop {
        if shutdown.requested() {
            return Err(BrokerError::Retryable("the consumer was stopped".into()));
        }
        let until = match source.fetch(positions) {
            Err(BrokerError::Throttled(until, _)) => until,
            fetched => {
                let is_read = |one: &Fetched| !matches!(one.page, Err(BrokerError::Throttled(..)));
                return fetched.map(|all| all.into_iter().filter(is_read).collect());
            }
        };
        let wait = until.saturating_duration_since(Instant::now());
        let _ = shutdown.closed().recv_timeout(wait.min(THROTTLED_MAX_WAIT));
    }
}

impl Found<'_> {
    /// Takes the events of `page` from `begin` to `end`, and returns the time of the newest record.
    fn take(&mut self, page: &Page, begin: i64, end: i64) -> Option<i64> {
        let mut newest = None;
        for (time, offset, value) in page.timed_records() {
            if !(begin..end).contains(&offset) {
                continue;
            }
            let time = time.unwrap_or(self.now).min(self.now);
            newest = newest.max(Some(time));
            let line = one_line(value, Some(&self.wanted.field));
            if let Some(id) = line.ok().and_then(|line| line.id) {
                self.events.push(Recalled { time, id: id.text.into(), checksum: id.checksum });
            }
        }
        self.newest = newest.map_or(self.newest, |newest| newest.max(self.newest));
        if self.events.len() >= self.wanted.ids.saturating_mul(2) {
            self.keep_the_latest();
        }
        newest
    }

    fn is_too_old(&self, time: i64) -> bool {
        time < self.newest.saturating_sub(self.wanted.millis)
    }

    /// Sorts by time and removes all but the last ones that are remembered.
    fn keep_the_latest(&mut self) {
        self.events.sort_by_key(|event| event.time);
        let surplus = self.events.len().saturating_sub(self.wanted.ids);
        self.events.drain(..surplus);
    }
}
