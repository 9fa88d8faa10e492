//! One consumer a log: a lock beside the file, held as long as the process lives, whatever ends it.
//!
//! It also keeps the identity of the log where the log and its checkpoint were moved away.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::linux;

/// A held lock; dropping it gives it up. The file stays: removing it would let two hold it.
#[derive(Debug)]
pub struct LogLock {
    file: File,
    path: PathBuf,
    log_id: String,
}

impl LogLock {
    /// Takes the lock at `path` and writes our process id and host and the identity of the log into it, a new one
    /// if it has none.
    ///
    /// # Errors
    /// Who holds it and what to do, or why the file cannot be used.
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
        // What it says is a help only; one that cannot be read is written again.
        let _ = file.read_to_string(&mut text);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = text.lines().next().unwrap_or_default();
                return Err(format!(
                    "{} is held by {}: another consumer writes this log. Stop that one, or give this one another \
                     LOG_FILE, or share the topic with CONSUMER_SHARD",
                    path.display(),
                    if holder.trim().is_empty() { "an unknown process" } else { holder.trim() }
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let log_id =
            text.lines().find_map(|line| line.strip_prefix("log ")).map_or_else(new_id, str::to_owned);
        let mut lock = Self { file, path: path.to_path_buf(), log_id };
        lock.write();
        Ok(lock)
    }

    /// Identity of the log.
    pub fn log_id(&self) -> &str {
        &self.log_id
    }

    /// Replaces the identity by the one in the log's checkpoint.
    pub fn set_log_id(&mut self, log_id: &str) {
        if self.log_id != log_id {
            log_id.clone_into(&mut self.log_id);
            self.write();
        }
    }

    /// Who holds the lock is a help for people; a full disk must not stop the start because of it.
    fn write(&mut self) {
        let text = format!("{}\nlog {}\n", ourselves(), self.log_id);
        let _ = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(text.as_bytes()));
    }

    /// Takes the lock anew if its file was moved or deleted, so that nobody else can take it behind our back.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn keep(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot look at {}: {error}", self.path.display());
        let ours = self.file.metadata().map_err(failed)?.ino();
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.ino() == ours => Ok(()),
            Ok(_) => self.retake(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.retake(),
            Err(error) => Err(failed(error)),
        }
    }

    fn retake(&mut self) -> Result<(), String> {
        let log_id = std::mem::take(&mut self.log_id);
        let taken = Self::take(&self.path);
        self.log_id.clone_from(&log_id);
        *self = taken?;
        self.set_log_id(&log_id);
        Ok(())
    }
}

/// In a container every consumer is process 1, so the host is named too.
fn ourselves() -> String {
    format!("process {} on host {}", std::process::id(), linux::host_name())
}

/// An identity that no other log has.
fn new_id() -> String {
    // The only source of the system's randomness in std; two machines that start at once must differ.
    format!("{:016x}", RandomState::new().build_hasher().finish())
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
        first.keep().expect("taken again");
        assert!(LogLock::take(&path).is_err());
        let id = first.log_id().to_owned();
        drop(first);
        let mut again = LogLock::take(&path).expect("free again");
        assert_eq!(again.log_id(), id, "kept over the deletion and the restart");
        again.set_log_id("of the checkpoint");
        drop(again);
        assert_eq!(LogLock::take(&path).expect("free").log_id(), "of the checkpoint");
        assert_ne!(LogLock::take(&dir.path().join("other.lock")).expect("free").log_id(), id);
    }
}
