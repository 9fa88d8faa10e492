//! Where the consumer's files are, and whether they can be its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::storage::{beside, parent};

/// Where everything stands.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The event log.
    pub log: PathBuf,
    /// Records that are no events.
    pub rejected: PathBuf,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The lock.
    pub lock: PathBuf,
}

impl Paths {
    /// For `logs/events.log`: `logs/events.rejected`, `logs/events.log.checkpoint` and `logs/events.log.lock`.
    pub fn of(log: &Path) -> Self {
        Self {
            log: log.to_path_buf(),
            rejected: log.with_extension("rejected"),
            checkpoint: beside(log, ".checkpoint"),
            lock: beside(log, ".lock"),
        }
    }

    /// The directory of them all.
    pub fn dir(&self) -> &Path {
        parent(&self.log)
    }

    /// Looks whether each of them is a regular file, or not there yet.
    ///
    /// # Errors
    /// Which one is not, and what to do.
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
            // Not there yet, or not to be looked at, which opening it says better.
            Err(_) => return Ok(()),
        };
        Err(format!(
            "{} {what}, where LOG_FILE={} needs a file: move it away, or choose another LOG_FILE",
            path.display(),
            self.log.display()
        ))
    }

    /// A rename, by which logs are closed and checkpoints replaced, would replace the link and leave its file.
    fn link(&self, path: &Path) -> String {
        let target = fs::read_link(path).unwrap_or_default();
        let target = parent(path).join(target);
        let (path, log, target) = (path.display(), self.log.display(), target.display());
        if path.to_string() == log.to_string() {
            format!(
                "LOG_FILE={log} is a symbolic link to {target}, and closing the log would replace the link: set \
                 LOG_FILE={target} and move the checkpoint and the rejected file beside it; or make the directory \
                 the link"
            )
        } else {
            format!(
                "{path} is a symbolic link to {target}, where LOG_FILE={log} needs a file: move {target} here in \
                 place of the link; or make the directory the link"
            )
        }
    }
}
