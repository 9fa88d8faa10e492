//! The per-event lines of the original on stdout, sampled so that they cost nothing under load.
//!
//! A thread of their own prints them: whoever does not read our stdout must never hold up an event.

use std::io::{self, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::config::EventEcho;
use crate::thread::spawn;

/// Lines shown in one second when sampled.
const LINES_PER_SECOND: u32 = 5;

/// Lines that may wait to be printed; further ones are left out.
const WAITING_LINES: usize = 1024;

/// Longest wait for the last lines at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Shows events as they pass.
#[derive(Debug)]
pub struct Echo {
    sampler: Sampler,
    printer: Option<Printer>,
}

impl Echo {
    /// Shows events as `prefix` + the event on stdout.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(mode: EventEcho, prefix: &'static str) -> io::Result<Self> {
        let printer = if mode == EventEcho::Off { None } else { Some(Printer::start(io::stdout())?) };
        Ok(Self { sampler: Sampler { mode, prefix, second: 0, shown: 0, hidden: 0 }, printer })
    }

    /// Shows `event`, seen in the given second, if it is one of those to be shown.
    pub fn show(&mut self, event: &[u8], second: i64) {
        if let Some(printer) = &self.printer {
            self.sampler.show(event, second, |line| printer.print(line));
        }
    }

    /// Shows the summary of a second that is over; for the idle tick and the end.
    pub fn turn(&mut self, second: i64) {
        if let Some(printer) = &self.printer {
            self.sampler.turn(second, |line| printer.print(line));
        }
    }
}

/// Decides which events are shown. Pure.
#[derive(Debug)]
struct Sampler {
    mode: EventEcho,
    prefix: &'static str,
    second: i64,
    shown: u32,
    hidden: u64,
}

impl Sampler {
    fn show(&mut self, event: &[u8], second: i64, print: impl Fn(String)) {
        match self.mode {
            EventEcho::Off => {}
            EventEcho::All => print(self.line(event)),
            EventEcho::Sampled => {
                self.turn(second, &print);
                if self.shown < LINES_PER_SECOND {
                    self.shown += 1;
                    print(self.line(event));
                } else {
                    self.hidden += 1;
                }
            }
        }
    }

    fn turn(&mut self, second: i64, print: impl Fn(String)) {
        if second == self.second {
            return;
        }
        if self.hidden > 0 {
            print(format!("{} … and {} more in that second\n", self.prefix, self.hidden));
        }
        (self.second, self.shown, self.hidden) = (second, 0, 0);
    }

    fn line(&self, event: &[u8]) -> String {
        format!("{} {}\n", self.prefix, String::from_utf8_lossy(event))
    }
}

/// Writes lines in a thread of its own; dropping it waits a moment for the last ones.
#[derive(Debug)]
struct Printer {
    lines: Option<Sender<String>>,
    thread: JoinHandle<()>,
}

impl Printer {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = bounded(WAITING_LINES);
        let thread = spawn("echo", move || print_all(&waiting, out))?;
        Ok(Self { lines: Some(lines), thread })
    }

    fn print(&self, line: String) {
        if let Some(lines) = &self.lines {
            // Full: nobody reads. The lines are for a human who watches, and nobody's data.
            let _ = lines.try_send(line);
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.lines = None;
        let deadline = Instant::now() + LAST_WORDS;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn print_all(waiting: &Receiver<String>, mut out: impl Write) {
    for line in waiting {
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn shown(mode: EventEcho) -> String {
        let mut sampler =
            Sampler { mode, prefix: "✅ Event sent to Kafka:", second: 0, shown: 0, hidden: 0 };
        let out = RefCell::new(String::new());
        let print = |line: String| out.borrow_mut().push_str(&line);
        for _ in 0..7 {
            sampler.show(b"{}", 10, print);
        }
        sampler.turn(11, print);
        sampler.turn(12, print);
        out.into_inner()
    }

    #[test]
    fn a_second_shows_the_first_events_and_one_summary() {
        let text = shown(EventEcho::Sampled);
        assert_eq!(text.matches("✅ Event sent to Kafka: {}\n").count(), 5);
        assert!(text.ends_with("✅ Event sent to Kafka: … and 2 more in that second\n"), "{text}");
    }

    #[test]
    fn all_shows_all_and_off_nothing() {
        assert_eq!(shown(EventEcho::All).lines().count(), 7);
        assert_eq!(shown(EventEcho::Off), "");
    }

    #[test]
    fn a_reader_that_never_reads_holds_nobody_up() {
        let (unread, out) = UnixStream::pair().expect("a pair");
        let printer = Printer::start(out).expect("a thread");
        let began = Instant::now();
        for _ in 0..100_000 {
            printer.print("x".repeat(100));
        }
        drop(printer);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(unread);
    }
}
