//! The per-event lines of the original on stdout, sampled so that they cost nothing under load.

use std::io::Write;

use crate::config::EventEcho;

/// Lines shown in one second when sampled.
const LINES_PER_SECOND: u32 = 5;

/// Decides which events are shown. Pure but for the writer it is given.
#[derive(Debug)]
pub struct Echo {
    mode: EventEcho,
    prefix: &'static str,
    second: i64,
    shown: u32,
    hidden: u64,
}

impl Echo {
    /// Shows events as `prefix` + the event.
    pub fn new(mode: EventEcho, prefix: &'static str) -> Self {
        Self { mode, prefix, second: 0, shown: 0, hidden: 0 }
    }

    /// Writes the lines due for `event`, seen in the given second. A failed write is ignored: the lines are for
    /// a human who watches, and nobody's data.
    pub fn show(&mut self, event: &[u8], second: i64, out: &mut impl Write) {
        match self.mode {
            EventEcho::Off => {}
            EventEcho::All => self.line(event, out),
            EventEcho::Sampled => {
                self.turn(second, out);
                if self.shown < LINES_PER_SECOND {
                    self.shown += 1;
                    self.line(event, out);
                } else {
                    self.hidden += 1;
                }
            }
        }
    }

    /// Writes the summary of a second that is over, if it hid events; for the idle tick and the end.
    pub fn turn(&mut self, second: i64, out: &mut impl Write) {
        if second == self.second {
            return;
        }
        if self.hidden > 0 {
            let _ = writeln!(out, "{} … and {} more in that second", self.prefix, self.hidden);
        }
        (self.second, self.shown, self.hidden) = (second, 0, 0);
    }

    fn line(&self, event: &[u8], out: &mut impl Write) {
        let _ = writeln!(out, "{} {}", self.prefix, String::from_utf8_lossy(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mode: EventEcho) -> String {
        let mut echo = Echo::new(mode, "✅ Event sent to Kafka:");
        let mut out = Vec::new();
        for _ in 0..7 {
            echo.show(b"{}", 10, &mut out);
        }
        echo.turn(11, &mut out);
        echo.turn(12, &mut out);
        String::from_utf8(out).expect("text")
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
