//! Settings of the event ids by which the consumer recognises repeated events.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::values::{added_field, non_empty, number};

/// Which events are repeated ones.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Repeated events")]
pub struct IdsConfig {
    /// Top-level field with the id of an event, for example `event_id`; an event whose id was logged within
    /// DEDUP_WINDOW is dropped. Empty: all events are logged
    #[arg(long, env = "EVENT_ID_FIELD", value_parser = added_field, value_name = "FIELD")]
    event_id_field: Option<String>,

    /// How long the id of a logged event is remembered: a number with s, m, h or d
    #[arg(long = "dedup-window", env = "DEDUP_WINDOW", default_value = "1h", value_name = "TIME")]
    pub window: Window,

    /// Number of ids that are remembered even if there are more within DEDUP_WINDOW; up to twice as many are held, at
    /// most 60 bytes of memory each
    #[arg(long = "dedup-max-ids", env = "DEDUP_MAX_IDS", default_value_t = 1_000_000,
          value_parser = number::<u32>(2..=500_000_000), value_name = "IDS")]
    pub max_ids: u32,
}

impl IdsConfig {
    /// Name of the field with the id, unless all events are logged.
    pub fn field(&self) -> Option<&str> {
        non_empty(self.event_id_field.as_ref())
    }
}

/// A time of up to 90 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    number: u64,
    unit: char,
}

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

impl Window {
    /// As a duration.
    pub fn duration(self) -> Duration {
        let seconds = UNITS.iter().find(|(unit, _)| *unit == self.unit).map_or(1, |(_, seconds)| *seconds);
        Duration::from_secs(self.number * seconds)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MAX: Duration = Duration::from_secs(90 * 86_400);
        let parsed = UNITS.iter().find_map(|&(unit, _)| {
            let number: u64 = text.trim().strip_suffix(unit)?.parse().ok()?;
            (number <= MAX.as_secs()).then_some(Self { number, unit })
        });
        parsed
            .filter(|window| (Duration::from_secs(1)..=MAX).contains(&window.duration()))
            .ok_or_else(|| "expected a time from 1s to 90d, for example 90s, 15m, 1h or 3d".into())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_unit_and_is_shown_as_it_was_written() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3600), ("90d", 90 * 86_400)] {
            let window: Window = text.parse().expect(text);
            assert_eq!((window.duration().as_secs(), window.to_string().as_str()), (seconds, text));
        }
        for bad in ["", "1", "h", "0s", "91d", "1.5h", "-1h", "1w", "1 h", "99999999999999999999s"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
