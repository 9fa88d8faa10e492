//! The record of what a log has become. It is written last: a log with a manifest is in the lake as a whole.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::consumer::lake::survey::Survey;

/// Version of the format.
const VERSION: u32 = 1;

/// What one log has become, as one JSON object. Always the same for the same log and columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Name of the log, without `.gz`.
    pub log: String,
    /// Bytes of its lines.
    pub log_bytes: u64,
    /// Their SHA-256.
    pub log_sha256: String,
    /// Number of its lines: those in the files, and the rejected ones.
    pub lines: u64,
    /// Number of lines that are not lines of events.
    pub rejected: u64,
    /// LAKE_COLUMNS.
    pub columns: String,
    /// All files, in the order of their hours; the rejected lines, if there are any, come last.
    pub files: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below the lake.
    pub path: String,
    /// Number of rows, or of rejected lines.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// The earliest and the latest `logged_at`; none for rejected lines.
    pub first_logged_at: Option<String>,
    pub last_logged_at: Option<String>,
}

impl Manifest {
    /// The manifest of the log called `name`.
    pub fn new(name: &str, survey: &Survey, columns: &str, files: Vec<Entry>) -> Self {
        Self {
            version: VERSION,
            log: name.to_owned(),
            log_bytes: survey.bytes,
            log_sha256: survey.sha256.clone(),
            lines: survey.lines,
            rejected: survey.rejected,
            columns: columns.to_owned(),
            files,
        }
    }

    /// The text of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("a struct of plain values is JSON");
        text.push(b'\n');
        text
    }

    /// Reads the manifest at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is not a manifest of this version.
    pub fn read(path: &Path) -> io::Result<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
        match manifest.version {
            VERSION => Ok(manifest),
            version => {
                Err(io::Error::other(format!("it has version {version}, but this program reads {VERSION}")))
            }
        }
    }
}
