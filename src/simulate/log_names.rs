//! Recognizes the rotated files of a log by their names, and puts them in order. Pure.

use std::cmp::Reverse;

/// Least digits at the beginning of a date. The number of a shard has at most three.
const YEAR_DIGITS: usize = 4;

/// Position of a file in the order of the log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `events-20261124T081546032Z-000.log`, `events-2026-11-24.log`, or another text that begins with a year.
    Named(String),
    /// `events-seq000000000042-20261124T081546032Z.log`: closed by the consumer, which numbers the files.
    Closed(u64, String),
    /// `events.log-20261124`: logrotate's `dateext`.
    Dated(String),
    /// `events.log.2`, or `events.2.log` with logrotate's `extension`; higher numbers are older.
    Numbered(Reverse<u32>),
    /// The log itself.
    Current,
}

/// The position of `candidate` among the files of the log `name`, or `None` if it is not one of them.
pub fn rank(name: &str, candidate: &str) -> Option<Rank> {
    let plain = candidate.strip_suffix(".gz").unwrap_or(candidate);
    if candidate == name {
        return Some(Rank::Current);
    }
    let rotated =
        plain.strip_prefix(name).and_then(|rest| numbered(rest).or_else(|| dated(rest).map(Rank::Dated)));
    if rotated.is_some() {
        return rotated;
    }
    let (stem, extension) =
        name.rfind('.').filter(|dot| *dot > 0).map_or((name, ""), |dot| name.split_at(dot));
    let middle = plain.strip_prefix(stem)?.strip_suffix(extension)?;
    let closed = middle.strip_prefix("-seq").and_then(|rest| rest.split_once('-'));
    let closed =
        closed.and_then(|(number, stamp)| Some(Rank::Closed(number.parse().ok()?, stamp.to_owned())));
    closed.or_else(|| numbered(middle)).or_else(|| dated(middle).map(Rank::Named))
}

/// Parses a suffix that begins with a year, like `-20261124`. Fewer digits are the number of a shard, whose log is
/// another one: `events-1.log` beside `events.log`.
fn dated(text: &str) -> Option<String> {
    let date = text.strip_prefix('-')?;
    let digits = date.bytes().take_while(u8::is_ascii_digit).count();
    (digits >= YEAR_DIGITS).then(|| text.to_owned())
}

/// Parses a suffix like `.2`.
fn numbered(text: &str) -> Option<Rank> {
    let number = text.strip_prefix('.')?.parse().ok()?;
    Some(Rank::Numbered(Reverse(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_another_shard_is_another_log() {
        for (name, others) in [
            (
                "events.log",
                ["events-0.log", "events-999.log.gz", "events-1-seq000000000001-20261124T081546032Z.log"],
            ),
            ("events", ["events-0", "events-999.gz", "events-1-seq000000000001-20261124T081546032Z"]),
        ] {
            for other in others {
                assert_eq!(rank(name, other), None, "{other}");
            }
        }
    }

    #[test]
    fn a_log_without_extension_has_rotated_files_too() {
        let closed = "events-seq000000000012-20261124T081546032Z.gz";
        assert!(matches!(rank("events", closed), Some(Rank::Closed(12, _))));
        assert!(matches!(rank("events", "events-20261124"), Some(Rank::Dated(_))));
        assert!(matches!(rank("events", "events.3"), Some(Rank::Numbered(Reverse(3)))));
        assert!(matches!(rank("events-0", "events-0-2026-11-24"), Some(Rank::Dated(_))));
    }
}
