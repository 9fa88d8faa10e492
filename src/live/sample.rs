//! Which events of the topic are shown, and how much of each. Pure.

use std::collections::VecDeque;

use serde::Serialize;

use crate::broker::Bounds;

/// Most events that are shown per second.
pub const EVENTS_PER_SECOND: usize = 20;
/// Events that a new viewer gets.
pub const EVENTS_KEPT: usize = 50;
/// Longest text of an event that is shown, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// An event as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, if the client for Kafka knows it.
    pub time: Option<i64>,
    /// Its value, or the beginning of it.
    pub text: String,
    pub is_cut: bool,
    /// Length of its value.
    pub bytes: usize,
}

impl Event {
    /// The event with this value.
    pub fn new(partition: i32, offset: i64, time: Option<i64>, value: &[u8]) -> Self {
        // A sign that is cut in two at the end would show as a replacement character.
        let cut = if value.len() <= MAX_TEXT_BYTES { value } else { whole_signs(&value[..MAX_TEXT_BYTES]) };
        let (text, is_cut) = (String::from_utf8_lossy(cut).into_owned(), cut.len() < value.len());
        Self { partition, offset, time, text, is_cut, bytes: value.len() }
    }
}

fn whole_signs(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

/// The offset to read a partition from: on from `known`, but not more than a second's events behind its end.
pub fn next_offset(known: Option<i64>, bounds: &Bounds) -> i64 {
    let earliest_shown = (bounds.latest - EVENTS_PER_SECOND as i64).max(bounds.earliest);
    match known {
        // A lower end is another log: the topic was created again, or a broker lost records.
        Some(offset) if offset <= bounds.latest => offset.max(earliest_shown),
        _ => bounds.latest,
    }
}

/// The events that go to the viewers.
#[derive(Debug, Default)]
pub struct Shown {
    /// Those that no snapshot has had yet.
    fresh: Vec<Event>,
    recent: VecDeque<Event>,
    /// Records that came to the topic since the last snapshot.
    seen: u64,
    /// Why nothing can be read.
    problem: Option<String>,
}

/// What a snapshot gets.
#[derive(Debug, Default)]
pub struct Taken {
    pub fresh: Vec<Event>,
    pub recent: Vec<Event>,
    pub seen: u64,
    pub problem: Option<String>,
}

impl Shown {
    /// Adds an event. Returns false, and drops it, if the next snapshot has as many as it may have.
    pub fn add(&mut self, event: Event) -> bool {
        if self.fresh.len() >= EVENTS_PER_SECOND {
            return false;
        }
        if self.recent.len() == EVENTS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        self.fresh.push(event);
        true
    }

    /// Counts records that came to the topic.
    pub fn saw(&mut self, records: u64) {
        self.seen += records;
    }

    /// Notes why nothing can be read, or that it can again.
    pub fn set_problem(&mut self, problem: Option<String>) {
        self.problem = problem;
    }

    /// What the next snapshot shows.
    pub fn take(&mut self) -> Taken {
        Taken {
            fresh: std::mem::take(&mut self.fresh),
            recent: self.recent.iter().cloned().collect(),
            seen: std::mem::take(&mut self.seen),
            problem: self.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_at_the_end_and_never_falls_behind() {
        let bounds = |earliest, latest| Bounds { partition: 0, earliest, latest };
        for (known, bounds, next) in [
            (None, bounds(0, 1000), 1000),
            (Some(995), bounds(0, 1000), 995),
            (Some(10), bounds(0, 1000), 980),
            (Some(10), bounds(990, 1000), 990),
            (Some(1000), bounds(0, 1000), 1000),
            (Some(1000), bounds(0, 7), 7),
        ] {
            assert_eq!(next_offset(known, &bounds), next, "{known:?} {bounds:?}");
        }
    }

    #[test]
    fn a_long_event_is_cut_between_signs() {
        let event = |value: &[u8]| Event::new(0, 0, None, value);
        assert!(event(b"{}").text == "{}" && !event(b"{}").is_cut);
        let long = format!("x{}", "é".repeat(1000));
        let cut = event(long.as_bytes());
        assert_eq!((cut.text.as_str(), cut.is_cut, cut.bytes), (&long[..511], true, 2001));
        assert_eq!(event(&[0xff; 3]).text, "\u{fffd}\u{fffd}\u{fffd}", "not text at all");
    }

    #[test]
    fn a_snapshot_has_a_bounded_number_and_a_new_viewer_the_latest() {
        let mut shown = Shown::default();
        let mut offset = 0;
        for _ in 0..4 {
            let added = (0..30).filter(|_| {
                offset += 1;
                shown.add(Event::new(0, offset, None, b"{}"))
            });
            assert_eq!(added.count(), EVENTS_PER_SECOND);
            shown.saw(30);
            let taken = shown.take();
            assert_eq!((taken.fresh.len(), taken.seen), (EVENTS_PER_SECOND, 30));
        }
        let taken = shown.take();
        assert_eq!((taken.fresh.len(), taken.recent.len(), taken.seen), (0, EVENTS_KEPT, 0));
        assert_eq!(taken.recent.last().map(|event| event.offset), Some(110));
    }
}
