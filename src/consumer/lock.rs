//! One consumer a log: a lock beside the file, held as long as the process lives, whatever ends it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::linux;

/// A held lock; dropping it gives it up. The file stays: removing it would let two hold it.
#[derive(Debug)]
pub struct LogLock {
    file: File,
    path: PathBuf,
}

impl LogLock {
    /// Takes the lock at `path` and writes our process id and host into it.
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
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(format!(
                    "{} is held by {}: another consumer writes this log. Stop that one, or give this one another \
                     LOG_FILE, or share the topic with CONSUMER_SHARD",
                    path.display(),
                    if holder.trim().is_empty() { "an unknown process" } else { holder.trim() }
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Who holds the lock is a help for people; a full disk must not stop the start because of it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", ourselves()));
        Ok(Self { file, path: path.to_path_buf() })
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
        *self = Self::take(&self.path)?;
        Ok(())
    }
}

/// In a container every consumer is process 1, so the host is named too.
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
        first.keep().expect("taken again");
        assert!(LogLock::take(&path).is_err());
        drop(first);
        LogLock::take(&path).expect("free again");
    }
}
