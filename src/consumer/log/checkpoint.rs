//! Encodes and decodes the checkpoint: the progress, and the file lengths up to which it is written.
//!
//! Pure. `event_log` writes the checkpoint file, and `recovery` reads it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::consumer::log::ids::Key;
use crate::consumer::progress::Progress;

/// Version of the format that is written. Newer versions are refused.
const VERSION: u64 = 3;

/// Oldest version that can be read: it has no trails and no sequence. Version 2 has no event ids.
const OLDEST_VERSION: u64 = 1;

/// Number of bytes before a mark that are compared to verify that a file is the one the mark describes.
pub const TAIL_BYTES: u64 = 256;

/// The progress and the files that belong to it. Always replaced as a whole, and stored as one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    version: u64,
    /// What was read.
    #[serde(flatten)]
    pub progress: Progress,
    /// Where it is.
    #[serde(flatten)]
    pub files: LogMarks,
}

/// How far the files of a log are covered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMarks {
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
    /// The ids of the events in the log, if repeated events are dropped.
    #[serde(default)]
    pub ids: Option<IdMarks>,
}

/// The remembered event ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMarks {
    /// Member of the events that is their id.
    pub field: String,
    /// Key of the fingerprints.
    pub key: Key,
    /// Time of the newest record, in milliseconds since the epoch.
    pub time: i64,
    /// Ids are missing from the files.
    pub damaged: bool,
    /// Oldest first; ids are added to the last one.
    pub generations: Vec<GenerationMark>,
}

impl IdMarks {
    /// The generation to which ids are added.
    pub fn current_mut(&mut self) -> &mut GenerationMark {
        self.generations.last_mut().expect("there is always one")
    }
}

/// The file of one generation of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationMark {
    /// Rises by one with each generation.
    pub number: u64,
    /// Time of its first record, in milliseconds since the epoch.
    pub began: i64,
    /// How far it is covered.
    pub file: FileMark,
}

impl LogMarks {
    /// True if the machine went down after they were written and before they were forced to the disk.
    pub fn lost_power(&self, boot: &str) -> bool {
        self.unsynced_boot.as_ref().is_some_and(|then| then != boot)
    }

    /// The names of its fields; all others belong to the progress.
    const FIELDS: [&str; 8] =
        ["sequence", "log", "rejected", "rotate_to", "day", "unsynced_boot", "stopped", "ids"];
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
    /// A checkpoint in the current format.
    pub fn new(progress: Progress, files: LogMarks) -> Self {
        Self { version: VERSION, progress, files }
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
        Self::parse(text).map_err(|error| error.to_string())
    }

    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let mut fields: Map<String, Value> = serde_json::from_slice(text)?;
        let version = fields.remove("version").unwrap_or_default();
        if !version.as_u64().is_some_and(|version| (OLDEST_VERSION..=VERSION).contains(&version)) {
            let reason = format!("it has version {version}, but this program writes version {VERSION}");
            return Err(serde::de::Error::custom(reason));
        }
        let (files, progress): (Map<_, _>, Map<_, _>) =
            fields.into_iter().partition(|(name, _)| LogMarks::FIELDS.contains(&name.as_str()));
        Ok(Self::new(
            Progress::deserialize(Value::Object(progress))?,
            LogMarks::deserialize(Value::Object(files))?,
        ))
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
    use crate::broker::Trail;

    fn sample() -> Checkpoint {
        let progress = Progress {
            topic: "events".into(),
            shard: "0/1".into(),
            offsets: [(0, 5), (2, 0)].into(),
            trails: [(2, Trail::default())].into(),
            ..Progress::default()
        };
        let log = FileMark { name: "events.log".into(), bytes: 100, inode: 7, tail_crc: 9 };
        Checkpoint::new(progress, LogMarks { log, ..LogMarks::default() })
    }

    #[test]
    fn what_is_written_is_read_and_the_format_stays() {
        assert_eq!(Checkpoint::decode(&sample().encode()), Ok(sample()));
        let text = concat!(
            r#"{"version":3,"topic":"events","topic_id":null,"shard":"0/1","log_id":null,"claim":null,"#,
            r#""offsets":{"0":5,"2":0},"trails":{"2":{"term":null,"epochs":[]}},"sequence":0,"#,
            r#""log":{"name":"events.log","bytes":100,"inode":7,"tail_crc":9},"#,
            r#""rejected":{"name":"","bytes":0,"inode":0,"tail_crc":0},"#,
            r#""rotate_to":null,"day":0,"unsynced_boot":null,"stopped":false,"ids":null}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(sample().encode()).expect("text"), text);
    }

    #[test]
    fn event_ids_are_part_of_it() {
        let generation = GenerationMark { number: 7, began: 5, file: FileMark::default() };
        let mut with_ids = sample();
        with_ids.files.ids = Some(IdMarks {
            field: "event_id".into(),
            key: Key::from([0xab; 16]),
            time: 9,
            damaged: false,
            generations: vec![generation],
        });
        let text = String::from_utf8(with_ids.encode()).expect("text");
        assert!(text.contains(concat!(
            r#""ids":{"field":"event_id","key":"abababababababababababababababab","time":9,"#,
            r#""damaged":false,"generations":[{"number":7,"began":5,"file":{"#
        )));
        assert_eq!(Checkpoint::decode(text.as_bytes()), Ok(with_ids));
    }

    #[test]
    fn a_cut_or_foreign_text_is_refused() {
        let text = sample().encode();
        for len in 0..text.len() - 1 {
            assert!(Checkpoint::decode(&text[..len]).is_err(), "{len}");
        }
        assert!(Checkpoint::decode(b"{\"version\":1}").is_err());
        let text = String::from_utf8(text).expect("text");
        let unknown = text.replace("\"day\":0", "\"day\":0,\"night\":1");
        assert!(Checkpoint::decode(unknown.as_bytes()).unwrap_err().contains("night"));
        let newer = text.replace("\"version\":3", "\"version\":4");
        assert!(Checkpoint::decode(newer.as_bytes()).unwrap_err().contains("version 4"));
    }

    #[test]
    fn checkpoints_of_earlier_versions_are_read_and_become_current_ones() {
        let text = String::from_utf8(sample().encode()).expect("text");
        let second = text.replace("\"version\":3", "\"version\":2").replace(",\"ids\":null", "");
        assert!(!second.contains("ids"), "{second}");
        assert_eq!(Checkpoint::decode(second.as_bytes()), Ok(sample()));
        let first = second.replace("\"version\":2", "\"version\":1");
        let first = first.replace("\"trails\":{\"2\":{\"term\":null,\"epochs\":[]}},\"sequence\":0,", "");
        assert!(!first.contains("trails") && !first.contains("sequence"), "{first}");
        let mut expected = sample();
        expected.progress.trails.clear();
        assert_eq!(Checkpoint::decode(first.as_bytes()), Ok(expected));
    }

    #[test]
    fn only_the_tail_counts_for_its_crc() {
        let bytes: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        assert_eq!(tail_crc(&bytes), tail_crc(&bytes[1000 - 256..]));
        assert_ne!(tail_crc(&bytes), tail_crc(&bytes[..999]));
        assert_eq!(tail_crc(b""), 0);
    }
}
