//! Paths of the consumer's files, and a check that each can be used.

use std::fs;
use std::path::{Path, PathBuf};

use crate::consumer::log::storage::{beside, parent};

/// The paths of all files of one log.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The event log.
    pub log: PathBuf,
    /// Records that are not valid events.
    pub rejected: PathBuf,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The lock.
    pub lock: PathBuf,
}

impl Paths {
    /// For `logs/events.log`: `logs/events.rejected`, `logs/events.log.checkpoint` and
    /// `logs/events.log.lock`.
    pub fn of(log: &Path) -> Self {
        Self {
            log: log.to_path_buf(),
            rejected: log.with_extension("rejected"),
            checkpoint: beside(log, ".checkpoint"),
            lock: beside(log, ".lock"),
        }
    }

    /// The directory that contains them all.
    pub fn dir(&self) -> &Path {
        parent(&self.log)
    }

    /// Checks that each path is a regular file or does not exist yet.
    ///
    /// # Errors
    /// One of them is something else; the message names it and what to do.
    pub fn check(&self) -> Result<(), String> {
        [&self.log, &self.rejected, &self.checkpoint, &self.lock]
            .into_iter()
            .try_for_each(|path| self.check_one(path))
    }

    fn check_one(&self, path: &Path) -> Result<(), String> {
        let what = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => return Ok(()),
            Ok(meta) if meta.is_symlink() => return Err(self.link(path)),
            Ok(meta) if meta.is_dir() => "is a directory",
            Ok(_) => "is not a regular file",
            // It does not exist yet, or cannot be inspected; opening it gives the better error.
            Err(_) => return Ok(()),
        };
        Err(format!(
            "{} {what}, but LOG_FILE={} needs a file there: move it away, or choose another LOG_FILE",
            path.display(),
            self.log.display()
        ))
    }

    /// Links are refused: closing a log and replacing a checkpoint are renames, which replace the link, not
    /// its target.
    fn link(&self, path: &Path) -> String {
        let target = fs::read_link(path).unwrap_or_default();
        let target = parent(path).join(target);
        let (path, log, target) = (path.display(), self.log.display(), target.display());
        if path.to_string() == log.to_string() {
            format!(
                "LOG_FILE={log} is a symbolic link to {target}, and closing the log would replace the link: \
                 set LOG_FILE={target} and move the checkpoint and the rejected file next to it; or link the \
                 directory instead"
            )
        } else {
            format!(
                "{path} is a symbolic link to {target}, but LOG_FILE={log} needs a file there: replace the \
                 link with {target}; or link the directory instead"
            )
        }
    }
}
