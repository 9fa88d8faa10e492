//! Ensures that only one consumer writes a log: locks a file next to it until the process ends or is killed.
//!
//! It also keeps the identity of the log, for the next one when the log and its checkpoint were moved away.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::linux;

/// How the line with the identity of the log begins.
const LOG: &str = "log ";

/// A held lock; dropping it gives it up. The file stays: removing it would let two hold it.
#[derive(Debug)]
pub struct LogLock {
    file: File,
    path: PathBuf,
    log_id: Option<String>,
}

impl LogLock {
    /// Takes the lock at `path` and writes our process id and host into it.
    ///
    /// # Errors
    /// Another process holds the lock (the message names it and what to do), or the file cannot be used.
    pub fn take(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let locked = file.try_lock();
        let mut text = String::new();
        // The content is only informative; if it cannot be read, it is rewritten.
        let _ = file.read_to_string(&mut text);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = text.lines().find(|line| !line.starts_with(LOG)).unwrap_or_default();
                return Err(format!(
                    "{} is held by {}: another consumer writes this log. Stop that one, or set another \
                     LOG_FILE here, or split the topic between them with CONSUMER_SHARD",
                    path.display(),
                    if holder.trim().is_empty() { "an unknown process" } else { holder.trim() }
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let log_id = text.lines().find_map(|line| line.strip_prefix(LOG)).map(str::to_owned);
        let mut lock = Self { file, path: path.to_path_buf(), log_id };
        lock.write();
        Ok(lock)
    }

    /// Identity of the log that was written here last.
    pub fn log_id(&self) -> Option<&str> {
        self.log_id.as_deref()
    }

    /// Who holds the lock is a help for people; a full disk must not stop the start because of it. The identity comes
    /// first and is never cut off, so that a full disk does not lose it.
    fn write(&mut self) {
        let log_id = self.log_id.iter().map(|id| format!("{LOG}{id}\n"));
        let text = log_id.chain([ourselves(), "\n".into()]).collect::<String>();
        let _ = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.set_len(text.len() as u64));
    }

    /// Takes the lock again if its file was moved or deleted, so that no other process can take it unnoticed, and
    /// remembers that the log `log_id` is written here.
    ///
    /// # Errors
    /// See [`Self::take`].
    pub fn keep(&mut self, log_id: &str) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot check the lock {}: {error}", self.path.display());
        let ours = self.file.metadata().map_err(failed)?.ino();
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.ino() == ours => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => *self = Self::take(&self.path)?,
        }
        if self.log_id.as_deref() != Some(log_id) {
            self.log_id = Some(log_id.to_owned());
            self.write();
        }
        Ok(())
    }
}

/// Includes the host, because in a container every consumer is process 1.
fn ourselves() -> String {
    format!("process {} on host {}", std::process::id(), linux::host_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_holds_it_and_a_deleted_file_is_taken_again() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.log.lock");
        let mut first = LogLock::take(&path).expect("free");
        let refused = LogLock::take(&path).expect_err("held");
        assert!(refused.contains(&format!("held by {}", ourselves())), "{refused}");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(first.log_id(), None, "no log was here before");
        first.keep("the log").expect("taken again");
        assert!(LogLock::take(&path).is_err());
        std::fs::remove_file(&path).expect("remove");
        first.keep("the log").expect("taken again");
        let refused = LogLock::take(&path).expect_err("held");
        assert!(refused.contains(&format!("held by {}", ourselves())), "{refused}");
        drop(first);
        let mut again = LogLock::take(&path).expect("free again");
        assert_eq!(again.log_id(), Some("the log"), "kept over the deletion and the restart");
        again.keep("the next log").expect("held");
        drop(again);
        assert_eq!(LogLock::take(&path).expect("free").log_id(), Some("the next log"));
    }
}
