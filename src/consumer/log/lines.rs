//! Formats log lines in memory with simplelog: `2025-07-08 00:12:01,782 - {…}` (UTC).
//!
//! simplelog ignores write errors and drops lines that a filter or level excludes. So it writes into a
//! buffer, which cannot fail, and the length of the buffer is checked.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use log::{Level, LevelFilter, Log, Record};
use parking_lot::Mutex;
use simplelog::{ConfigBuilder, WriteLogger};
use time::{Date, Month};

use crate::event::Stamp;

/// Bytes of a line that are not its text: time, separator and line break.
pub const LINE_OVERHEAD: usize = "2025-07-08 00:12:01,782 - ".len() + 1;

/// Formats lines and returns them as a block.
pub struct Lines {
    logger: Box<WriteLogger<Collector>>,
    handover: Arc<Mutex<Vec<u8>>>,
    /// The formatted time of `millis`: formatting it for every line would cost as much as everything else.
    millis: i64,
    time: String,
    /// Number of bytes that must have been collected.
    expected: usize,
    /// The block that was taken last.
    block: Vec<u8>,
}

impl Default for Lines {
    /// Creates a separate simplelog instance: the global one would also write other log records to the file.
    fn default() -> Self {
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
            block: Vec::new(),
        }
    }
}

impl Lines {
    /// Adds one line with the time `now_millis`, in milliseconds since the epoch. `text` must not contain a
    /// line break.
    pub fn add(&mut self, now_millis: i64, text: &str) {
        if now_millis != self.millis {
            self.millis = now_millis;
            self.time = time_of(now_millis);
        }
        let line = format_args!("{} - {text}", self.time);
        self.logger.log(&Record::builder().args(line).level(Level::Info).target("event").build());
        self.expected += text.len() + LINE_OVERHEAD;
    }

    /// Number of bytes added since the last [`Self::take`].
    pub fn len(&self) -> usize {
        self.expected
    }

    /// True if there are no lines.
    pub fn is_empty(&self) -> bool {
        self.expected == 0
    }

    /// Takes the lines as one block, whose memory is reused for later ones.
    pub fn take(&mut self) -> &mut Vec<u8> {
        self.block.clear();
        std::mem::swap(&mut *self.handover.lock(), &mut self.block);
        self.logger.flush();
        std::mem::swap(&mut *self.handover.lock(), &mut self.block);
        assert_eq!(self.block.len(), self.expected, "simplelog dropped a line or split one");
        self.expected = 0;
        &mut self.block
    }
}

/// Formats a time like the original's logger: `2025-07-08 00:12:01,782`.
fn time_of(now_millis: i64) -> String {
    let mut time = Stamp::from_unix_millis(now_millis).as_str().replace('T', " ").replace('.', ",");
    time.truncate("2025-07-08 00:12:01,782".len());
    time
}

/// Splits a line into its time, in milliseconds since the epoch, and its text; `None` if it does not begin with a time
/// as [`Lines::add`] writes it.
pub fn split_line(line: &[u8]) -> Option<(i64, &[u8])> {
    const FORM: &[u8; LINE_OVERHEAD - 1] = b"0000-00-00 00:00:00,000 - ";
    let (time, text) = line.split_at_checked(FORM.len())?;
    let fits = time.iter().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        fixed => byte == fixed,
    });
    if !fits {
        return None;
    }
    let number =
        |range: Range<usize>| time[range].iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let small = |range| u8::try_from(number(range)).ok();
    let year = i32::try_from(number(0..4)).ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(small(5..7)?).ok()?, small(8..10)?).ok()?;
    let millis = u16::try_from(number(20..23)).ok()?;
    let moment =
        date.with_hms_milli(small(11..13)?, small(14..16)?, small(17..19)?, millis).ok()?.assume_utc();
    Some((moment.unix_timestamp() * 1000 + i64::from(millis), text))
}

/// What simplelog writes to. Locking for every line would cost as much as the line itself, so `flush` hands
/// over the whole block.
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
        std::mem::swap(&mut *self.handover.lock(), &mut self.lines);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &mut Lines) -> String {
        String::from_utf8(lines.take().clone()).expect("text")
    }

    #[test]
    fn a_line_is_that_of_the_original() {
        let mut lines = Lines::default();
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
    fn a_line_is_split_into_its_time_and_its_text() {
        for millis in [0, 1_751_933_521_782, -1, 951_782_400_007, 253_402_300_799_999] {
            let line = format!("{} - {{}}", time_of(millis));
            assert_eq!(split_line(line.as_bytes()), Some((millis, &b"{}"[..])), "{line}");
        }
        for bad in [
            "",
            "2025-07-08 00:12:01,782 -",
            "2025-07-08T00:12:01,782 - {}",
            "2025-13-08 00:12:01,782 - {}",
            "2025-02-29 00:12:01,782 - {}",
            "2025-07-08 24:00:00,000 - {}",
            "2025-07-08 00:12:60,000 - {}",
            "2025-07-08 00:12:0x,000 - {}",
        ] {
            assert_eq!(split_line(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn blocks_follow_each_other_without_gap_or_repeat() {
        let mut lines = Lines::default();
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
