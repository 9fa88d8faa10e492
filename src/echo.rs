//! Prints the original's line per event to stdout, sampled so that it costs nothing under load.
//!
//! A [`Printer`] writes the lines, so a reader that stalls on stdout never delays an event.

use std::io;

use crate::config::EventEcho;
use crate::printer::{Printer, Silently};

/// Events shown per second in sampled mode.
const LINES_PER_SECOND: u32 = 5;

/// Most lines that may wait to be printed; further lines are dropped.
const WAITING_LINES: usize = 1024;

/// Shows events on stdout.
pub struct Echo {
    sampler: Sampler,
    printer: Option<Printer>,
}

impl Echo {
    /// Starts printing each event as `prefix`, a space and the event.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(mode: EventEcho, prefix: &'static str) -> io::Result<Self> {
        let printer = if mode == EventEcho::Off {
            None
        } else {
            Some(Printer::start("echo", io::stdout(), WAITING_LINES, Silently)?)
        };
        Ok(Self { sampler: Sampler { mode, prefix, second: 0, shown: 0, hidden: 0 }, printer })
    }

    /// Shows `event`, seen in the given second, if the mode selects it.
    pub fn show(&mut self, event: &[u8], second: i64) {
        // Do not format a line that would be dropped.
        if let Some(printer) = &self.printer
            && printer.has_room(event.len())
        {
            self.sampler.show(event, second, |line| printer.print(line));
        }
    }

    /// Shows the summary of the previous second, if `second` is a new one. Called when idle and at the end.
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

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
}
