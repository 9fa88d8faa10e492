//! Decides when the log is rotated, and names the closed logs. Pure.

use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

const STAMP: &[FormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second][subsecond digits:3]Z");

const MILLIS_A_DAY: i64 = 86_400_000;

/// When to close the log.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Close it before it exceeds this many bytes; 0 means never.
    pub max_bytes: u64,
    /// Close it when the UTC day changes.
    pub daily: bool,
    /// Close it when a multiple of this many milliseconds since the epoch has passed; 0 means never.
    pub period_millis: i64,
}

/// When the first line of a log was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    /// UTC day, in days since the epoch.
    pub day: i64,
    /// Milliseconds since the epoch.
    pub millis: i64,
}

impl Begin {
    /// The first line is written at `now_millis`.
    pub fn at(now_millis: i64) -> Self {
        Self { day: day_of(now_millis), millis: now_millis }
    }
}

impl Rotation {
    /// True if a log of `len` bytes must be closed before writing `line_bytes` at `now_millis`.
    pub fn closes_before(&self, len: u64, begin: Begin, line_bytes: u64, now_millis: i64) -> bool {
        let full = self.max_bytes > 0 && len.saturating_add(line_bytes) > self.max_bytes;
        let day_is_over = self.daily && begin.day != day_of(now_millis);
        len > 0 && (full || day_is_over || self.period_is_over(begin, now_millis))
    }

    /// True if a log with a first line must be closed even though no line follows.
    pub fn period_is_over(&self, begin: Begin, now_millis: i64) -> bool {
        let period = |millis: i64| millis.div_euclid(self.period_millis);
        self.period_millis > 0 && period(begin.millis) != period(now_millis)
    }
}

/// The UTC day of a time in milliseconds since the epoch, in days since the epoch.
pub fn day_of(now_millis: i64) -> i64 {
    now_millis.div_euclid(MILLIS_A_DAY)
}

/// Position of a closed log in the order of closing, independent of the clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// A log closed by a version without numbers: `events-20261124T081546032Z-000.log`, ordered by name.
    Unnumbered(String),
    /// A numbered log: `events-seq000000000042-20261124T081546032Z.log`.
    Numbered(u64),
}

/// Returns the name for closed log `number` of the log called `name`, closed at `now_millis`.
///
/// `events.log` becomes `events-seq000000000042-20261124T081546032Z.log`. Names sort by number, after those
/// without one. Numbers of more than twelve digits are ordered correctly only by [`closed`].
pub fn closed_name(name: &str, number: u64, now_millis: i64) -> String {
    let (stem, extension) = split_name(name);
    let now = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::milliseconds(now_millis));
    let stamp = now.and_then(|now| now.format(&STAMP).ok()).unwrap_or_else(|| format!("{now_millis:020}"));
    format!("{stem}-seq{number:012}-{stamp}{extension}")
}

/// Returns the number for the next closed log of `name`: above `last`, which is in the checkpoint, and above
/// those of all `names` in the directory, since a checkpoint may be lost. `None` if there is no higher
/// number.
pub fn next_number<'a>(name: &str, last: u64, names: impl Iterator<Item = &'a str>) -> Option<u64> {
    let numbers = names.filter_map(|candidate| match closed(name, candidate) {
        Some(Closed::Numbered(number)) => Some(number),
        _ => None,
    });
    numbers.fold(last, u64::max).checked_add(1)
}

/// Returns the position of `candidate` among the closed logs of `name`, whether compressed or not. `None` if
/// it is not one of them.
pub fn closed(name: &str, candidate: &str) -> Option<Closed> {
    let (stem, extension) = split_name(name);
    let candidate = candidate.strip_suffix(".gz").unwrap_or(candidate);
    let middle = candidate.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(extension)?;
    let fits = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                fixed => byte == fixed,
            })
    };
    if let Some((number, stamp)) = middle.strip_prefix("seq").and_then(|rest| rest.split_once('-')) {
        let is_ours = number.len() >= 12 && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_ours = is_ours && (fits(stamp, "ddddddddTdddddddddZ") || fits(stamp, &"d".repeat(20)));
        return is_ours.then(|| number.parse().ok().map(Closed::Numbered)).flatten();
    }
    let (stamp, count) = middle.split_once('-')?;
    let is_ours = fits(stamp, "ddddddddTdddddddddZ") && count.len() >= 3;
    (is_ours && count.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| Closed::Unnumbered(middle.to_owned()))
}

