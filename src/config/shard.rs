//! The share of a topic's partitions that one consumer reads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The partitions `p` with `p % count == index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Index of this shard, starting at 0.
    pub index: u32,
    /// Number of shards.
    pub count: u32,
}

impl Shard {
    /// True if this shard reads `partition`.
    pub fn takes(self, partition: i32) -> bool {
        partition.unsigned_abs() % self.count == self.index
    }

    /// The log file of this shard. With more than one shard, `logs/events.log` becomes `logs/events-0.log`.
    pub fn log_file(self, file: &Path) -> PathBuf {
        if self.count == 1 {
            return file.to_path_buf();
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let extension =
            file.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
        file.with_file_name(format!("{stem}-{}{extension}", self.index))
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected I/N with 0 <= I < N <= 1000, for example 0/3";
        let (index, count) = text.split_once('/').ok_or(expected)?;
        let shard =
            Self { index: index.parse().map_err(|_| expected)?, count: count.parse().map_err(|_| expected)? };
        if shard.index < shard.count && shard.count <= 1000 { Ok(shard) } else { Err(expected.into()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_partitions_without_overlap() {
        for count in 1..5 {
            for partition in 0..20 {
                let takers = (0..count).filter(|&index| Shard { index, count }.takes(partition)).count();
                assert_eq!(takers, 1);
            }
        }
        for bad in ["", "1", "1/1", "0/0", "-1/2", "0/1001", "a/b"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_of_several_shards_has_its_own_file() {
        let file =
            |shard: &str| shard.parse::<Shard>().expect("shard").log_file(Path::new("logs/events.log"));
        assert_eq!(file("0/1"), Path::new("logs/events.log"));
        assert_eq!(file("2/3"), Path::new("logs/events-2.log"));
    }
}
