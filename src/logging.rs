//! Writes the program's own log to stderr with simplelog. (The event log is `consumer::log`.)
//!
//! A [`Printer`] writes the lines, so a supervisor that does not read stderr cannot block our threads.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntCounter;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger, format_description};

use crate::event::Stamp;
use crate::printer::{Dropped, Printer};

/// Most lines that may wait to be written to stderr; further lines are dropped.
const WAITING_LINES: usize = 256;

/// Contains `None` if its thread could not be started; the logging threads then write their lines themselves.
static STDERR: OnceLock<Option<Printer>> = OnceLock::new();

static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Lines for stderr that were dropped because it was not read in time";
    IntCounter::new("pipeline_stderr_lines_dropped_total", help).expect("a legal metric")
});

/// Flushes the log when dropped at the end of `main`, waiting at most 2 s.
#[must_use = "the last lines are lost without it"]
pub struct LastWords(());

impl Drop for LastWords {
    fn drop(&mut self) {
        flush();
    }
}

/// Sends this process's log to stderr, one line per record, for example
/// `2026-11-24T08:15:46.032Z [INFO] event_pipeline::producer: …`.
///
/// The kafka crate's messages arrive through `tracing`. Its TRACE level would print payloads, so the level is
/// limited to DEBUG. Panics are logged the same way, at every level. A second call in the same process has no
/// effect.
pub fn init(level: LevelFilter) -> LastWords {
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_max_level(LevelFilter::Error)
        .set_target_level(LevelFilter::Error)
        .set_thread_level(LevelFilter::Debug)
        .set_location_level(LevelFilter::Off)
        // Its only message is about accept errors, which `producer` reports too, with its reaction.
        .add_filter_ignore_str("tiny_http")
        .build();
    if WriteLogger::init(level.min(LevelFilter::Debug), config, Lines::default()).is_ok() {
        std::panic::set_hook(Box::new(|info| say(panic_text(info))));
    }
    LastWords(())
}

/// Writes `text` to stderr after all earlier log lines, regardless of the level. `text` must end with a line
/// break.
pub fn say(text: String) {
    match stderr() {
        Some(printer) => printer.print(text),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all lines have been written, at most 2 s. Call it before the process ends.
pub fn flush() {
    if let Some(Some(printer)) = STDERR.get() {
        printer.flush();
    }
}

/// The counter of dropped lines, for the metrics.
pub fn dropped_lines() -> IntCounter {
    DROPPED.clone()
}

fn stderr() -> Option<&'static Printer> {
    STDERR.get_or_init(|| Printer::start("stderr", io::stderr(), WAITING_LINES, Counted).ok()).as_ref()
}

struct Counted;

impl Dropped for Counted {
    fn count(&self) {
        DROPPED.inc();
    }

    fn notice(&self, lines: u64) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time = Stamp::from_unix_millis(i64::try_from(now).unwrap_or(i64::MAX));
        let target = module_path!();
        Some(format!("{time} [WARN] {target}: {lines} log lines were dropped: stderr was not read in time\n"))
    }
}

/// What simplelog writes to; it writes each line in several pieces.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            say(String::from_utf8_lossy(&self.line).into_owned());
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats a panic like the standard library does.
fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}"),
        _ => String::new(),
    };
    format!("thread '{name}' {info}\n{trace}")
}