/// Splits a name into stem and extension; the dot belongs to the extension.
fn split_name(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_508_146_032;

    #[test]
    fn closed_names_sort_by_number_whatever_the_clock_says() {
        let first = closed_name("events.log", 1, NOW);
        assert_eq!(first, "events-seq000000000001-20261124T081546032Z.log");
        let second = closed_name("events.log", 2, NOW - 1_000_000);
        let old = "events-20990101T000000000Z-000.log".to_owned();
        let names = [old, first, second, closed_name("events.log", 10, 0)];
        assert!(names.is_sorted(), "{names:?}");
        let order: Vec<_> = names.iter().map(|name| closed("events.log", name).expect("closed")).collect();
        assert!(order.is_sorted(), "{order:?}");
        for name in &names {
            assert_eq!(closed("events.log", &format!("{name}.gz")), closed("events.log", name));
        }
        let long =
            [999_999_999_999, 1_000_000_000_000, u64::MAX].map(|n| closed_name("events.log", n, i64::MAX));
        assert!(long.iter().map(|name| closed("events.log", name).expect("closed")).is_sorted(), "{long:?}");
    }

    #[test]
    fn the_next_number_is_above_the_checkpoint_and_all_names() {
        let next = |last, names: &[&str]| next_number("events.log", last, names.iter().copied());
        assert_eq!(next(0, &[]), Some(1));
        assert_eq!(next(7, &["events-seq000000000003-20261124T081546032Z.log"]), Some(8));
        assert_eq!(next(7, &["events-seq000000000009-20261124T081546032Z.log.gz", "events.log"]), Some(10));
        assert_eq!(
            next(7, &["events-0-seq000000000009-20261124T081546032Z.log"]),
            Some(8),
            "another shard's"
        );
        assert_eq!(next(u64::MAX, &[]), None);
    }

    #[test]
    fn other_files_are_not_closed_logs() {
        for name in [
            "events.log",
            "events.log.1",
            "events.rejected",
            "events-0.log",
            "events-0-20261124T081546032Z-000.log",
            "events-20261124T081546032Z-000.log.part",
            "events-20261124T08154603xZ-000.log",
            "other-20261124T081546032Z-000.log",
            "events-0-seq000000000001-20261124T081546032Z.log",
            "events-seq000000000001-20261124T081546032Z.log.gz.part",
            "events-seq1-20261124T081546032Z.log",
            "events-seq99999999999999999999-20261124T081546032Z.log",
            "events-seq000000000001-.log",
        ] {
            assert_eq!(closed("events.log", name), None, "{name}");
        }
    }

    #[test]
    fn a_log_is_closed_before_it_grows_too_large_and_when_the_day_changes_but_never_empty() {
        let (day, hour) = (MILLIS_A_DAY, 3_600_000);
        let closes = |rotation: Rotation, len, begun: i64, bytes, now| {
            rotation.closes_before(len, Begin::at(begun), bytes, now)
        };
        let rotation = Rotation { max_bytes: 100, daily: true, period_millis: 0 };
        assert!(!closes(rotation, 0, day, 1000, 2 * day));
        assert!(closes(rotation, 1, 2 * day - 1, 1, 2 * day));
        assert!(!closes(rotation, 60, 2 * day, 40, 2 * day));
        assert!(closes(rotation, 60, 2 * day, 41, 2 * day));
        let never = Rotation { max_bytes: 0, daily: false, period_millis: 0 };
        assert!(!closes(never, u64::MAX, day, 1, 2 * day));
        let hourly = Rotation { period_millis: hour, ..never };
        assert!(!closes(hourly, 1, hour, 1, 2 * hour - 1) && closes(hourly, 1, hour, 1, 2 * hour));
        assert!(!closes(hourly, 0, hour, 1, 2 * hour));
        assert!(hourly.period_is_over(Begin::at(hour), hour - 1), "the clock was set back");
        assert_eq!((day_of(-1), day_of(MILLIS_A_DAY)), (-1, 1));
    }
}
