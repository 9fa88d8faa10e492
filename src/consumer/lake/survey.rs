//! Reads a closed log once to find out what is in it: its hours, its checksum, and the lines that are not events.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::consumer::lake::fault;
use crate::consumer::lake::input::Lines;
use crate::consumer::lake::paths::hour_of;
use crate::consumer::log::forward::ForwardError;
use crate::consumer::log::lines::split_line;
use crate::event::members;
use crate::hex;

/// The lines of one hour, in hours since the epoch. If the clock was set back, there are lines of other hours between
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the first one begins in the log, and the last one ends.
    pub from: u64,
    pub to: u64,
    /// Their number.
    pub rows: u64,
    /// The earliest and the latest time, in milliseconds since the epoch.
    pub first: i64,
    pub last: i64,
}

/// What is in a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of all lines, decompressed.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// Number of lines, with the rejected ones.
    pub lines: u64,
    /// Number of lines that are not lines of events.
    pub rejected: u64,
    /// The others, by hour.
    pub hours: BTreeMap<i64, Span>,
}

/// The time of a line and what should be its event; `None` if it is not a time, a dash and the beginning of an object.
/// The last line of a log may lack its line ending: an object that is cut is not valid, and any other is whole.
pub fn event_of(line: &[u8]) -> Option<(i64, &[u8])> {
    let (millis, event) = split_line(line.strip_suffix(b"\n").unwrap_or(line))?;
    (event.first() == Some(&b'{')).then_some((millis, event))
}

/// Reads `log` to its end, and passes each line that is not that of an event, with its line ending, to `reject`.
///
/// # Errors
/// It cannot be read, `reject` fails, or it is time to stop.
pub fn survey(
    log: &Path,
    stop: &dyn Fn() -> bool,
    mut reject: impl FnMut(&[u8]) -> Result<(), ForwardError>,
) -> Result<Survey, ForwardError> {
    let mut lines = Lines::open(log, 0, stop).map_err(|error| fault::of_log(log, &error))?;
    let mut digest = Sha256::new();
    let mut found = Survey::default();
    while let Some(line) = lines.next().map_err(|error| fault::of_log(log, &error))? {
        digest.update(line);
        let from = found.bytes;
        found.bytes += line.len() as u64;
        found.lines += 1;
        let valid = event_of(line).filter(|(_, event)| members(event, &[""; 0], |_, _| {}).is_ok());
        match valid {
            Some((millis, _)) => found.add(millis, from),
            None => {
                reject(line)?;
                found.rejected += 1;
            }
        }
    }
    found.sha256 = hex::encode(&digest.finalize());
    Ok(found)
}

/// The SHA-256 of all lines of `log`.
///
/// # Errors
/// It cannot be read.
pub fn checksum(log: &Path) -> Result<String, ForwardError> {
    let mut lines = Lines::open(log, 0, &|| false).map_err(|error| fault::of_log(log, &error))?;
    let mut digest = Sha256::new();
    while let Some(line) = lines.next().map_err(|error| fault::of_log(log, &error))? {
        digest.update(line);
    }
    Ok(hex::encode(&digest.finalize()))
}

impl Survey {
    /// Adds a line that was just read and begins at `from`.
    fn add(&mut self, millis: i64, from: u64) {
        let new = Span { from, to: self.bytes, rows: 0, first: millis, last: millis };
        let span = self.hours.entry(hour_of(millis)).or_insert(new);
        span.to = self.bytes;
        span.rows += 1;
        span.first = span.first.min(millis);
        span.last = span.last.max(millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_told_apart_and_what_is_not_an_event_is_passed_on() {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("closed.log");
        let text = "2025-07-08 00:59:59,999 - {\"a\": 1}\n\
            2025-07-08 01:00:00,000 - {\"a\": 2}\n\
            torn\n\
            2025-07-08 00:59:59,998 - {\"a\": 3}\n\
            2025-07-08 01:00:00,001 - [\"a\"]\n\
            2025-07-08 01:00:00,001 - {\"a\": }\n\
            2025-07-08 01:00:00,001 - {\"a\": 4";
        std::fs::write(&log, text).expect("write");
        let mut rejected = Vec::new();
        let found = survey(&log, &|| false, |line| {
            rejected.extend_from_slice(line);
            Ok(())
        });
        let found = found.expect("read");
        assert_eq!((found.bytes, found.lines, found.rejected), (text.len() as u64, 7, 4));
        let spans: Vec<&Span> = found.hours.values().collect();
        let first = Span { from: 0, to: 110, rows: 2, first: 1_751_936_399_998, last: 1_751_936_399_999 };
        let second = Span { from: 35, to: 70, rows: 1, first: 1_751_936_400_000, last: 1_751_936_400_000 };
        assert_eq!(spans, [&first, &second]);
        let rejected = String::from_utf8(rejected).expect("text");
        assert_eq!(rejected, "torn\n".to_owned() + &text[110..]);
        assert_eq!(found.sha256, hex::encode(&Sha256::digest(text)));
    }
}
