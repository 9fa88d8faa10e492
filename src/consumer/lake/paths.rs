//! Names of the lake's files. Pure.
//!
//! ```text
//! dt=2026-11-26/hour=17/events-seq000000000042-20261126T180000012Z.log.parquet
//! _manifest/events-seq000000000042-20261126T180000012Z.log.json
//! _rejected/events-seq000000000042-20261126T180000012Z.log
//! _part/…                                                        while it is being written
//! ```
//!
//! Programs that read a directory of Parquet files skip names that begin with `_`.

use std::path::{Path, PathBuf};

use crate::event::Stamp;

const MILLIS_AN_HOUR: i64 = 3_600_000;

/// The hour of a time in milliseconds since the epoch, in hours since the epoch.
pub fn hour_of(millis: i64) -> i64 {
    millis.div_euclid(MILLIS_AN_HOUR)
}

/// The directories of a lake.
#[derive(Clone, Debug)]
pub struct LakePaths {
    /// The lake itself.
    pub root: PathBuf,
}

impl LakePaths {
    /// What is being written, and has no name yet.
    pub fn parts(&self) -> PathBuf {
        self.root.join("_part")
    }

    /// What each log has become.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("_manifest")
    }

    /// The manifest of the log called `name`.
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.manifests().join(format!("{name}.json"))
    }

    /// Path below the root of the file with the events of `hour` of the log called `name`.
    pub fn events(name: &str, hour: i64) -> String {
        let stamp = Stamp::from_unix_millis(hour.saturating_mul(MILLIS_AN_HOUR));
        let (day, time) = stamp.as_str().split_once('T').unwrap_or_default();
        format!("dt={day}/hour={}/{name}.parquet", &time[..2])
    }

    /// Path below the root of the file with the lines of the log called `name` that are not events.
    pub fn rejected(name: &str) -> String {
        format!("_rejected/{name}")
    }

    /// Where the file that will be `target`, below the root, is written.
    pub fn part(&self, target: &str) -> PathBuf {
        let name = Path::new(target).file_name().unwrap_or_default().to_string_lossy();
        self.parts().join(format!("{name}.part"))
    }
}

/// The name of the log that a part of this name is made of.
pub fn log_of_part(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".part")?;
    Some(name.strip_suffix(".parquet").or_else(|| name.strip_suffix(".json")).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "events-seq000000000042-20261126T180000012Z.log";

    #[test]
    fn a_file_is_in_the_directory_of_its_hour_in_utc() {
        for (millis, directory) in [
            (1_751_933_521_782, "dt=2025-07-08/hour=00"),
            (-1, "dt=1969-12-31/hour=23"),
            (1_795_715_999_999, "dt=2026-11-26/hour=17"),
        ] {
            assert_eq!(LakePaths::events(NAME, hour_of(millis)), format!("{directory}/{NAME}.parquet"));
        }
    }

    #[test]
    fn a_part_names_its_log() {
        let lake = LakePaths { root: "/lake".into() };
        for target in
            [LakePaths::events(NAME, 0), LakePaths::rejected(NAME), format!("_manifest/{NAME}.json")]
        {
            let part = lake.part(&target);
            let part = part.strip_prefix("/lake/_part").expect("below _part").to_str().expect("text");
            assert_eq!(log_of_part(part), Some(NAME), "{target}");
        }
        assert_eq!(log_of_part("events.log"), None);
    }
}
