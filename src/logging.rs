//! Operator logs: `log` through simplelog to stderr. Not the event log, which is `consumer::event_log`.
//!
//! A [`Printer`] writes them, so that a supervisor that does not read our stderr cannot stop the threads that log.

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

/// Lines that may wait for a reader of stderr; further ones are dropped.
const WAITING_LINES: usize = 256;

/// `None` inside when the system had no thread for it: then lines are written by those who say them.
static STDERR: OnceLock<Option<Printer>> = OnceLock::new();

static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Lines for stderr that were dropped because it was not read in time";
    IntCounter::new("pipeline_stderr_lines_dropped_total", help).expect("a legal metric")
});

/// Dropped at the end of `main`: waits a moment until what was said has been written.
#[must_use = "the last lines are lost without it"]
pub struct LastWords(());

impl Drop for LastWords {
    fn drop(&mut self) {
        flush();
    }
}

/// Sends the log of this process to stderr, one line a record: `2026-11-24T08:15:46.032Z [INFO] event_pipeline::producer: …`.
///
/// The kafka crate's own messages come in through `tracing`; its TRACE level would print payloads, so it
/// stays at most at DEBUG. Panics take the same way, whatever the level. A second call in one process changes nothing.
pub fn init(level: LevelFilter) -> LastWords {
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_max_level(LevelFilter::Error)
        .set_target_level(LevelFilter::Error)
        .set_thread_level(LevelFilter::Debug)
        .set_location_level(LevelFilter::Off)
        // Its one message, an accept error, is told again, with what is done about it, by `producer`.
        .add_filter_ignore_str("tiny_http")
        .build();
    if WriteLogger::init(level.min(LevelFilter::Debug), config, Lines::default()).is_ok() {
        std::panic::set_hook(Box::new(|info| say(panic_text(info))));
    }
    LastWords(())
}

/// Writes `text`, which ends with a line break, to stderr behind the log lines said before, whatever the level.
pub fn say(text: String) {
    match stderr() {
        Some(printer) => printer.print(text),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until what was said has been written, at most 2 s; for the moment before the process ends.
pub fn flush() {
    if let Some(Some(printer)) = STDERR.get() {
        printer.flush();
    }
}

/// Lines that were dropped, for the metrics.
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

/// What simplelog writes to, in several pieces a line.
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

/// As the standard library words it.
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
