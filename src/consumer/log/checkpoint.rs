//! Encodes and decodes the checkpoint: the offsets and file lengths up to which every record is written once.
//!
//! Pure. `event_log` writes the checkpoint file, and `recovery` reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::Trails;

/// Version of the format that is written. Newer versions are refused.
const VERSION: u32 = 2;

/// Oldest version that can be read: it has no trails and no sequence.
const OLDEST_VERSION: u32 = 1;

/// Number of bytes before a mark that are compared to verify that a file is the one the mark describes.
pub const TAIL_BYTES: u64 = 256;

/// Next offset to read in each partition.
pub type Offsets = BTreeMap<i32, i64>;

/// Offsets and the file lengths that belong to them. Always replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    version: u32,
    /// The topic.
    pub topic: String,
    /// The topic's identity, if the broker has one: another topic may have the same name.
    pub topic_id: Option<String>,
    /// The shard of the topic, `i/n`.
    pub shard: String,
    /// The log's identity in the group; earlier versions wrote none.
    #[serde(default)]
    pub log_id: Option<String>,
    /// Number of the start that wrote it, as in the marks of that log; earlier versions wrote none.
    #[serde(default)]
    pub claim: Option<u64>,
    /// Next offset to read in each partition.
    pub offsets: Offsets,
    /// Leader epochs and checksums of records before these offsets.
    #[serde(default)]
    pub trails: Trails,
    /// Number of logs closed so far.
    #[serde(default)]
    pub sequence: u64,
    /// The event log.
    pub log: FileMark,
    /// The file of records that are not valid events.
    pub rejected: FileMark,
    /// The log is about to be renamed to this and replaced by an empty one.
    pub rotate_to: Option<String>,
    /// UTC day, in days since the epoch, of the log's first line.
    pub day: i64,
    /// Boot id of the machine when the bytes were written, if they were not forced to disk.
    pub unsynced_boot: Option<String>,
    /// The consumer shut down cleanly: it wrote nothing past the marks.
    pub stopped: bool,
}

/// How far one file is covered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMark {
    /// Name without directory.
    pub name: String,
    /// Bytes that belong to the offsets.
    pub bytes: u64,
    /// Inode number at the time of writing. Only a hint: backups change it and file systems reuse it.
    pub inode: u64,
    /// CRC-32 of the last [`TAIL_BYTES`] of these bytes.
    pub tail_crc: u32,
}

impl Checkpoint {
    /// Creates a checkpoint of `topic` and `shard` at `offsets`, with files in the given states.
    pub fn new(topic: &str, shard: &str, offsets: Offsets, log: FileMark, rejected: FileMark) -> Self {
        Self {
            version: VERSION,
            topic: topic.to_owned(),
            topic_id: None,
            shard: shard.to_owned(),
            log_id: None,
            claim: None,
            offsets,
            trails: Trails::new(),
            sequence: 0,
            log,
            rejected,
            rotate_to: None,
            day: 0,
            unsynced_boot: None,
            stopped: false,
        }
    }

    /// True if the machine went down after it was written and before it was forced to the disk.
    pub fn lost_power(&self, boot: &str) -> bool {
        self.unsynced_boot.as_ref().is_some_and(|then| then != boot)
    }

    /// True if its topic was deleted, and the one of this id created under the same name.
    pub fn is_of_another(&self, topic_id: Option<&str>) -> bool {
        self.topic_id.is_some() && topic_id.is_some() && self.topic_id.as_deref() != topic_id
    }

    /// Encodes the checkpoint as one line of JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("a struct of plain values is JSON");
        text.push(b'\n');
        text
    }

    /// Decodes the content of the checkpoint file.
    ///
    /// # Errors
    /// The content is not a checkpoint, or has an unsupported version; the message says what is wrong.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(format!("it has version {version}, but this program writes version {VERSION}"));
        }
        let checkpoint: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(Self { version: VERSION, ..checkpoint })
    }
}

/// CRC-32 of the last [`TAIL_BYTES`] of `bytes`.
pub fn tail_crc(bytes: &[u8]) -> u32 {
    let start = bytes.len().saturating_sub(TAIL_BYTES as usize);
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[start..]);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let log = FileMark { name: "events.log".into(), bytes: 100, inode: 7, tail_crc: 9 };
        Checkpoint::new("events", "0/1", Offsets::from([(0, 5), (2, 0)]), log, FileMark::default())
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Checkpoint::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn a_cut_or_foreign_text_is_refused() {
        let text = sample().encode();
        for len in 0..text.len() - 1 {
            assert!(Checkpoint::decode(&text[..len]).is_err(), "{len}");
        }
        assert!(Checkpoint::decode(b"{\"version\":1}").is_err());
        let newer = String::from_utf8(text).expect("text").replace("\"version\":2", "\"version\":3");
        assert!(Checkpoint::decode(newer.as_bytes()).unwrap_err().contains("version 3"));
    }

    #[test]
    fn a_checkpoint_of_version_1_is_read_and_becomes_one_of_version_2() {
        let text = String::from_utf8(sample().encode()).expect("text");
        let old = text.replace("\"version\":2", "\"version\":1");
        let old = old.replace("\"trails\":{},\"sequence\":0,", "");
        assert!(!old.contains("trails") && !old.contains("sequence"), "{old}");
        assert_eq!(Checkpoint::decode(old.as_bytes()), Ok(sample()));
    }

    #[test]
    fn only_the_tail_counts_for_its_crc() {
        let bytes: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        assert_eq!(tail_crc(&bytes), tail_crc(&bytes[1000 - 256..]));
        assert_ne!(tail_crc(&bytes), tail_crc(&bytes[..999]));
        assert_eq!(tail_crc(b""), 0);
    }
}
