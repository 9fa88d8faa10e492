//! Shows the progress of a run on stderr: a bar on a terminal, otherwise a log line every few seconds.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::simulate::schedule::Phase;
use crate::simulate::shared::Sight;

/// Time between two log lines if stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of a run, phase by phase.
pub struct Progress {
    phases: Vec<Phase>,
    bar: Option<ProgressBar>,
    /// Index of the phase, and the number of requests completed before it began.
    current: (usize, u64),
    next_line: Duration,
}

impl Progress {
    /// Creates a display for `phases`, the last of which is the measured one.
    pub fn new(phases: &[Phase]) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
            ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { phases: phases.to_vec(), bar, current: (0, 0), next_line: LINE_EVERY }
    }

    /// Updates the display.
    pub fn show(&mut self, sight: Sight) {
        if sight.phase != self.current.0 {
            self.current = (sight.phase, sight.done);
            self.next_line = LINE_EVERY;
        }
        let phase = &self.phases[sight.phase];
        let done = sight.done - self.current.1;
        let share = share(phase, sight.age, done);
        let warmup = if sight.phase + 1 < self.phases.len() { "warm-up: " } else { "" };
        let text = || format!("{warmup}{}", describe(phase, sight, done, share));
        if let Some(bar) = &self.bar {
            bar.set_position((share * 1000.0) as u64);
            bar.set_message(text());
        } else if sight.age >= self.next_line {
            self.next_line = sight.age + LINE_EVERY;
            log::info!("{}", text());
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Completed share of the phase, from 0 to 1: by requests or by time, whichever is greater.
fn share(phase: &Phase, age: Duration, done: u64) -> f64 {
    let by_requests = phase.requests.map_or(0.0, |all| done as f64 / all as f64);
    let by_time = phase.duration.map_or(0.0, |all| age.as_secs_f64() / all.as_secs_f64());
    by_requests.max(by_time).min(1.0)
}

fn describe(phase: &Phase, sight: Sight, done: u64, share: f64) -> String {
    let age = sight.age.as_secs_f64();
    let of = phase.requests.map_or(String::new(), |all| format!(" of {all}"));
    let left =
        if share > 0.0 { format!("{:.0} s left", age / share - age) } else { "time left unknown".into() };
    format!(
        "{done}{of} requests, {:.0}/s, {} not acknowledged, {left}",
        done as f64 / age.max(0.001),
        sight.failed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_share_and_time_left_follow_from_age_and_count() {
        let phase = Phase { requests: Some(1000), duration: Some(Duration::from_secs(100)), rate: None };
        let sight = Sight { phase: 0, age: Duration::from_secs(10), done: 250, failed: 3 };
        let share = share(&phase, sight.age, sight.done);
        assert!((share - 0.25).abs() < 1e-9);
        let text = describe(&phase, sight, sight.done, share);
        assert_eq!(text, "250 of 1000 requests, 25/s, 3 not acknowledged, 30 s left");
    }
}
