//! When a log is closed, and under which name it is kept. Pure.

use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

const STAMP: &[FormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second][subsecond digits:3]Z");

const MILLIS_A_DAY: i64 = 86_400_000;

/// When to close the log.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Before it grows past so many bytes; 0 never.
    pub max_bytes: u64,
    /// When the UTC day changes.
    pub daily: bool,
}

impl Rotation {
    /// True if a log of `len` bytes, begun on `first_day`, is closed before a line of `line_bytes` on `today`.
    pub fn closes_before(&self, len: u64, first_day: i64, line_bytes: u64, today: i64) -> bool {
        let full = self.max_bytes > 0 && len.saturating_add(line_bytes) > self.max_bytes;
        len > 0 && (full || (self.daily && first_day != today))
    }
}

/// UTC day of a time, in days since the epoch.
pub fn day_of(now_millis: i64) -> i64 {
    now_millis.div_euclid(MILLIS_A_DAY)
}

/// The name under which a log called `name` is kept when it is closed at `now_millis`.
///
/// `events.log` becomes `events-20261124T081546032Z-000.log`; names sort by time. `is_taken` says which exist.
pub fn closed_name(name: &str, now_millis: i64, is_taken: impl Fn(&str) -> bool) -> String {
    let (stem, extension) = split_name(name);
    let now = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(now_millis);
    let stamp = now.format(&STAMP).unwrap_or_else(|_| format!("{now_millis:020}"));
    (0..)
        .map(|number| format!("{stem}-{stamp}-{number:03}{extension}"))
        .find(|closed| !is_taken(closed) && !is_taken(&format!("{closed}.gz")))
        .expect("some number is free")
}

/// True if `candidate` is a closed log of `name`, packed or not.
pub fn is_closed(name: &str, candidate: &str) -> bool {
    let (stem, extension) = split_name(name);
    let candidate = candidate.strip_suffix(".gz").unwrap_or(candidate);
    let Some(middle) = candidate
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(extension))
    else {
        return false;
    };
    let pattern = b"dddddddd\x54ddddddddd\x5a-ddd";
    middle.len() >= pattern.len()
        && middle.bytes().enumerate().all(|(at, byte)| match pattern.get(at) {
            Some(b'd') | None => byte.is_ascii_digit(),
            Some(&fixed) => byte == fixed,
        })
}

/// Stem and extension with its dot.
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
    fn closed_names_sort_by_time_and_are_known_again() {
        let first = closed_name("events.log", NOW, |_| false);
        assert_eq!(first, "events-20261124T081546032Z-000.log");
        let taken = [first.clone()];
        let second = closed_name("events.log", NOW, |name| taken.iter().any(|other| other == name));
        let packed = closed_name("events.log", NOW, |name| name == format!("{first}.gz"));
        assert_eq!(second, "events-20261124T081546032Z-001.log");
        assert_eq!(packed, second);
        let third = closed_name("events.log", NOW + 1, |_| false);
        assert!(first < second && second < third);
        for name in [&first, &second, &third, &format!("{first}.gz")] {
            assert!(is_closed("events.log", name), "{name}");
        }
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
        ] {
            assert!(!is_closed("events.log", name), "{name}");
        }
    }

    #[test]
    fn a_log_is_closed_before_it_grows_too_large_and_when_the_day_changes_but_never_empty() {
        let rotation = Rotation { max_bytes: 100, daily: true };
        assert!(!rotation.closes_before(0, 1, 1000, 2));
        assert!(rotation.closes_before(1, 1, 1, 2));
        assert!(!rotation.closes_before(60, 2, 40, 2));
        assert!(rotation.closes_before(60, 2, 41, 2));
        let never = Rotation { max_bytes: 0, daily: false };
        assert!(!never.closes_before(u64::MAX, 1, 1, 2));
        assert_eq!((day_of(-1), day_of(MILLIS_A_DAY)), (-1, 1));
    }
}
