//! Lines in memory, formatted by simplelog: `2025-07-08 00:12:01,782 - {…}` (UTC).
//!
//! simplelog swallows write errors and drops what a filter or level excludes, so it writes into a buffer, which
//! cannot fail, and the length of that is checked. Knows no file.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use crate::event::Stamp;

/// Bytes of a line that are not the text itself: time, separator, line break.
pub const LINE_OVERHEAD: usize = "2025-07-08 00:12:01,782 - ".len() + 1;

/// Formats lines and gives them away as a block.
pub struct Lines {
    logger: Box<WriteLogger<Collector>>,
    handover: Arc<Mutex<Vec<u8>>>,
    /// The time of the current millisecond: a format description a line would cost as much as all the rest.
    millis: i64,
    time: String,
    /// Bytes that must have been collected.
    expected: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// A simplelog instance of its own: the global one would let foreign records into the file.
    pub fn new() -> Self {
        let config = ConfigBuilder::new()
            .set_time_level(LevelFilter::Off)
            .set_max_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        let handover = Arc::new(Mutex::new(Vec::new()));
        let collector = Collector { lines: Vec::new(), handover: handover.clone() };
        Self {
            logger: WriteLogger::new(LevelFilter::Info, config, collector),
            handover,
            millis: i64::MIN,
            time: String::new(),
            expected: 0,
        }
    }

    /// Adds one line at `now_millis` since the epoch. `text` has no line break.
    pub fn add(&mut self, now_millis: i64, text: &str) {
        if now_millis != self.millis {
            self.millis = now_millis;
            self.time = time_of(now_millis);
        }
        let line = format_args!("{} - {text}", self.time);
        self.logger.log(&Record::builder().args(line).level(Level::Info).target("event").build());
        self.expected += text.len() + LINE_OVERHEAD;
    }

    /// Bytes of the lines since the last [`Self::take`].
    pub fn len(&self) -> usize {
        self.expected
    }

    /// True without lines.
    pub fn is_empty(&self) -> bool {
        self.expected == 0
    }

    /// Moves the lines into `into`, which is empty and keeps its memory for the next ones.
    pub fn take(&mut self, into: &mut Vec<u8>) {
        let handover = || self.handover.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *handover(), into);
        self.logger.flush();
        std::mem::swap(&mut *handover(), into);
        assert_eq!(into.len(), self.expected, "simplelog dropped a line or split one");
        self.expected = 0;
    }
}

/// `2025-07-08 00:12:01,782`, as the original's logger wrote it.
fn time_of(now_millis: i64) -> String {
    let mut time = Stamp::from_unix_millis(now_millis).as_str().replace('T', " ").replace('.', ",");
    time.truncate("2025-07-08 00:12:01,782".len());
    time
}

/// What simplelog writes to. A lock a line would cost as much as the line: the block changes hands on `flush`.
struct Collector {
    lines: Vec<u8>,
    handover: Arc<Mutex<Vec<u8>>>,
}

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lines.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *handover, &mut self.lines);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &mut Lines) -> String {
        let mut block = Vec::new();
        lines.take(&mut block);
        String::from_utf8(block).expect("text")
    }

    #[test]
    fn a_line_is_that_of_the_original() {
        let mut lines = Lines::new();
        lines.add(
            1_751_933_521_782,
            r#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#,
        );
        assert_eq!(
            taken(&mut lines),
            "2025-07-08 00:12:01,782 - {\"event\": \"purchase\", \"user_id\": 203, \
             \"timestamp\": \"2025-07-08T00:12:01.781Z\"}\n"
        );
    }

    #[test]
    fn blocks_follow_each_other_without_gap_or_repeat() {
        let mut lines = Lines::new();
        for (millis, text) in [(0, "{}"), (0, "{\"a\":\"é\"}"), (1, "{}")] {
            lines.add(millis, text);
        }
        assert_eq!(lines.len(), 3 * LINE_OVERHEAD + 2 + 10 + 2);
        assert_eq!(
            taken(&mut lines),
            "1970-01-01 00:00:00,000 - {}\n1970-01-01 00:00:00,000 - {\"a\":\"é\"}\n1970-01-01 00:00:00,001 - {}\n"
        );
        assert!(lines.is_empty());
        assert_eq!(taken(&mut lines), "");
        lines.add(2, "{\"b\":1}");
        assert_eq!(taken(&mut lines), "1970-01-01 00:00:00,002 - {\"b\":1}\n");
    }
}
